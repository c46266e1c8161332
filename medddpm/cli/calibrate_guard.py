"""`medddpm calibrate-guard`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.options import Device, Mode, Overwrite, Weights, parse_crop, parse_device
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
    sigma: Annotated[
        list[float] | None, typer.Option(help="Fraction of the intensity scale; repeatable.")
    ] = None,
    mode: Mode = "mean",
    crop: Annotated[
        str | None, typer.Option(metavar="X,Y,Z", help="Box around the foreground's middle.")
    ] = None,
    include: Annotated[str, typer.Option(help="Pattern of scan names.")] = "*",
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
        from medddpm.calibration.run_guard import calibrate_guard as run
        from medddpm.restoration.options import RestoreOptions

        done = run(
            data,
            out,
            sigmas=tuple(sigma or (0.03, 0.05, 0.09, 0.15)),
            options=RestoreOptions(mode=mode),
            crop=parse_crop(crop),
            weights=weights,
            device=parse_device(device),
            include=include,
            faults_on=tuple(faults_on or ()),
            foreign=tuple(foreign or ()),
            overwrite=overwrite,
            on_scan=lambda name, level, fault: say(
                f"{name} at sigma {level:g} of the intensity scale: {fault}"
            ),
            on_progress=partial(step, "calibrate-guard"),
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
