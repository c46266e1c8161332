"""`medddpm export`: weights in the formats of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medddpm.cli import groups
from medddpm.cli.console import say
from medddpm.cli.options import Overwrite
from medddpm.cli.run import reports_errors

Kind = Literal["monai-bundle", "diffusers", "onnx", "openvino", "pt2"]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("export", rich_help_panel=groups.TRAIN)(export)


@reports_errors
def export(
    weights: Annotated[
        str, typer.Argument(metavar="WEIGHTS", help="A shipped name or a .safetensors file.")
    ],
    to: Annotated[Kind, typer.Option("--to", help="The format.")],
    out: Annotated[Path, typer.Option("--out", help="A folder that does not exist yet.")],
    coils: Annotated[
        int,
        typer.Option(
            min=0, help="Of onnx, openvino and pt2: 1 is Rician noise, 0 Gaussian, more are coils."
        ),
    ] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Write weights in a format of others, checked by its own runtime.

    Exit codes: 0 ok; 2 usage, or a package is missing; 3 unreadable weights; 5 output.
    """
    from medddpm.export import export_weights

    say(str(export_weights(weights, to, out, coils=coils, overwrite=overwrite)))
