"""Restore a scan from file to file: read, restore, write, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from medddpm.errors import ConfigError
from medddpm.io import (
    DicomOptions,
    NumberType,
    OnError,
    Quantity,
    Trust,
    find_images,
    holds_dicom,
    read_dicom,
    read_volume,
    read_volumes,
    stored_as,
    write_volume,
)
from medddpm.io.outputs import (
    OutputFormat,
    Target,
    check_targets,
    one_scan,
    plan_targets,
    staged,
    write_html,
)
from medddpm.io.provenance import (
    STATEMENT,
    describe_input,
    input_path,
    machine,
    now,
    output_checksum,
    relative_path,
    source_files,
    versions,
    voxel_checksum,
)
from medddpm.io.sidecar import (
    SCHEMA_VERSION,
    OutputFacts,
    PhaseFacts,
    RunFacts,
    Sidecar,
    write_sidecar,
)
from medddpm.model.model import find_weights
from medddpm.restoration.restorer import Restored, RestoreOptions, Restorer
from medddpm.volume import Volume
from medddpm.workflows.dicom_outputs import write_dicom_outputs
from medddpm.workflows.noise_files import NoiseFiles
from medddpm.workflows.number_type import in_type, type_of
from medddpm.workflows.restorable import (
    check_format,
    check_scan,
    only_magnitudes,
    say_left_out,
)
from medddpm.workflows.restored_scan import RestoredScan

OnProgress = Callable[[str, int, int], None]
MAPS: tuple[Quantity, ...] = ("std", "lower", "upper")
PHASE = "part-phase"
"""As BIDS calls it; the scan itself is the magnitude."""


@dataclass(frozen=True)
class Run:
    """How a scan was read and is written.

    Attributes:
        format: Of the output.
        force: Whether other modalities than MR were taken.
        trust: "sform" or "qform", if that was said.
        weights: A shipped name or a weights file.
        dicom: How DICOM is written.
        card: That of the weights, if a page is wanted.
        home: Where the outputs end up, if they are moved from where they are written.
        dtype: Number type of the scan in NIfTI.
        noise: Files that say what is known of the noise.
        phase: Where the phase of the scan came from, if it has one.
    """

    format: OutputFormat
    force: bool
    trust: Trust | None
    weights: str | Path
    dicom: DicomOptions
    card: dict[str, Any] | None
    home: Path | None = None
    dtype: NumberType = "float32"
    noise: NoiseFiles = field(default_factory=NoiseFiles)
    phase: PhaseFacts | None = None


def restore(
    source: str | Path,
    output: str | Path,
    *,
    options: RestoreOptions | None = None,
    weights: str | Path = "default",
    device: str = "auto",
    format: OutputFormat = "nifti",
    dicom: DicomOptions | None = None,
    overwrite: bool = False,
    force: bool = False,
    trust: Trust | None = None,
    report: bool = False,
    dtype: NumberType = "float32",
    noise_map: str | Path | None = None,
    noise_spectrum: str | Path | None = None,
    on_progress: OnProgress | None = None,
    on_error: OnError | None = None,
    on_note: Callable[[str], None] | None = None,
) -> list[RestoredScan]:
    """Restore every scan of a file or folder; each appears with its report, or not at all.

    Args:
        source: A NIfTI or DICOM file, or a folder of NIfTI files or DICOM series.
        output: A folder, or for one scan a .nii.gz file: see `names_folder`.
        options: How; the defaults if not given.
        weights: A shipped name or a weights file.
        device: "auto", "cpu", "cuda", "cuda:1".
        format: "dicom" writes a derived series a scan, in a folder of its own.
        dicom: How DICOM is written.
        overwrite: Replace outputs that exist.
        force: Take scans of another modality than MR.
        trust: "sform" or "qform", where those of a NIfTI file disagree.
        report: Write an HTML report beside each scan too.
        dtype: Number type of the restored scan in NIfTI; "input" is that of the input's file.
        noise_map: NIfTI of sigma at each voxel in scan units, as `estimate-noise --map` writes it.
        noise_spectrum: The colour of the noise, see `read_noise_spectrum`.
        on_progress: Called with the task, steps done and all steps.
        on_error: Called with the error of each scan that cannot be read or restored, and the
            others are restored; without it the first error is raised.
        on_note: Called with what a person should know.
    """
    source = Path(source)
    options, dicom = options or RestoreOptions(), dicom or DicomOptions()
    if format == "dicom" and dtype != "float32":
        raise ConfigError(f"--dtype {dtype} is for NIfTI; DICOM holds 16-bit integers anyway")
    noise = NoiseFiles.of(noise_map, noise_spectrum)
    noise.check(options)
    run = Run(format, force, trust, weights, dicom, None, dtype=dtype, noise=noise)
    scans = _scans(source, Path(output), run, on_error, on_note or (lambda text: None))
    if not scans:
        return []
    targets = plan_targets(scans, output, format=format, label="desc-denoised")
    _check_targets(scans, targets, options, run, overwrite=overwrite, report=report)
    restorer = Restorer.from_pretrained(weights, device=device)
    run = replace(run, card=restorer.model.card if report else None)
    done = []
    for number, (scan, target) in enumerate(zip(scans, targets, strict=True), start=1):
        task = "restore" if len(scans) == 1 else f"restore {number} of {len(scans)}"
        step = None if on_progress is None else partial(on_progress, task)
        with one_scan(scan.name if isinstance(scan, Path) else scan.case_id, on_error):
            volume = _read(scan, run) if isinstance(scan, Path) else scan
            chosen, sigma_map = noise.told(volume, options, trust)
            restored = restorer.restore(
                volume, options=chosen, sigma_map=sigma_map, on_progress=step
            )
            done.append(write_restored(restored, volume, target, run))
    return done


def _scans(
    source: Path, output: Path, run: Run, on_error: OnError | None, on_note: Callable[[str], None]
) -> list[Volume | Path]:
    """What there is to restore: NIfTI files of a folder, each read in its turn, or read scans."""
    images = find_images(source, deep=False) if source.is_dir() else []
    found: list[Volume | Path] = [*images]
    if images:
        if output.resolve() == source.resolve():
            raise ConfigError(
                f"{output} is also the folder of the scans, and what was restored would be "
                "restored again; give another output"
            )
        on_note(
            f"{source} is a folder of {len(images)} NIfTI files, done one after another; "
            "`medddpm cohort` does several at once"
        )
    if images and not holds_dicom(source):
        return found
    read = read_dicom if images else partial(read_volumes, trust=run.trust)
    volumes, notes = only_magnitudes(read(source, force=run.force, on_error=on_error))
    say_left_out(notes, on_error, is_all=not volumes and not found)
    for volume in volumes:
        with one_scan(volume.case_id, on_error):
            _check(volume, run)
            found.append(volume)
    return found


def _read(path: Path, run: Run) -> Volume:
    volume = read_volume(path, force=run.force, trust=run.trust)
    _check(volume, run)
    return volume


def _check(volume: Volume, run: Run) -> None:
    check_scan(volume)
    check_format(volume, run.format, run.dicom)
    stored_as(volume, run.dtype)


def _check_targets(
    scans: Sequence[Volume | Path],
    targets: Sequence[Target],
    options: RestoreOptions,
    run: Run,
    *,
    overwrite: bool,
    report: bool,
) -> None:
    """Raise before the work what would go wrong after it."""
    parts: list[str] = [*MAPS] if options.mode == "ensemble" else []
    if run.format == "dicom" and run.dicom.report != "none":
        parts.append("report")
    check_targets(
        [path for target in targets for path in _paths(target, parts, report)],
        overwrite=overwrite,
        inputs=[
            *run.noise.paths,
            *(p for s in scans for p in ([s] if isinstance(s, Path) else source_files(s))),
        ],
        folders=[target.image for target in targets] if run.format == "dicom" else (),
    )


def write_restored(restored: Restored, volume: Volume, target: Target, run: Run) -> RestoredScan:
    """Write the scan, its maps, its sidecar and the pages that were asked for, all together."""
    maps = maps_of(restored)
    restored, rounding = in_type(restored, volume, run.dtype)
    facts = _facts(restored, volume, target, run)
    if rounding:
        facts = facts.model_copy(update={"rounding": rounding})
    with staged(target.folder) as folder:
        place = replace(target, folder=folder)
        write_images(restored, volume, place, facts, run.format, run.dicom)
        output = OutputFacts(
            voxels_sha256=voxel_checksum(restored.volume),
            maps_sha256={name: voxel_checksum(value) for name, value in maps.items()},
            maps={name: place.part(name).name for name in maps},
            files={path.name: output_checksum(path) for path in sorted(folder.iterdir())},
        )
        facts = facts.model_copy(update={"output": output})
        if run.card is not None:
            # it draws, which takes a while to import
            from medddpm.report.page import report_page
            from medddpm.workflows.reporting import scan_of

            scan = scan_of(
                target.stem,
                volume,
                restored.volume,
                facts,
                std=restored.std,
                card=run.card,
                frame=facts.shown_frame,
            )
            write_html(place.html, report_page(scan))
        write_sidecar(folder / target.sidecar.name, facts)
    return RestoredScan(
        target.image,
        target.sidecar,
        {name: target.part(name) for name in maps},
        facts,
        facts.messages,
        facts.notices,
        target.part("report") if run.format == "dicom" and run.dicom.report != "none" else None,
        target.html if run.card is not None else None,
    )


def maps_of(restored: Restored) -> dict[str, Volume]:
    """What a restoration has beside the scan: "std", "lower", "upper" of an ensemble, its phase."""
    known: dict[str, Volume | None] = {name: getattr(restored, name) for name in MAPS}
    known[PHASE] = restored.phase
    return {name: value for name, value in known.items() if value is not None}


def write_images(
    restored: Restored,
    volume: Volume,
    target: Target,
    facts: Sidecar,
    format: OutputFormat,
    dicom: DicomOptions,
) -> None:
    """Write the scan and its maps, and for DICOM the page that was asked for.

    The same input, options, weights and versions give the same bytes.

    Args:
        restored: The restoration.
        volume: The scan as it was.
        target: Where to.
        facts: The sidecar.
        format: Of the output.
        dicom: How DICOM is written.
    """
    if format == "dicom":
        write_dicom_outputs(restored, volume, target, facts, dicom)
        return
    write_volume(restored.volume, target.image, stored=type_of(facts, volume))
    for name, value in maps_of(restored).items():
        write_volume(value, target.part(name))


def _paths(target: Target, parts: Sequence[str], report: bool) -> list[Path]:
    html = [target.html] if report else []
    return [target.image, target.sidecar, *html, *(target.part(name) for name in parts)]


def _facts(restored: Restored, volume: Volume, target: Target, run: Run) -> Sidecar:
    """The sidecar: all that is needed to do the same again."""
    path, home = find_weights(run.weights), run.home or target.folder
    source = path.stem if str(run.weights) == path.stem else relative_path(path, home)
    told = restored.facts.model_copy(
        update={"weights": restored.facts.weights.model_copy(update={"source": source})}
    )
    more: dict[str, Any] = {}
    given: dict[str, Any] = {"path": input_path(volume, home)}
    if run.phase is not None:
        given["phase"] = run.phase
    if run.noise.paths:
        more["noise_files"] = run.noise.facts(volume, home)
    return Sidecar(
        schema_version=SCHEMA_VERSION,
        statement=STATEMENT,
        time=now(),
        input=describe_input(volume).model_copy(update=given),
        run=RunFacts(
            format=run.format,
            force=run.force,
            trust=run.trust,
            dtype=run.dtype,
            dicom=run.dicom if run.format == "dicom" else None,
        ),
        **dict(told),
        versions=versions(),
        machine=machine(),
        **more,
    )
