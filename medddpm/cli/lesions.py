"""`medddpm lesions`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from medddpm.cli import groups
from medddpm.cli.console import each, progress, say
from medddpm.cli.options import (
    CleanScans,
    Coils,
    Crop,
    Device,
    Fractions,
    Include,
    Limit,
    NoiseKind,
    Seed,
    SigmaSource,
    Tables,
    Weights,
    given,
    parse_crop,
    parse_device,
)
from medddpm.cli.run import reports_errors


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("lesions", rich_help_panel=groups.MEASURE)(lesions)


@reports_errors
def lesions(
    data: CleanScans,
    out: Tables,
    sigma: Fractions = None,
    method: Annotated[
        list[str] | None, typer.Option(help="As for `medddpm benchmark`. Repeatable.")
    ] = None,
    real: Annotated[
        bool, typer.Option("--real", help="Look at bright lesions of the scans; plant none.")
    ] = False,
    diameter: Annotated[
        list[float] | None, typer.Option(help="Of the lesions, in mm; repeatable.")
    ] = None,
    contrast: Fractions = None,
    count: Annotated[int, typer.Option(min=2, help="At most so many lesions of each size.")] = 12,
    draws: Annotated[int, typer.Option(min=1, help="New noise and new places so often.")] = 1,
    noise: Annotated[NoiseKind, typer.Option(help="Law of the noise.")] = "rician",
    coils: Coils = 1,
    sigma_source: SigmaSource = "blind",
    crop: Crop = None,
    include: Include = "*",
    limit: Limit = None,
    weights: Weights = "default",
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """See what denoisers leave of lesions, planted in clean scans or their own."""
    with progress("lesions") as step:
        from medddpm.benchmark.degradation import NoiseModel
        from medddpm.benchmark.options import BenchmarkOptions
        from medddpm.data.scan_list import ScanList
        from medddpm.lesions.run import lesion_test
        from medddpm.lesions.trial import LesionOptions

        run = BenchmarkOptions(
            sigmas=tuple(sigma or (0.03, 0.05, 0.09, 0.15)),
            noises=("white",),
            noise=NoiseModel(noise, coils, seed=seed),
            sigma_source=sigma_source,
            crop=parse_crop(crop),
            **given(methods=method),
        )
        sizes = given(diameters=diameter, contrasts=contrast, count=count, draws=draws)
        done = lesion_test(
            ScanList(data, include, limit),
            out,
            LesionOptions("real" if real else "synthetic", run, **sizes),
            weights=weights,
            device=parse_device(device),
            on_cell=each(step, "lesions", _say_cell),
        )
    (_say_real if real else _say_summary)(done.summary)
    typer.echo(f"shares of the clean scan's; tables are in {out}")


def _say_cell(cell: dict[str, Any]) -> None:
    say(
        f"{cell['case']} draw {cell['draw']} sigma {cell['sigma']:g} {cell['method']}: "
        f"{len(cell['lesions'])} lesions, {cell['psnr']:.2f} dB, {cell['seconds']:.1f} s"
    )


def _say_summary(lines: list[dict[str, Any]]) -> None:
    from medddpm.lesions.summary import method_name

    names = [method_name(line["method"], line["sigma_source"]) for line in lines]
    wide = max(len(name) for name in names)
    typer.echo(
        f"{'sigma':>6} {'mm':>4} {'contr.':>6} {'method':<{wide}} {'contrast':>8} {'volume':>6} "
        f"{'d':>6}'  95 % interval    AUC"
    )
    for name, line in zip(names, lines, strict=True):
        low, high = line["dprime_hotelling_low"], line["dprime_hotelling_high"]
        typer.echo(
            f"{line['sigma']:>6g} {line['diameter']:>4g} {line['contrast']:>6g} {name:<{wide}} "
            f"{line['contrast_kept']:>8.2f} {line['volume_kept']:>6.2f} "
            f"{line['dprime_hotelling']:>6.2f}   {low:>5.2f} to {high:<5.2f}  "
            f"{line['auc_hotelling']:.3f}"
        )


def _say_real(lines: list[dict[str, Any]]) -> None:
    from medddpm.lesions.summary import method_name

    names = [method_name(line["method"], line["sigma_source"]) for line in lines]
    wide = max(len(name) for name in names)
    typer.echo(f"{'sigma':>6} {'method':<{wide}} lesions contrast  95 % interval  volume  CNR")
    for name, line in zip(names, lines, strict=True):
        low, high = line["contrast_restored_low"], line["contrast_restored_high"]
        typer.echo(
            f"{line['sigma']:>6g} {name:<{wide}} {line['lesions']:>7} "
            f"{line['contrast_restored']:>8.2f}  {low:.2f} to {high:.2f}   "
            f"{line['volume_restored']:>6.2f} {line['cnr_restored']:>5.1f}"
        )
