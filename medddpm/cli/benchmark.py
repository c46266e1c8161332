"""`medddpm benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medddpm.cli import groups
from medddpm.cli.console import each, progress, say
from medddpm.cli.options import (
    AcquisitionFile,
    CleanScans,
    Coils,
    Crop,
    Device,
    Fractions,
    Include,
    Limit,
    Seed,
    SimulatedNoise,
    Tables,
    Weights,
    given,
    parse_crop,
    parse_device,
)
from medddpm.cli.repeats import say_repeats, say_repeats_row
from medddpm.cli.run import LeftOut, reports_errors

if TYPE_CHECKING:
    from medddpm.benchmark.row import Row
from medddpm.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("benchmark", rich_help_panel=groups.MEASURE)(benchmark)


@reports_errors
def benchmark(
    data: CleanScans,
    out: Tables,
    sigma: Fractions = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="mean, sample or ensemble, with settings if wanted (mean@fidelity=0.5,shifts=4 or "
            "mean@weights=FILE); "
            "vae, identity, shrinkage, bm4d, nlm, nlm5, ants, tv; of 4D scans mean@frames=mppca, "
            "mppca, patch2self; each with @oracle or @blind if "
            "its sigma is to come from elsewhere than that of the others. Repeatable."
        ),
    ] = None,
    noise: Annotated[
        list[SimulatedNoise] | None,
        typer.Option(
            help="acquired: each scan by a random scanner. ellipse: 0.62, 0.62 and 0.9 of the "
            "matrix. white: Rician, on the finished scan, or of the law that is given. "
            "Repeatable; acquired if not given."
        ),
    ] = None,
    acquisition: AcquisitionFile = None,
    coils: Coils = 1,
    gfactor: Annotated[
        bool, typer.Option("--gfactor", help="White noise times a smooth simulated map.")
    ] = False,
    gmap: Annotated[
        Path | None,
        typer.Option(help="A scan on the grid of all that multiplies sigma of white noise."),
    ] = None,
    correlated: Annotated[
        float, typer.Option(min=0, help="Smooth white noise, before the magnitude: FWHM in voxels.")
    ] = 0.0,
    sigma_source: Annotated[
        Literal["blind", "oracle", "both"] | None,
        typer.Option(
            help="Methods estimate the noise, or are told it, or run with each. If not given, "
            "other methods than ours are told it where it is acquired, BM4D with its spectrum."
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Gains are over it: bm4d, identity or the first method.")
    ] = None,
    crop: Crop = None,
    include: Include = "*",
    limit: Limit = None,
    repeats: Annotated[
        Path | None,
        typer.Option(help="Repeats with noise of their own too, as for `medddpm repeats`."),
    ] = None,
    weights: Weights = "default",
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Compare denoisers, ours and others, on clean scans with simulated noise."""
    left_out = LeftOut()
    with progress("benchmark") as step:
        from medddpm.benchmark.figures import method_label
        from medddpm.benchmark.options import BenchmarkOptions
        from medddpm.benchmark.rows import prepare_run
        from medddpm.benchmark.run import benchmark as run
        from medddpm.data.scan_list import ScanList
        from medddpm.workflows.simulating import read_acquisition

        options = BenchmarkOptions(
            **_noises(noise or [SimulatedNoise.ACQUIRED], coils, gfactor, correlated, seed),
            acquisition=None if acquisition is None else read_acquisition(acquisition),
            sigma_source=sigma_source,
            reference=reference,
            crop=parse_crop(crop),
            **given(sigmas=sigma, methods=method),
        )
        done = run(
            ScanList(data, include, limit),
            out,
            prepare_run(options, gmap, weights, parse_device(device)),
            repeats=repeats,
            on_row=each(step, "benchmark", _say_row),
            on_repeats=lambda row, *_: say_repeats_row(row),
            on_error=left_out,
        )
    wide = max(len(method_label(line)) for line in done.summary)
    typer.echo(
        f"{'noise':<8} {'sigma':>6} {'method':<{wide}} {'PSNR':>6} {'SSIM':>7} {'gain':>6}  "
        "95 % interval"
    )
    for line in done.summary:
        typer.echo(
            f"{line['noise']:<8} {line['sigma']:>6g} {method_label(line):<{wide}} "
            f"{line['psnr']:>6.2f} {line['ssim']:>7.4f} {line['gain']:>+6.2f}  "
            f"{line['gain_low']:+.2f} to {line['gain_high']:+.2f} dB"
        )
    if done.repeats is not None:
        say_repeats(done.repeats)
    typer.echo(f"gains are over {done.summary[0]['gain_over']}; the page is {out / 'index.html'}")
    left_out.exit_if_any(len(done.rows))


def _noises(
    noises: list[SimulatedNoise], coils: int, gfactor: bool, correlated: float, seed: int
) -> dict[str, Any]:
    """The kinds of noise, and what white noise is.

    Raises:
        ConfigError: There are two laws of white noise.
    """
    from medddpm.benchmark.degradation import NoiseModel

    kinds = {kind for noise in noises if (kind := noise.white_kind) is not None}
    if len(kinds) > 1:
        raise ConfigError(f"--noise takes one law of white noise, got {', '.join(sorted(kinds))}")
    model = NoiseModel(next(iter(kinds), "rician"), coils, gfactor, correlated, seed)
    names = (noise.value if noise.white_kind is None else "white" for noise in noises)
    return {"noises": tuple(dict.fromkeys(names)), "noise": model}


def _say_row(row: Row) -> None:
    say(
        f"{row.case} {row.noise} sigma {row.sigma:g} {row.label}: "
        f"{row.psnr:.2f} dB, SSIM {row.ssim:.4f}, {row.seconds:.1f} s"
    )
