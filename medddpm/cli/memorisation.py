"""`medddpm memorisation`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.options import Device, Overwrite, parse_device
from medddpm.cli.run import EXIT_FLAGGED, reports_errors


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("memorisation", rich_help_panel=groups.TRAIN)(memorisation)


@reports_errors
def memorisation(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, with its cache.")],
    samples: Annotated[
        int, typer.Option(min=1, help="Samples of each kind, or patches of each given scan.")
    ] = 32,
    scans: Annotated[
        Path | None, typer.Option(help="Judge these NIfTI scans, not drawn samples.")
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Share of real held-out patches that may be called copies.")
    ] = 0.01,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report [RUN/memorisation].")
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Find the training scan nearest to each generated sample, and name the copies.

    Exit codes: 0 no copy was found; 6 the report is written, and names copies; 2 usage or config;
    3 unreadable weights or scans; 5 output.
    """
    with progress("memorisation") as report:
        from medddpm.memorisation.run import memorisation as find

        done = find(
            run,
            samples=samples,
            scans=scans,
            alpha=alpha,
            out=out,
            device=parse_device(device),
            seed=seed,
            overwrite=overwrite,
            on_progress=report,
        )
    verdict = done.verdict
    for name, found in verdict.thresholds.items():
        highest = max(row[name] for row in done.rows)
        typer.echo(
            f"{name}: highest {highest:.3f}, threshold {found.value:.3f}, which "
            f"{100 * found.share:.2g} % of real patches pass (95 % interval "
            f"{100 * found.low:.2g} to {100 * found.high:.2g} %, {found.num} held-out patches)"
        )
    copies = sum(verdict.copies)
    typer.echo(
        f"{copies} of {len(done.rows)} samples are copies; {verdict.expected:.1f} are to be "
        f"expected by chance (probability of {copies} or more: {verdict.chance:.2g})"
    )
    for path in done.paths:
        say(f"wrote {path}")
    if copies:
        raise typer.Exit(EXIT_FLAGGED)
