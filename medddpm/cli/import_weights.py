"""`medddpm import`: weights of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medddpm.cli import groups
from medddpm.cli.console import say
from medddpm.cli.options import Overwrite
from medddpm.cli.run import reports_errors

Kind = Literal["maisi", "generative", "medvae"]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("import", rich_help_panel=groups.TRAIN)(import_weights)


@reports_errors
def import_weights(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A checkpoint: .pt, .pth, .ckpt, .safetensors.")
    ],
    kind: Annotated[
        Kind,
        typer.Option(
            help="Whose: maisi is NV-Generate, generative is MONAI GenerativeModels or MONAI."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for what it becomes.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights, for their card.")],
    source: Annotated[str, typer.Option(help="Where they are from, for their card.")],
    settings: Annotated[
        Path | None,
        typer.Option(
            help="What came with the weights and describes their network, JSON or YAML; not "
            "needed for MAISI as published."
        ),
    ] = None,
    scale: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Values of black and of the brightest tissue where an autoencoder was trained: "
            "by default 0 1, for MedVAE -1 1."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert weights of others, without running what their file holds.

    An imported autoencoder can be the codec of a training: train diffusion --codec FILE.

    Exit codes: 0 ok; 2 usage; 3 an unreadable or unfit file; 5 output.
    """
    from medddpm.importing.convert import Origin
    from medddpm.importing.convert import import_weights as run

    origin = Origin(licence=licence, source=source)
    path = run(file, kind, out, origin, settings=settings, scale=scale, overwrite=overwrite)
    say(str(path))
