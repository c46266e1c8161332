"""`medddpm simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.options import (
    AcquisitionFile,
    Coils,
    Overwrite,
    Seed,
    SimulatedNoise,
)
from medddpm.cli.run import reports_errors
from medddpm.errors import ConfigError

if TYPE_CHECKING:
    from medddpm.preprocess.noise_law import NoiseLaw
    from medddpm.workflows.simulating import Scanner

_PREFIX = "acquisition."


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("simulate", rich_help_panel=groups.MEASURE)(simulate)


@reports_errors
def simulate(
    clean: Annotated[Path, typer.Argument(metavar="CLEAN", help="A scan without much noise.")],
    noisy: Annotated[str, typer.Argument(metavar="NOISY", help="A .nii.gz file or a folder.")],
    sigma: Annotated[float, typer.Option(help="Fraction of the intensity scale, such as 0.05.")],
    noise: Annotated[
        SimulatedNoise,
        typer.Option(
            help="acquired: of a random acquisition. ellipse: 0.62, 0.62 and 0.9 of the matrix. "
            "white: Rician, on the finished scan, or of the law that is given."
        ),
    ] = SimulatedNoise.ACQUIRED,
    acquisition: AcquisitionFile = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="acquisition.FIELD=VALUE",
            help="Fix a part of the acquisition, such as acquisition.matrix=0.6,0.6,0.9; "
            "repeatable.",
        ),
    ] = None,
    coils: Coils = 1,
    gmap: Annotated[
        Path | None,
        typer.Option(help="A scan on the same grid that multiplies sigma of white noise."),
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Acquire a clean scan again, with noise of a known size, as a scanner would.

    Beside NOISY are written the clean scan through the same chain (`_clean`), to compare
    restorations with, the noise at each voxel where it varies (`_sigma`), and a sidecar with which
    --acquisition and --seed make the same scan again. Sigma is a fraction of the intensity scale,
    the 99.5th percentile of the foreground.
    """
    with progress("simulate"):
        from medddpm.workflows.simulating import simulate as run

        scanner = _scanner(noise, coils, acquisition, fields or [])
        done = run(clean, noisy, sigma, scanner=scanner, gmap=gmap, seed=seed, overwrite=overwrite)
    for path in (done.noisy, *([done.clean] if done.clean != clean else []), done.sigma):
        if path is not None:
            typer.echo(f"{path}")
    if done.words:
        say(done.words)


def _scanner(
    noise: SimulatedNoise, coils: int, acquisition: Path | None, fields: list[str]
) -> Scanner | NoiseLaw:
    """What `simulate` is asked for.

    Raises:
        ConfigError: Options of white noise and of an acquisition were mixed.
    """
    from medddpm.preprocess.noise_law import NoiseLaw
    from medddpm.workflows.simulating import Scanner, read_acquisition

    kind = noise.white_kind
    if kind is not None:
        if acquisition is not None or fields:
            raise ConfigError(f"--noise {noise} is added to the finished scan: no acquisition")
        return NoiseLaw(kind, coils)
    if coils != 1:
        raise ConfigError(f"--coils is for white noise: set {_PREFIX}coils={coils}")
    if noise is SimulatedNoise.ELLIPSE:
        if acquisition is not None:
            raise ConfigError("--noise ellipse and --acquisition exclude each other; give one")
        return Scanner("ellipse", changes=_changes(fields))
    given = None if acquisition is None else read_acquisition(acquisition)
    return Scanner(acquisition=given, changes=_changes(fields))


def _changes(fields: list[str]) -> dict[str, Any]:
    """The fields of "acquisition.FIELD=VALUE"; values are read as YAML."""
    from medddpm.io.yaml_text import parse_yaml

    found = {}
    for text in fields:
        name, equals, value = text.partition("=")
        field = name.strip().removeprefix(_PREFIX)
        if not equals or not name.strip().startswith(_PREFIX):
            raise ConfigError(
                f"--set takes {_PREFIX}FIELD=VALUE such as {_PREFIX}matrix=0.6,0.6,0.9, "
                f"got {text!r}"
            )
        if field == "sigma":
            raise ConfigError("sigma is set by --sigma")
        found[field] = parse_yaml(value, f"--set {name}")
    return found
