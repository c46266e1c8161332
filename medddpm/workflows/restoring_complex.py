"""Restore a scan with its phase, from file to file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from medddpm.errors import ConfigError
from medddpm.io import stored_as
from medddpm.io.complex_files import ComplexFiles
from medddpm.io.outputs import check_targets, plan_targets
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restorer import Restorer
from medddpm.workflows.restored_scan import RestoredScan
from medddpm.workflows.restoring import MAPS, PHASE, Run, write_restored


def restore_complex(
    files: ComplexFiles,
    output: str | Path,
    run: Run,
    *,
    options: RestoreOptions | None = None,
    device: str = "auto",
    overwrite: bool = False,
    report: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> RestoredScan:
    """Restore one scan with its phase: the magnitude, `_part-phase` in radians, and the report.

    Args:
        files: Those of the scan.
        output: A folder, or a .nii.gz file.
        run: How it is read and written.
        options: How it is restored; the noise of such a scan is Gaussian.
        device: "auto", "cpu", "cuda", "cuda:1".
        overwrite: Replace outputs that exist.
        report: Write an HTML report beside the scan too.
        on_progress: Called with the task, steps done and all steps.

    Raises:
        ConfigError: DICOM was asked for, or another law of the noise.
        VolumeReadError: A file cannot be read, or what was given as phase is none.
        GeometryError: The files lie on different grids.
    """
    options = options or RestoreOptions()
    if run.format == "dicom":
        raise ConfigError(
            "--format dicom derives a series of magnitudes; a scan with its phase is written as "
            "NIfTI: leave --format dicom out"
        )
    if options.noise == "ncchi":
        raise ConfigError(not_gaussian(options.noise))
    run.noise.check(options)
    scan, units = files.read(run.trust)
    volume = scan.magnitude
    stored_as(volume, run.dtype)
    target = plan_targets([volume], output, format="nifti", label="desc-denoised")[0]
    parts = [PHASE, *(MAPS if options.mode == "ensemble" else ())]
    pages = [target.html] if report else []
    check_targets(
        [target.image, target.sidecar, *pages, *(target.part(name) for name in parts)],
        overwrite=overwrite,
        inputs=[*files.paths, *run.noise.paths],
    )
    restorer = Restorer.from_pretrained(run.weights, device=device)
    chosen, sigma_map = run.noise.told(volume, options, run.trust)
    step = None if on_progress is None else partial(on_progress, "restore")
    restored = restorer.restore_complex(scan, options=chosen, sigma_map=sigma_map, on_progress=step)
    card = restorer.model.card if report else None
    phase = files.facts(units, run.home or target.folder)
    return write_restored(restored, volume, target, replace(run, card=card, phase=phase))


def not_gaussian(noise: str) -> str:
    """What is wrong with another law of the noise."""
    return (
        f"--noise {noise} is the law of a magnitude; a scan with its phase has gaussian noise: "
        "leave --noise out"
    )
