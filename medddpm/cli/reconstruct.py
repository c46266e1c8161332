"""`medddpm reconstruct`, `undersample` and `simulate-raw`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.options import (
    Device,
    Mode,
    Overrides,
    Overwrite,
    Seed,
    Weights,
    parse_device,
    parse_memory,
)
from medddpm.cli.run import reports_errors

RawPath = Annotated[
    Path,
    typer.Argument(
        metavar="RAW", help="ISMRMRD or fastMRI HDF5 (.h5), BART .cfl, or Siemens twix (.dat)."
    ),
]
RawOut = Annotated[Path, typer.Argument(metavar="OUT", help="An ISMRMRD file (.h5).")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("reconstruct", rich_help_panel=groups.RESTORE)(reconstruct)
    app.command("undersample", rich_help_panel=groups.MEASURE)(undersample)
    app.command("simulate-raw", rich_help_panel=groups.MEASURE)(simulate_raw)


@reports_errors
def reconstruct(
    raw: RawPath,
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="A .nii.gz file or a folder.")],
    format: Annotated[
        Literal["nifti", "dicom"],
        typer.Option(help="dicom: a derived series of the patient that the raw data name."),
    ] = "nifti",
    method: Annotated[
        Literal["ours", "cg-sense", "tv", "l1-wavelet", "zero-filled"] | None,
        typer.Option(help="ours: plug-and-play with the shipped restorer."),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(help="mean: least error. sample: one draw. ensemble: with maps. For ours."),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=2, help="Draws of an ensemble.")] = None,
    held_out: Annotated[
        float | None,
        typer.Option(min=0, max=0.5, help="Share of the measured lines to keep out and predict."),
    ] = None,
    noise_scan: Annotated[
        Path | None, typer.Option(help="Raw data without signal, that tells the noise.")
    ] = None,
    phase: Annotated[bool, typer.Option("--phase", help="Write the phase too.")] = False,
    g_factor: Annotated[
        int,
        typer.Option(min=0, help="Write a g-factor map too, from so many replicas; 0 for none."),
    ] = 0,
    report: Annotated[
        bool, typer.Option("--report", help="Write an HTML page beside the image too.")
    ] = False,
    device: Device = "auto",
    memory: Annotated[
        str | None, typer.Option(help="Most memory of the networks' tiles, such as 8GB.")
    ] = None,
    weights: Weights = "default",
    overwrite: Overwrite = False,
    overrides: Overrides = None,
) -> None:
    """Reconstruct raw k-space: an image in place, in units of its noise, with a sidecar beside it.

    Coil sensitivities come from the calibration lines (ESPIRiT), the noise from a noise scan, that
    of the file or one that is given, or else from the ends of k-space. Settings are those of
    --set reconstruct.FIELD=VALUE, such as reconstruct.plug.steps=8.
    """
    given = {"method": method, "mode": mode, "samples": samples, "held_out": held_out}
    flags = [f"reconstruct.{name}={value}" for name, value in given.items() if value is not None]
    size = parse_memory(memory)
    flags += [f"restore.memory_gb={size}"] if size is not None else []
    with progress("reconstruct") as step:
        from medddpm.config import load_config
        from medddpm.workflows.reconstructing import reconstruct as run

        config = load_config(None, [*(overrides or []), *flags])
        done = run(
            raw,
            output,
            options=config.reconstruct,
            restore=config.restore,
            weights=weights,
            device=parse_device(device),
            noise_scan=noise_scan,
            phase=phase,
            replicas=g_factor,
            report=report,
            format=format,
            dicom=config.dicom,
            overwrite=overwrite,
            on_progress=step,
        )
    for path in done.paths:
        typer.echo(f"{path}")
    say(done.summary)
    for notice in done.notices:
        say(f"note: {notice}")
    if done.check:
        say(done.check)
    if done.maps:
        say(done.interval)


@reports_errors
def undersample(
    raw: RawPath,
    output: RawOut,
    mask: Annotated[
        Literal["vd2d", "vd1d", "uniform", "poisson"],
        typer.Option(
            help="vd2d, vd1d: random, denser in the middle. uniform: every R-th line, or spoke, or "
            "spiral. poisson: a disc, whose lines keep their distance."
        ),
    ] = "vd2d",
    acceleration: Annotated[float, typer.Option("--R", min=1, help="Acceleration.")] = 4.0,
    acs: Annotated[int, typer.Option(min=0, help="Lines of calibration in the middle.")] = 24,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Leave lines of raw data out, as an accelerated scan would have, and write ISMRMRD."""
    with progress("undersample"):
        from medddpm.workflows.simulating_raw import undersample as run

        done = run(raw, output, mask, acceleration, acs=acs, seed=seed, overwrite=overwrite)
    typer.echo(f"{output}")
    say(done.words)


@reports_errors
def simulate_raw(
    clean: Annotated[Path, typer.Argument(metavar="CLEAN", help="A scan without much noise.")],
    output: RawOut,
    sigma: Annotated[float, typer.Option(help="Fraction of the intensity scale, such as 0.02.")],
    coils: Annotated[int, typer.Option(min=1, help="Of the receiver.")] = 8,
    trajectory: Annotated[
        Literal["radial", "spiral"] | None,
        typer.Option(help="Slices measured along spokes or spirals; lines of a grid without it."),
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Make raw data of a clean scan: coils, phase and noise, with a noise scan, as ISMRMRD."""
    with progress("simulate-raw"):
        from medddpm.workflows.simulating_raw import simulate_raw as run

        done = run(
            clean,
            output,
            sigma,
            coils=coils,
            seed=seed,
            trajectory=trajectory,
            overwrite=overwrite,
        )
    typer.echo(f"{output}")
    say(done.words)
