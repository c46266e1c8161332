"""`medddpm benchmark-raw`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.options import Device, Fractions, Overrides, Seed, Weights, given, parse_device
from medddpm.cli.run import reports_errors


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("benchmark-raw", rich_help_panel=groups.MEASURE)(benchmark_raw)


@reports_errors
def benchmark_raw(
    data: Annotated[Path, typer.Argument(help="Clean NIfTI: a file or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the table; a rerun goes on in it.")],
    mask: Annotated[
        list[str] | None, typer.Option(help="vd2d, vd1d, uniform or poisson; repeatable.")
    ] = None,
    acceleration: Annotated[
        list[float] | None, typer.Option("--R", help="Acceleration; repeatable.")
    ] = None,
    sigma: Fractions = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="zero-filled, cg-sense, tv, l1-wavelet, cg-sense-restored or ours; repeatable."
        ),
    ] = None,
    coils: Annotated[int, typer.Option(min=1, help="Of the simulated receiver.")] = 8,
    acs: Annotated[int, typer.Option(min=0, help="Lines of calibration.")] = 24,
    planes: Annotated[
        int, typer.Option(min=1, help="Planes across the readout that are reconstructed.")
    ] = 32,
    spacing: Annotated[
        float | None, typer.Option(help="Crop k-space to voxels of so many mm first.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Draws of an ensemble of ours, for its coverage; 0 for none.")
    ] = 0,
    weights: Weights = "default",
    device: Device = "auto",
    seed: Seed = 0,
    overrides: Overrides = None,
) -> None:
    """Compare reconstructions on simulated raw data of clean scans, undersampled and noisy."""
    with progress("benchmark-raw"):
        from medddpm.benchmark.run_raw import RawBenchmark, table_text
        from medddpm.benchmark.run_raw import benchmark_raw as run
        from medddpm.config import load_config

        config = load_config(None, overrides or [])
        options = RawBenchmark(
            coils=coils,
            acs=acs,
            planes=planes,
            seed=seed,
            plug=config.reconstruct.plug,
            samples=samples,
            spacing=spacing,
            **given(masks=mask, accelerations=acceleration, sigmas=sigma, methods=method),
        )
        rows = run(
            data,
            out,
            options=options,
            restore=config.restore,
            weights=weights,
            device=parse_device(device),
            on_row=_say_row,
        )
    typer.echo(table_text(rows))


def _say_row(row: dict[str, Any]) -> None:
    covered = ""
    if "coverage" in row:
        covered = f", 90 % interval holds {100 * row['coverage']:.1f} %"
    say(
        f"{row['case']} {row['mask']} R {row['R']} sigma {row['sigma']} {row['method']} x "
        f"{row['weight']}: {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}, {row['seconds']:.1f} s"
        f"{covered}"
    )
