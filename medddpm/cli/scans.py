"""Commands on scans: restore, estimate-noise, evaluate, convert, info, quickstart."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.options import (
    Backend,
    Coils,
    Device,
    Force,
    InputPath,
    Mode,
    NoiseKind,
    NumberType,
    OutputFormat,
    Overrides,
    Overwrite,
    Reference,
    ReferenceWeights,
    Trust,
    Weights,
    parse_device,
    parse_memory,
    parse_sigma,
)
from medddpm.cli.run import EXIT_FLAGGED, LeftOut, reports_errors

if TYPE_CHECKING:
    from medddpm.workflows.restored_scan import RestoredScan


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("restore", cls=groups.GroupedOptions, rich_help_panel=groups.RESTORE)(restore)
    app.command("estimate-noise", rich_help_panel=groups.MEASURE)(estimate_noise)
    app.command("evaluate", rich_help_panel=groups.MEASURE)(evaluate)
    app.command("convert", rich_help_panel=groups.MEASURE)(convert)
    app.command("info", rich_help_panel=groups.MEASURE)(info)
    app.command("quickstart", rich_help_panel=groups.RESTORE)(quickstart)


@reports_errors
def restore(
    source: InputPath,
    output: Annotated[
        str,  # a Path would lose a slash at its end, which says that it is a folder
        typer.Argument(metavar="OUTPUT", help="A .nii.gz file, or a folder to write into."),
    ],
    mode: Annotated[
        Mode | None, typer.Option(help="mean: least error. sample: one draw. ensemble: with maps.")
    ] = None,
    sigma: Annotated[str | None, typer.Option(help="Noise level in scan units, or auto.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same bytes.")] = None,
    weights: Weights = "default",
    format: Annotated[OutputFormat, typer.Option(help="Of the output.")] = "nifti",
    overwrite: Overwrite = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write an HTML report beside each scan too.")
    ] = False,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Of an ensemble.", rich_help_panel=groups.METHOD)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Network evaluations a draw.", rich_help_panel=groups.METHOD),
    ] = None,
    fidelity: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="0 trusts the prior, 1 the measurement.",
            rich_help_panel=groups.METHOD,
        ),
    ] = None,
    noise: Annotated[
        NoiseKind | None, typer.Option(help="Its law.", rich_help_panel=groups.KNOWN_NOISE)
    ] = None,
    coils: Annotated[
        int | None,
        typer.Option(min=1, help="For --noise ncchi.", rich_help_panel=groups.KNOWN_NOISE),
    ] = None,
    noise_map: Annotated[
        Path | None,
        typer.Option(
            help="Sigma at each voxel, as estimate-noise --map writes it.",
            rich_help_panel=groups.KNOWN_NOISE,
        ),
    ] = None,
    noise_spectrum: Annotated[
        Path | None,
        typer.Option(
            help="JSON of estimate-noise, or a NIfTI of power: its colour.",
            rich_help_panel=groups.KNOWN_NOISE,
        ),
    ] = None,
    reference: Reference = None,
    reference_weights: ReferenceWeights = None,
    phase: Annotated[
        Path | None,
        typer.Option(
            help="NIfTI phase of a magnitude: both are restored, without Rician bias.",
            rich_help_panel=groups.COMPLEX,
        ),
    ] = None,
    imaginary: Annotated[
        Path | None,
        typer.Option(
            help="NIfTI imaginary part, where INPUT is the real part.",
            rich_help_panel=groups.COMPLEX,
        ),
    ] = None,
    force: Force = False,
    trust: Trust = None,
    dtype: Annotated[
        NumberType,
        typer.Option(
            help="Number type of the NIfTI scan; integers are rounded and clipped.",
            rich_help_panel=groups.FILES,
        ),
    ] = "float32",
    device: Device = "auto",
    backend: Annotated[
        Backend | None,
        typer.Option(help="What runs the networks of mode mean.", rich_help_panel=groups.MACHINE),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Most memory to use, such as 8GB; does not change bytes.",
            rich_help_panel=groups.MACHINE,
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Restore a noisy scan: the same scan, cleaner, in the same place, with a report beside it.

    Of several series in a folder, a bad one is named and left out, and the others are restored.

    Exit codes: 0 ok; 6 written, but a check raised a flag; 2 usage; 3 unreadable input;
    4 geometry; 5 output.
    """
    given: dict[str, object] = {
        "mode": mode,
        "samples": samples,
        "steps": steps,
        "fidelity": fidelity,
        "noise": noise,
        "coils": coils,
        "seed": seed,
        "backend": backend,
        "memory_gb": parse_memory(memory),
    }
    if sigma is not None:
        level = parse_sigma(sigma)
        given["sigma"] = "null" if level is None else level
    flags = [f"restore.{name}={value}" for name, value in given.items() if value is not None]

    left_out = LeftOut()
    with progress("restore") as step:
        from medddpm.config import load_config
        from medddpm.io.complex_files import ComplexFiles
        from medddpm.workflows.restoring import refuse_law
        from medddpm.workflows.restoring import restore as run

        config = load_config(None, [*(overrides or []), *flags])
        if noise is not None and ComplexFiles.of(source, phase, imaginary) is not None:
            refuse_law(noise)  # rician too, which the options cannot tell from their default
        done = run(
            source,
            output,
            options=config.restore,
            weights=weights,
            device=parse_device(device),
            format=format,
            dicom=config.dicom,
            overwrite=overwrite,
            force=force,
            trust=trust,
            report=report,
            dtype=dtype,
            phase=phase,
            imaginary=imaginary,
            noise_map=noise_map,
            noise_spectrum=noise_spectrum,
            reference=reference,
            reference_weights=reference_weights,
            on_progress=step,
            on_error=left_out,
            on_note=say,
        )
    flagged = _say_restored(done)
    left_out.exit_if_any(len(done))
    if flagged:
        raise typer.Exit(EXIT_FLAGGED)


def _say_restored(done: list[RestoredScan]) -> bool:
    """Say what was written, and what a check flagged; True if there is a flag."""
    for scan in done:
        typer.echo(f"{scan.image}")
        if scan.html is not None:
            typer.echo(f"{scan.html}")
        if scan.phase_words:
            say(scan.phase_words)
        say(scan.summary)
        if scan.rounding:
            say(scan.rounding)
        for text in scan.notices:
            say(f"notice: {_in_log(scan)}: {text}")
    flags = [f"{_in_log(scan)}: {text}" for scan in done for text in scan.flags]
    for text in flags:
        typer.echo(f"medddpm: flagged: {text}", err=True)
    return bool(flags)


def _in_log(scan: RestoredScan) -> str:
    """What a log calls the scan: the name of a DICOM folder has the description of its series."""
    given = scan.facts.input
    return given.case_id if given.format == "dicom" else f"{scan.image}"


@reports_errors
def estimate_noise(
    source: InputPath,
    noise: Annotated[NoiseKind, typer.Option(help="Law of the noise.")] = "rician",
    coils: Coils = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    map_path: Annotated[
        str | None, typer.Option("--map", help="Also write sigma at every voxel (one scan).")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Also write a PNG of k-space, its edges and sigma (one scan)."),
    ] = None,
    force: Force = False,
    trust: Trust = None,
    overwrite: Overwrite = False,
) -> None:
    """Estimate the noise of a scan: its level with an error bar, how it varies, its k-space."""
    left_out = LeftOut()
    with progress("estimate-noise"):
        from medddpm.io.acquired import read_acquired
        from medddpm.preprocess.noise_law import NoiseLaw
        from medddpm.preprocess.noise_words import noise_facts, noise_words
        from medddpm.workflows.measure import estimate_noise as run
        from medddpm.workflows.measure import (
            write_noise_map,
            write_noise_picture,
        )

        law = NoiseLaw(noise, coils)
        if map_path is not None:
            write_noise_map(source, map_path, law=law, trust=trust, overwrite=overwrite)
        found = run(source, law=law, force=force, trust=trust, on_error=left_out)
        if picture is not None and found:
            write_noise_picture(picture, found[0][0], found[0][1][0], overwrite=overwrite)
    rows = []
    for volume, frames in found:
        grid = volume.geometry.shape, volume.spacing
        header = read_acquired(volume)
        rows.append(
            {
                "case_id": volume.case_id,
                "frames": [noise_facts(frame, *grid) for frame in frames],
                "header": asdict(header),
            }
        )
        if as_json:
            continue
        if header.words:
            typer.echo(f"{volume.case_id}: the header says: {header.words}")
        for index, frame in enumerate(frames):
            for line in noise_words(frame, *grid):
                typer.echo(f"{volume.frame_name(index)}: {line}")
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    left_out.exit_if_any(len(found))


@reports_errors
def evaluate(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The clean scan.")],
    restored: Annotated[Path, typer.Argument(metavar="RESTORED", help="The scan to judge.")],
    noisy: Annotated[Path | None, typer.Option(help="The scan before restoration.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Foreground; found if not given.")] = None,
    trust: Trust = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare a scan with its clean reference: PSNR, SSIM, NRMSE, HFEN, in the mask and overall."""
    with progress("evaluate"):
        from medddpm.io.outputs import plain
        from medddpm.workflows.measure import evaluate as run
        from medddpm.workflows.tables import evaluation_table

        result = run(reference, restored, noisy=noisy, mask=mask, trust=trust)
    if as_json:
        content: dict[str, Any] = {"restored": result.restored, "data_range": result.data_range}
        if result.noisy is not None:
            content["noisy"] = result.noisy
        typer.echo(json.dumps(plain(content), indent=2))
        return
    typer.echo(evaluation_table(result))


@reports_errors
def convert(
    source: InputPath,
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="A .nii.gz file or a folder.")],
    format: Annotated[OutputFormat, typer.Option(help="Of the output.")] = "nifti",
    like: Annotated[
        Path | None, typer.Option(help="DICOM series whose patient and study to take.")
    ] = None,
    overwrite: Overwrite = False,
    force: Force = False,
    trust: Trust = None,
    overrides: Overrides = None,
) -> None:
    """Convert DICOM to NIfTI or NIfTI to DICOM with exactly the same geometry.

    Of several series in a folder, a bad one is named and left out, and the others are converted.
    """
    left_out = LeftOut()
    with progress("convert"):
        from medddpm.config import load_config
        from medddpm.workflows.converting import convert as run

        done = run(
            source,
            output,
            format=format,
            dicom=load_config(None, overrides).dicom if overrides else None,
            like=like,
            overwrite=overwrite,
            force=force,
            trust=trust,
            on_error=left_out,
        )
    for path in done:
        typer.echo(f"{path}")
    left_out.exit_if_any(len(done))


@reports_errors
def info(
    subject: Annotated[
        str, typer.Argument(metavar="WEIGHTS|INPUT", help="Shipped name, weights file or scan.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all that is known, as JSON.")
    ] = False,
) -> None:
    """Describe weights (their card) or a scan (grid, scale, noise); no patient data."""
    left_out = LeftOut()
    with progress("info"):
        from medddpm.io.outputs import plain
        from medddpm.workflows.describing import info as run
        from medddpm.workflows.describing import info_text

        found = run(subject, on_error=left_out)
    if found.get("scans") != []:
        typer.echo(json.dumps(plain(found), indent=2) if as_json else info_text(found))
    left_out.exit_if_any(len(found.get("scans", [])))


@reports_errors
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("quickstart-out"),
    device: Device = "auto",
    weights: Weights = "default",
    overwrite: Overwrite = False,
) -> None:
    """Restore the shipped example and compare it with its clean reference."""
    with progress("quickstart") as report:
        from medddpm.workflows.example import quickstart as run

        result = run(
            out,
            device=parse_device(device),
            weights=weights,
            overwrite=overwrite,
            on_progress=report,
        )
    from rich.console import Console

    Console().print(result.table)
    for path in result.paths:
        typer.echo(f"wrote {path}")
