"""Restore a scan from file to file: read, restore, write, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from medddpm.errors import ConfigError
from medddpm.io import (
    DicomOptions,
    NumberType,
    OnError,
    Trust,
    find_images,
    holds_dicom,
    read_dicom,
    read_volume,
    read_volumes,
    stored_as,
)
from medddpm.io.complex_files import ComplexFiles
from medddpm.io.outputs import OutputFormat, Target, check_targets, one_scan, plan_targets
from medddpm.io.provenance import source_files
from medddpm.restoration.restorer import RestoreOptions, Restorer
from medddpm.volume import Volume
from medddpm.workflows.noise_files import NoiseFiles
from medddpm.workflows.reference_files import GivenReference
from medddpm.workflows.restorable import (
    check_format,
    check_scan,
    only_magnitudes,
    say_left_out,
)
from medddpm.workflows.restored_files import MAPS, PHASE, Run, write_restored
from medddpm.workflows.restored_scan import RestoredScan

OnProgress = Callable[[str, int, int], None]


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
    phase: str | Path | None = None,
    imaginary: str | Path | None = None,
    noise_map: str | Path | None = None,
    noise_spectrum: str | Path | None = None,
    reference: str | Path | None = None,
    reference_weights: str | Path | None = None,
    on_progress: OnProgress | None = None,
    on_error: OnError | None = None,
    on_note: Callable[[str], None] | None = None,
) -> list[RestoredScan]:
    """Restore every scan of a file or folder; each appears with its report, or not at all.

    A scan of complex numbers, or with a second file, is restored with its phase, which is written
    too, as `_part-phase` in radians.

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
        phase: NIfTI phase of a magnitude: both are restored, without Rician bias.
        imaginary: NIfTI imaginary part, where the source is the real part.
        noise_map: NIfTI of sigma at each voxel in scan units, as `estimate-noise --map` writes it.
        noise_spectrum: The colour of the noise, see `read_noise_spectrum`.
        reference: Another contrast of the same person, which helps `mean`.
        reference_weights: Of the network that uses it, if not the shipped ones.
        on_progress: Called with the task, steps done and all steps.
        on_error: Called with the error of each scan that cannot be read or restored, and the
            others are restored; without it the first error is raised.
        on_note: Called with what a person should know.

    Raises:
        ConfigError: Two of these contradict each other.
        VolumeReadError: A file cannot be read, or what was given as phase is none.
        GeometryError: Files of one scan lie on different grids.
    """
    source = Path(source)
    options, dicom = options or RestoreOptions(), dicom or DicomOptions()
    noise = NoiseFiles.of(noise_map, noise_spectrum)
    run = Run(
        format, force, trust, weights, dicom, None,
        dtype=dtype, noise=noise, overwrite=overwrite, report=report,
        reference=GivenReference.read(reference, reference_weights, trust),
    )  # fmt: skip
    files = ComplexFiles.of(source, *(None if p is None else Path(p) for p in (phase, imaginary)))
    if files is not None:
        if run.reference is not None:
            raise ConfigError("--reference helps magnitudes alone; leave it or the phase out")
        return [_restore_complex(files, output, run, options, device, on_progress)]
    if format == "dicom" and dtype != "float32":
        raise ConfigError(f"--dtype {dtype} is for NIfTI; DICOM holds 16-bit integers anyway")
    noise.check(options)
    scans = _scans(source, Path(output), run, on_error, on_note or (lambda text: None))
    if not scans:
        return []
    targets = plan_targets(scans, output, format=format, label="desc-denoised")
    inputs = [p for s in scans for p in ([s] if isinstance(s, Path) else source_files(s))]
    _check_targets(targets, inputs, run, _parts(options, run))
    restorer = Restorer.from_pretrained(weights, device=device)
    work = list(zip(scans, targets, strict=True))
    return _restore_each(work, run, options, restorer, on_progress, on_error)


def _restore_each(
    work: Sequence[tuple[Volume | Path, Target]],
    run: Run,
    options: RestoreOptions,
    restorer: Restorer,
    on_progress: OnProgress | None,
    on_error: OnError | None,
) -> list[RestoredScan]:
    """Restore one scan after another; each is written before the next is read."""
    run = replace(run, card=restorer.model.card if run.report else None)
    done = []
    for number, (scan, target) in enumerate(work, start=1):
        task = "restore" if len(work) == 1 else f"restore {number} of {len(work)}"
        step = None if on_progress is None else partial(on_progress, task)
        with one_scan(scan.name if isinstance(scan, Path) else scan.case_id, on_error):
            volume = _read(scan, run) if isinstance(scan, Path) else scan
            chosen, sigma_map = run.noise.told(volume, options, run.trust)
            reference = None if run.reference is None else run.reference.of(volume)
            restored = restorer.restore(
                volume,
                options=chosen,
                sigma_map=sigma_map,
                reference=reference,
                on_progress=step,
            )
            done.append(write_restored(restored, volume, target, run))
    return done


def _restore_complex(
    files: ComplexFiles,
    output: str | Path,
    run: Run,
    options: RestoreOptions,
    device: str,
    on_progress: OnProgress | None,
) -> RestoredScan:
    """Restore one scan with its phase."""
    if run.format == "dicom":
        raise ConfigError(
            "--format dicom derives a series of magnitudes; a scan with its phase is written as "
            "NIfTI: leave --format dicom out"
        )
    if options.noise != "rician":  # the default, which stands for no law that was said
        refuse_law(options.noise)
    run.noise.check(options)
    scan, units = files.read(run.trust)
    volume = scan.magnitude
    stored_as(volume, run.dtype)
    target = plan_targets([volume], output, format="nifti", label="desc-denoised")[0]
    _check_targets([target], files.paths, run, [PHASE, *_parts(options, run)])
    restorer = Restorer.from_pretrained(run.weights, device=device)
    chosen, sigma_map = run.noise.told(volume, options, run.trust)
    step = None if on_progress is None else partial(on_progress, "restore")
    restored = restorer.restore_complex(scan, options=chosen, sigma_map=sigma_map, on_progress=step)
    card, phase = restorer.model.card if run.report else None, files.facts(units, target.folder)
    return write_restored(restored, volume, target, replace(run, card=card, phase=phase))


def refuse_law(noise: str) -> None:
    """Raise ConfigError unless this is the law of the noise of a scan with its phase."""
    if noise != "gaussian":
        raise ConfigError(
            f"--noise {noise} is the law of a magnitude; a scan with its phase has gaussian noise: "
            "leave --noise out"
        )


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


def _parts(options: RestoreOptions, run: Run) -> list[str]:
    """What is written beside a scan, as its names end."""
    page = ["report"] if run.format == "dicom" and run.dicom.report != "none" else []
    return [*(MAPS if options.mode == "ensemble" else ()), *page]


def _check_targets(
    targets: Sequence[Target], inputs: Sequence[Path], run: Run, parts: Sequence[str]
) -> None:
    """Raise before the work what would go wrong after it."""
    paths = []
    for target in targets:
        html = [target.html] if run.report else []
        paths += [target.image, target.sidecar, *html, *(target.part(name) for name in parts)]
    check_targets(
        paths,
        overwrite=run.overwrite,
        inputs=[*run.noise.paths, *(run.reference.files if run.reference else ()), *inputs],
        folders=[target.image for target in targets] if run.format == "dicom" else (),
    )
