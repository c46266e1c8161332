"""`medddpm cohort`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medddpm.cli import groups
from medddpm.cli.console import Report, progress, say
from medddpm.cli.options import (
    Device,
    Mode,
    OutputFormat,
    Overrides,
    Trust,
    Weights,
    parse_device,
    parse_memory,
)
from medddpm.cli.run import EXIT_FLAGGED, EXIT_INTERRUPTED, reports_errors
from medddpm.signals import stop_requests

if TYPE_CHECKING:
    from medddpm.cohort.records import Outcome
    from medddpm.cohort.table import Counts

EXIT_FAILED = 7
"""Some scans failed; the others are done."""


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("cohort", rich_help_panel=groups.RESTORE)(cohort)


@reports_errors
def cohort(
    source: Annotated[
        Path,
        typer.Argument(help="NIfTI folder, BIDS data set, DICOM tree or CSV with a column `file`."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the restored scans and the tables.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes or jobs; what the machine holds if local.")
    ] = None,
    cluster: Annotated[
        str, typer.Option(help="local, slurm, pbs, sge, or the address of a dask scheduler.")
    ] = "local",
    mode: Annotated[Mode | None, typer.Option(help="As for restore.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in OUT; refuse other settings.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only predict time and memory, by a measurement.")
    ] = False,
    memory: Annotated[str | None, typer.Option(help="Of all local workers, such as 64GB.")] = None,
    format: Annotated[OutputFormat, typer.Option(help="Of the outputs.")] = "nifti",
    trust: Trust = None,
    report: Annotated[
        bool, typer.Option("--report", help="Write an HTML report beside each scan too.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Restore anew what OUT has of other settings.")
    ] = False,
    device: Device = "auto",
    weights: Weights = "default",
    overrides: Overrides = None,
) -> None:
    """Restore all scans of a cohort that are not done yet, on many workers.

    A scan is done if its bytes, the weights and the settings are the same; so the same command
    goes on where it was ended, and several may run at once. `cohort.csv` says what failed and why,
    `cohort.html` shows the numbers of all, outliers first.

    Exit codes: 0 all restored; 6 all restored, some flagged; 7 some failed; 5 disk; 130 ended
    early by SIGTERM or Ctrl-C.
    """
    flags = [f"restore.mode={mode}"] if mode else []

    from medddpm.cohort.calibration import predict
    from medddpm.cohort.pool import plan_pool
    from medddpm.cohort.run import CohortRun
    from medddpm.cohort.run import cohort as restore_all
    from medddpm.cohort.table import summary
    from medddpm.config import load_config

    config = load_config(None, [*(overrides or []), *flags])
    run = CohortRun(
        source,
        out,
        plan_pool(cluster, workers, parse_memory(memory)),
        config.restore,
        weights=weights,
        device=parse_device(device),
        format=format,
        trust=trust,
        report=report,
    )
    if dry_run:
        with progress("dry run"):
            predicted = predict(run)
        typer.echo(predicted.text)
        return
    with stop_requests() as stop, progress("cohort") as bar:
        result = restore_all(
            run,
            resume=resume,
            overwrite=overwrite,
            stop=stop,
            on_news=say,
            on_outcome=_Reporter(bar),
        )
    typer.echo(summary(result.counts, result.outcomes))
    typer.echo(f"{result.tables[0]}")
    typer.echo(f"{result.page}")
    code = exit_code(result.counts, stopped=stop.is_set())
    if code:
        raise typer.Exit(code)


def exit_code(counts: Counts, *, stopped: bool) -> int:
    """What the command returns."""
    if stopped and counts.unreached:
        say("medddpm: ended early; no half-written output is left; --resume goes on")
        return EXIT_INTERRUPTED
    if counts.failed or counts.unreached:
        return EXIT_FAILED
    return EXIT_FLAGGED if counts.flagged else 0


class _Reporter:
    """Progress, and a line for each failure."""

    def __init__(self, bar: Report) -> None:
        self.bar = bar

    def __call__(self, outcome: Outcome, done: int, total: int) -> None:
        if outcome.state == "failed":
            say(f"failed: {outcome.scan}: {outcome.reason}")
        self.bar("cohort", done, total)
