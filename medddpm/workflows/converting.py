"""DICOM <-> NIfTI with exactly the same geometry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medddpm.errors import ConfigError
from medddpm.io import (
    DicomOptions,
    OnError,
    Trust,
    read_volume,
    read_volumes,
    write_dicom,
    write_volume,
)
from medddpm.io.outputs import (
    OutputFormat,
    Target,
    check_targets,
    one_scan,
    plan_targets,
    staged,
)
from medddpm.io.provenance import source_files
from medddpm.volume import Volume


def convert(
    source: str | Path,
    output: str | Path,
    *,
    format: OutputFormat = "nifti",
    dicom: DicomOptions | None = None,
    like: str | Path | None = None,
    overwrite: bool = False,
    force: bool = False,
    trust: Trust | None = None,
    on_error: OnError | None = None,
) -> list[Path]:
    """Write every scan of the input in the other format; returns the paths.

    Args:
        source: A scan, or a folder of NIfTI files or DICOM series.
        output: A folder, or for one scan a .nii.gz file: see `names_folder`.
        format: Of the output; "dicom" keeps patient and study of DICOM input or of `like`; else
            they are anonymous.
        dicom: How DICOM is written.
        like: A DICOM series on the same grid whose patient and study the output belongs to.
        overwrite: Replace outputs that exist.
        force: Take scans of another modality than MR.
        trust: "sform" or "qform", where those of a NIfTI file disagree.
        on_error: Called with the error of each scan that cannot be read or written, and the
            others are converted; without it the first error is raised.
    """
    source = Path(source)
    like = None if like is None else Path(like)
    volumes = read_volumes(source, force=force, trust=trust, on_error=on_error)
    if not volumes:
        return []
    if format == "dicom":
        volumes = [_with_header_of(like, volume) if like else volume for volume in volumes]
    targets = plan_targets(volumes, output, format=format, label="converted")
    images = [target.image for target in targets]
    check_targets(
        images,
        overwrite=overwrite,
        inputs=[path for volume in volumes for path in source_files(volume)],
        folders=images if format == "dicom" else (),
    )
    done: list[Path] = []
    for volume, target in zip(volumes, targets, strict=True):
        with one_scan(volume.case_id, on_error):
            _write(volume, target, format, dicom)
            done.append(target.image)
    return done


def _write(
    volume: Volume, target: Target, format: OutputFormat, dicom: DicomOptions | None
) -> None:
    with staged(target.folder) as folder:
        if format == "dicom":
            write_dicom(volume, folder / target.image.name, options=dicom)
        else:
            write_volume(volume, folder / target.image.name)


def _with_header_of(like: Path, volume: Volume) -> Volume:
    template: Volume = read_volume(like)
    if template.format != "dicom":
        raise ConfigError(f"--like takes a DICOM series, {like.name} is {template.format}")
    template.geometry.require_match(volume.geometry, "the input")
    return replace(template, data=volume.data)
