"""`medddpm sweep`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.run import EXIT_FLAGGED, reports_errors
from medddpm.cli.training import log_line
from medddpm.errors import ConfigError

_FIGURES = {
    "psnr": ("PSNR, dB", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "train_seconds": ("train s", ".1f"),
    "restore_seconds": ("restore s", ".3f"),
}


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("sweep", rich_help_panel=groups.TRAIN)(sweep)


@reports_errors
def sweep(
    config: Annotated[str, typer.Argument(help="A shipped name or a YAML file.")],
    data: Annotated[Path, typer.Option(help="Folder of NIfTI scans, searched through.")],
    out: Annotated[Path, typer.Option(help="Folder for the cells, the table and the plot.")],
    grid: Annotated[
        list[str], typer.Option("--set", metavar="A.B=C,D", help="Values to try; repeatable.")
    ],
    stage: Annotated[
        str, typer.Option(help="What a cell trains; several with commas: diffusion,fidelity.")
    ] = "diffusion",
    source: Annotated[
        str | None, typer.Option("--from", help="Run folder or weights with the earlier stages.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="So many dask processes here.")] = 0,
    scheduler: Annotated[str | None, typer.Option(help="Address of a dask scheduler.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is not done.")] = False,
) -> None:
    """Train every combination of settings and compare them on held-out patches.

    Exit codes: 0 all cells are done; 6 the table is written, but a cell failed or is still held
    by another process; 2 usage or config; 3 unreadable weights; 5 output.
    """
    if workers and scheduler:
        raise ConfigError("--workers starts a scheduler of its own; give it or --scheduler")
    with progress("sweep") as step:
        from medddpm.sweep.run import Cluster
        from medddpm.sweep.run import sweep as run

        done = run(
            config,
            grid,
            data=data,
            out=out,
            stages=stage.split(","),
            weights=source,
            cluster=Cluster(workers, scheduler),
            resume=resume,
            on_log=lambda cell, row: say(f"{cell}: {log_line(row)}"),
            on_row=lambda row: say(f"{row['cell']}: {row['state']}{_reason(row)}"),
            on_progress=partial(step, "cells"),
        )
    typer.echo(_table(done.rows))
    for path in done.paths:
        say(f"wrote {path}")
    if any(row["state"] != "done" for row in done.rows):
        raise typer.Exit(EXIT_FLAGGED)


def _reason(row: dict[str, Any]) -> str:
    return f": {row['error']}" if row.get("error") else ""


def _table(rows: list[dict[str, Any]]) -> str:
    """One line a cell, in the order of the grid."""
    wide = max(len(row["cell"]) for row in rows)
    lines = [f"{'cell':<{wide}}" + "".join(f"{label:>11}" for label, _ in _FIGURES.values())]
    for row in rows:
        cells = [f"{row[key]:>11{form}}" for key, (_, form) in _FIGURES.items() if key in row]
        lines.append(f"{row['cell']:<{wide}}" + ("".join(cells) or f"  {row['state']}"))
    return "\n".join(lines)
