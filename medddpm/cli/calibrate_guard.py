"""`medddpm calibrate-guard`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medddpm.cli import groups
from medddpm.cli.console import each, progress, say
from medddpm.cli.options import (
    Crop,
    Device,
    Fractions,
    Include,
    Mode,
    Overwrite,
    Weights,
    given,
    parse_crop,
    parse_device,
)
from medddpm.cli.run import reports_errors


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("calibrate-guard", rich_help_panel=groups.TRAIN)(calibrate_guard)


@reports_errors
def calibrate_guard(
    data: Annotated[
        Path, typer.Argument(help="Clean NIfTI; or a CSV with file, subject and kind.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the weights and what was measured.")],
    sigma: Fractions = None,
    mode: Mode = "mean",
    crop: Crop = None,
    include: Include = "*",
    faults_on: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Scans to restore with faults, too; repeatable."),
    ] = None,
    foreign: Annotated[
        list[Path] | None, typer.Option(help="Scans that are foreign: a CT, a knee; repeatable.")
    ] = None,
    weights: Weights = "default",
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Let the guard learn what good restorations look like, on your own clean scans."""
    with progress("calibrate-guard") as step:
        from medddpm.calibration.run_guard import GuardOptions, Tried
        from medddpm.calibration.run_guard import calibrate_guard as run
        from medddpm.data.scan_list import ScanList
        from medddpm.restoration.options import RestoreOptions

        def say_tried(tried: Tried) -> None:
            name, level, fault = tried
            say(f"{name} at sigma {level:g} of the intensity scale: {fault}")

        done = run(
            ScanList(data, include),
            out,
            GuardOptions(
                sigmas=tuple(sigma or (0.03, 0.05, 0.09, 0.15)),
                restore=RestoreOptions(mode=mode),
                crop=parse_crop(crop),
                **given(faults_on=faults_on, foreign=foreign),
            ),
            weights=weights,
            device=parse_device(device),
            overwrite=overwrite,
            on_scan=each(step, "calibrate-guard", say_tried),
        )
    typer.echo(
        f"Flagged of good restorations of other subjects: {done.fit.any_flag:.1%}\n\n"
        f"{'fault':<24} {'sigma':>6} {'trials':>6} {'flagged':>8} "
        f"{'best check alone, at 5 % false alarms'}"
    )
    for row in done.rows:
        typer.echo(
            f"{row['fault']:<24} {row['sigma']:>6g} {row['trials']:>6} {row['flagged']:>8.0%} "
            f"{row['best_rate']:>4.0%} {row['best']}"
        )
    say(f"calibrated weights: {done.weights}")
