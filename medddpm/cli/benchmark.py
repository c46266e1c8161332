"""`medddpm benchmark`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.options import Coils, Device, NoiseKind, Seed, Weights, parse_crop, parse_device
from medddpm.cli.run import reports_errors

_METHODS = ["identity", "shrinkage", "mean"]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("benchmark", rich_help_panel=groups.MEASURE)(benchmark)


@reports_errors
def benchmark(
    data: Annotated[Path, typer.Argument(help="Clean NIfTI: a file, a folder or a CSV.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables; a rerun goes on in it.")],
    sigma: Annotated[
        list[float] | None, typer.Option(help="Fraction of the intensity scale; repeatable.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="mean, sample or ensemble, with settings if wanted (mean@fidelity=0.5,shifts=4 or "
            "mean@weights=FILE); "
            "vae, identity, shrinkage, bm4d, nlm, nlm5, ants, tv; each with @oracle or @blind if "
            "its sigma is to come from elsewhere than that of the others. Repeatable."
        ),
    ] = None,
    noise: Annotated[NoiseKind, typer.Option(help="Law of the noise.")] = "rician",
    coils: Coils = 1,
    gfactor: Annotated[
        bool, typer.Option("--gfactor", help="Sigma times a smooth simulated map.")
    ] = False,
    gmap: Annotated[
        Path | None, typer.Option(help="A scan on the grid of all that multiplies sigma.")
    ] = None,
    correlated: Annotated[
        float, typer.Option(min=0, help="Smooth the complex noise: FWHM in voxels.")
    ] = 0.0,
    sigma_source: Annotated[
        Literal["blind", "oracle", "both"],
        typer.Option(help="Methods estimate sigma, or are told it, or run with each."),
    ] = "blind",
    reference: Annotated[
        str | None, typer.Option(help="Gains are over it: bm4d, identity or the first method.")
    ] = None,
    crop: Annotated[
        str | None, typer.Option(metavar="X,Y,Z", help="Box around the foreground's middle.")
    ] = None,
    include: Annotated[str, typer.Option(help="Pattern of scan names.")] = "*",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many scans.")] = None,
    weights: Weights = "default",
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Compare denoisers, ours and others, on clean scans with simulated noise."""
    with progress("benchmark") as step:
        from medddpm.evaluation.benchmark import BenchmarkOptions
        from medddpm.evaluation.benchmark_figures import method_label
        from medddpm.evaluation.degradation import NoiseModel
        from medddpm.workflows.benchmarking import benchmark as run

        options = BenchmarkOptions(
            sigmas=tuple(sigma or (0.03, 0.05, 0.09)),
            methods=tuple(method or _METHODS),
            noise=NoiseModel(noise, coils, gfactor, correlated, seed),
            sigma_source=sigma_source,
            reference=reference,
            crop=parse_crop(crop),
        )
        done = run(
            data,
            out,
            options=options,
            gmap=gmap,
            weights=weights,
            device=parse_device(device),
            include=include,
            limit=limit,
            on_row=_say_row,
            on_progress=partial(step, "benchmark"),
        )
    wide = max(len(method_label(line)) for line in done.summary)
    typer.echo(
        f"{'sigma':>6} {'method':<{wide}} {'PSNR':>6} {'SSIM':>7} {'gain':>6}  95 % interval"
    )
    for line in done.summary:
        typer.echo(
            f"{line['sigma']:>6g} {method_label(line):<{wide}} {line['psnr']:>6.2f} "
            f"{line['ssim']:>7.4f} {line['gain']:>+6.2f}  "
            f"{line['gain_low']:+.2f} to {line['gain_high']:+.2f} dB"
        )
    typer.echo(f"gains are over {done.summary[0]['gain_over']}; the page is {out / 'index.html'}")


def _say_row(row: dict[str, Any]) -> None:
    source = "" if row["sigma_source"] == "none" else f" ({row['sigma_source']})"
    say(
        f"{row['case']} sigma {row['sigma']:g} {row['method']}{source}: {row['psnr']:.2f} dB, "
        f"SSIM {row['ssim']:.4f}, {row['seconds']:.1f} s"
    )
