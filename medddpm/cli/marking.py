"""`medddpm detect` and `medddpm key`: is a scan synthetic, and the keys that tell."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.run import EXIT_FLAGGED, reports_errors
from medddpm.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("detect", rich_help_panel=groups.MEASURE)(detect)
    keys = typer.Typer(
        name="key",
        help="Make the keys that synthetic scans are marked and signed with.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    keys.command("new")(new)
    app.add_typer(keys, rich_help_panel=groups.SHIPPED)


@reports_errors
def detect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A NIfTI or DICOM file, or one DICOM series.")
    ],
    key: Annotated[Path | None, typer.Option(help="Key of the mark to look for.")] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="Public key of who should have signed the sidecar.")
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(metavar="X,Y,Z", help="Voxel size in mm, where the header is lost."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether a scan is synthetic: by its mark, its header and its signed sidecar.

    Texture like that of drawn heads is said too: a hint, which changes no exit code.

    A search for a mark that is not there takes half a minute. That nothing is found does not show
    that a scan is real. Exit codes: 0 nothing was found; 6 the scan is synthetic, or its sidecar is
    not what was signed; 2 usage or a wrong key file; 3 no image.
    """
    edges = parse_spacing(spacing)
    with progress("detect") as report:
        from medddpm.marking.key import read_key
        from medddpm.marking.signature import read_public_key
        from medddpm.marking.verdict import inspect_file

        verdict = inspect_file(
            file,
            None if key is None else read_key(key),
            public_key=None if public_key is None else read_public_key(public_key),
            spacing=edges,
            on_progress=report,
        )
    if as_json:
        typer.echo(json.dumps(verdict.facts, indent=2))
    else:
        for sentence in verdict.sentences:
            typer.echo(sentence)
    if verdict.is_synthetic or not verdict.provenance.is_sound:
        raise typer.Exit(EXIT_FLAGGED)


@reports_errors
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the secret key goes.")],
    kind: Annotated[
        Literal["mark", "signature"],
        typer.Option(help="For the invisible mark, or to sign sidecars (with FILE.pub beside it)."),
    ] = "mark",
) -> None:
    """Write a new random key that only its owner may read; an existing one is never replaced.

    Who has the key of a mark can find it and can forge it. FILE.pub of a signature is for everyone.
    """
    if kind == "mark":
        from medddpm.marking.key import new_key

        say(f"wrote {new_key(file)}")
        return
    from medddpm.marking.signature import new_signing_key

    for path in new_signing_key(file):
        say(f"wrote {path}")


def parse_spacing(text: str | None) -> tuple[float, float, float] | None:
    """The voxel size of "1,1,1.5" in mm; None stays None."""
    if text is None:
        return None
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        x = y = z = math.nan
    if not all(math.isfinite(edge) and edge > 0 for edge in (x, y, z)):
        raise ConfigError(f"--spacing is {text!r}; give three sizes in mm, X,Y,Z")
    return x, y, z
