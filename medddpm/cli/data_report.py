"""`medddpm data-report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.run import EXIT_FLAGGED, reports_errors


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("data-report", rich_help_panel=groups.DATA)(data_report)


@reports_errors
def data_report(
    prepared: Annotated[Path, typer.Argument(help="Folder that `medddpm prepare` wrote.")],
    out: Annotated[Path, typer.Option(help="The page, an .html file.")],
    results: Annotated[
        Path | None,
        typer.Option(help="Folder of `medddpm benchmark`: adds restoration quality by subgroup."),
    ] = None,
    metric: Annotated[
        Literal["psnr", "ssim"], typer.Option(help="What restoration quality is.")
    ] = "psnr",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page.")] = False,
) -> None:
    """Write a page on who is in a data set, split by split, and which groups are restored worse.

    The exit code is 6 if a subject or an image is in two splits, a scan is used without consent,
    or a group is restored worse.
    """
    with progress("data-report"):
        from medddpm.data_report.run import data_report as run

        done = run(prepared, out, results=results, metric=metric, overwrite=overwrite)
    for line in done.report.remarks:
        typer.echo(line)
    for line in done.flags:
        say(f"flagged: {line}")
    counts = done.report
    typer.echo(
        f"{counts.subjects['all']} subjects, {counts.scans['all']} scans; the page is {done.path}"
    )
    if done.flags:
        raise typer.Exit(EXIT_FLAGGED)
