"""`medddpm repeats`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medddpm.cli import groups
from medddpm.cli.console import each, progress, say
from medddpm.cli.options import (
    Coils,
    Crop,
    Device,
    NoiseKind,
    Seed,
    SigmaSource,
    Tables,
    Weights,
    parse_crop,
    parse_device,
)
from medddpm.cli.run import LeftOut, reports_errors

if TYPE_CHECKING:
    from medddpm.benchmark.run_repeats import RepeatTest

_METHODS = ["identity", "shrinkage", "mean", "sample"]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("repeats", rich_help_panel=groups.MEASURE)(repeats)


@reports_errors
def repeats(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="The repeats of one scan: NIfTI files, a 4D file, DICOM folders; or one folder of "
            "NIfTI files, where those that differ in _run-N alone are repeats.",
        ),
    ],
    out: Tables,
    method: Annotated[
        list[str] | None,
        typer.Option(help="As for `medddpm benchmark`; @oracle is told sigma by the repeats."),
    ] = None,
    noise: Annotated[NoiseKind, typer.Option(help="Law of the noise.")] = "rician",
    coils: Coils = 1,
    sigma_source: SigmaSource = "blind",
    crop: Crop = None,
    include: Annotated[str, typer.Option(help="Pattern of scan names, in a folder.")] = "*",
    limit: Annotated[int, typer.Option(min=2, help="At most so many repeats of a scan.")] = 8,
    weights: Weights = "default",
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Measure restorations on repeats of a scan: their error, without any clean scan.

    Each repeat is restored alone and compared with the others, whose noise it has not seen; what
    noise the repeats themselves have is known from their differences, and is taken off.
    """
    left_out = LeftOut()
    with progress("repeats") as step:
        from medddpm.benchmark.degradation import NoiseModel
        from medddpm.benchmark.options import BenchmarkOptions
        from medddpm.benchmark.rows import prepare_run
        from medddpm.benchmark.run_repeats import repeat_test

        options = BenchmarkOptions(
            methods=tuple(method or _METHODS),
            noises=("white",),
            noise=NoiseModel(noise, coils, seed=seed),
            sigma_source=sigma_source,
            crop=parse_crop(crop),
        )
        done = repeat_test(
            runs,
            out,
            prepare_run(options, weights=weights, device=parse_device(device)),
            include=include,
            limit=limit,
            on_row=each(step, "repeats", say_repeats_row),
            on_error=left_out,
        )
    say_repeats(done)
    typer.echo(f"the page is {out / 'index.html'}")
    left_out.exit_if_any(len(done.scans))


def say_repeats_row(row: dict[str, Any]) -> None:
    """One line of news, for one row."""
    from medddpm.benchmark.figures import method_label
    from medddpm.benchmark.repeats_page import cell

    gain, seconds = cell(row, "gain"), row["seconds"]
    say(f"{row['case']} {method_label(row)}: gain {gain} dB, {seconds:.1f} s a repeat")


def say_repeats(done: RepeatTest) -> None:
    """The tables, on standard output."""
    from medddpm.benchmark.figures import method_label
    from medddpm.benchmark.repeats_page import cell, scan_lines

    wide = max(len(method_label(row)) for row in done.rows)
    for scan in done.scans:
        mine = [row for row in done.rows if row["case"] == scan["case"]]
        typer.echo(f"{scan['case']}:")
        for words in scan_lines(scan, mine):
            typer.echo(f"  {words}")
        typer.echo(f"  {'method':<{wide}} {'removed':>7}  {'RMSE':<26} gain over doing nothing, dB")
        for row in mine:
            share = f"{round(100 * row['removed'])}%"
            typer.echo(
                f"  {method_label(row):<{wide}} {share:>7}  {cell(row, 'rmse'):<26} "
                f"{cell(row, 'gain')}"
            )
    for line in done.summary:
        typer.echo(
            f"mean over {line['scans']} scans, {method_label(line)}: {line['gain']:+.2f} dB "
            f"({line['gain_low']:+.2f} to {line['gain_high']:+.2f})"
        )
