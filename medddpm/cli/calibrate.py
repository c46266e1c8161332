"""`medddpm calibrate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from medddpm.cli import groups
from medddpm.cli.console import each, progress, say
from medddpm.cli.options import (
    Crop,
    Device,
    Fractions,
    Include,
    Overwrite,
    Weights,
    given,
    parse_crop,
    parse_device,
)
from medddpm.cli.run import reports_errors


class CalibrationNoise(StrEnum):
    """Kinds of noise that intervals are fitted to."""

    WHITE = "white"
    ACQUIRED = "acquired"


_TITLES = {
    "calibration": "Each subject under intervals that were fitted to the others",
    "test": "Test scans under the intervals themselves",
}


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("calibrate", rich_help_panel=groups.TRAIN)(calibrate)


@reports_errors
def calibrate(
    data: Annotated[Path, typer.Argument(help="Clean NIfTI that training never saw; or a CSV.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights and what was measured.")],
    sigma: Fractions = None,
    noise: Annotated[
        list[CalibrationNoise] | None,
        typer.Option(help="Kind of noise; repeatable, both if not given."),
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Samples of the ensemble.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each sample.")] = 4,
    crop: Crop = None,
    include: Include = "*",
    test: Annotated[
        Path | None,
        typer.Option(help="Clean scans of other subjects that the table is only tested on."),
    ] = None,
    weights: Weights = "default",
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Make the 90 % intervals of an ensemble hold 90 %, on your own clean scans."""
    with progress("calibrate") as step:
        from medddpm.benchmark.figures import NOISE_WORDS
        from medddpm.calibration.intervals import Origin
        from medddpm.calibration.run import CalibrationOptions
        from medddpm.calibration.run import calibrate as run
        from medddpm.data.scan_list import ScanList
        from medddpm.restoration.options import RestoreOptions

        def say_scan(done: Origin) -> None:
            words = NOISE_WORDS[done.noise]
            say(f"{done.scan}: {words}, sigma {done.sigma:g} of the intensity scale")

        done = run(
            ScanList(data, include),
            out,
            CalibrationOptions(
                restore=RestoreOptions(mode="ensemble", samples=samples, steps=steps),
                crop=parse_crop(crop),
                test=None if test is None else ScanList(test),
                **given(sigmas=sigma, noises=noise and [kind.value for kind in noise]),
            ),
            weights=weights,
            device=parse_device(device),
            overwrite=overwrite,
            on_scan=each(step, "calibrate", say_scan),
        )
    for part, title in _TITLES.items():
        rows = [row for row in done.rows if row["part"] == part]
        if rows:
            typer.echo(f"{title}:\n{_table(rows)}")
    ranks = done.content["rank_over_all_levels"]
    typer.echo(
        f"Rank correlation of std and error over all noise levels: voxels {ranks['voxels']:.2f}, "
        f"blocks {ranks['blocks']:.2f}"
    )
    say(f"calibrated weights: {done.weights}")


def _table(rows: list[dict[str, Any]]) -> str:
    wide = max(len(row["scan"]) for row in rows)
    lines = [
        f"{'noise':<8} {'sigma':>6} {'scan':<{wide}} {'in 90 %':>8} {'nominal':>8} "
        f"{'error/std':>9} {'rank':>5} {'rank of blocks':>14}"
    ]
    lines += [
        f"{row['noise']:<8} {row['sigma']:>6g} {row['scan']:<{wide}} {row['coverage']:>8.1%} "
        f"{row['coverage_nominal']:>8.1%} {row['error_over_std']:>9.2f} {row['rank']:>5.2f} "
        f"{row['rank_blocks']:>14.2f}"
        for row in rows
    ]
    return "\n".join(lines)
