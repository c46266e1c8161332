"""`medddpm generate`: synthetic heads, labelled as such."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.options import Device, Overwrite, Weights, given, parse_device
from medddpm.cli.run import EXIT_FLAGGED, reports_errors

_WEAK = 0.5
"""Share of training scans that are known again in another pose, below which a person is told."""


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("generate", rich_help_panel=groups.GENERATE)(generate)


@reports_errors
def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write into.")],
    key: Annotated[
        Path, typer.Option(help="Key of the mark that every scan carries; see key new -h.")
    ],
    prior: Annotated[
        str, typer.Option(help="The shipped one of T1w brains, or a file of train prior.")
    ] = "T1w",
    signing_key: Annotated[
        Path | None, typer.Option(help="Sign the sidecars; see key new --kind signature.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many heads.")] = 1,
    contrast: Annotated[
        str | None, typer.Option(help="Refuse a prior of another contrast, such as T1w.")
    ] = None,
    like: Annotated[Path | None, typer.Option(help="A scan to make variants of.")] = None,
    change: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of a variant: 0 the scan itself, 1 another head."),
    ] = None,
    spacing: Annotated[
        float | None, typer.Option(help="Edge of a voxel in mm; the prior's, or finer.")
    ] = None,
    patch: Annotated[
        int | None,
        typer.Option(min=16, help="Blocks of so many voxels an edge in place of whole heads."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Network evaluations a head.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the first head; the same seed gives the same head.")
    ] = None,
    allow_copies: Annotated[
        bool,
        typer.Option("--allow-copies", help="Write copies of training scans too, and say so."),
    ] = False,
    weights: Weights = "default",
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Draw synthetic heads from a prior: labelled, marked, and tested for copies.

    A prior that learned few people says nothing about a population: see docs/synthetic.md.

    Exit codes: 0 ok; 6 some were copies and were not written; 2 usage; 3 unreadable prior,
    weights or scan; 5 output.
    """
    with progress("generate") as step:
        from medddpm.generation.drawing import DrawOptions
        from medddpm.workflows.generating import Seal, Tools, Wanted
        from medddpm.workflows.generating import generate as run

        done = run(
            out,
            Tools(prior, weights, parse_device(device)),
            Seal(key, signing_key),
            Wanted(count, contrast, like, allow_copies),
            options=DrawOptions(
                **given(steps=steps, spacing=spacing, patch=patch, change=change, seed=seed)
            ),
            overwrite=overwrite,
            on_progress=lambda done, total: step("heads", done, total),
        )
    for scan in done:
        near = scan.draw.resemblance
        if scan.written:
            typer.echo(f"{scan.image}")
        else:
            say(
                f"{scan.image.name} is not written: it is a copy of a training scan (likeness "
                f"{near.similarity:.2f}, other people's scans stay below {near.threshold:.2f})"
            )
    if done[0].recognised < _WEAK:
        say(
            f"notice: only {100 * done[0].recognised:.0f} % of the training scans are known again "
            "in another pose, so a copy in another pose may pass"
        )
    if not all(scan.written for scan in done):
        raise typer.Exit(EXIT_FLAGGED)
