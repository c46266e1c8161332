"""Volumes to derived MR series: classic images, or an enhanced object from enhanced sources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from medddpm.errors import ConfigError
from medddpm.io.dicom_classic import classic_image
from medddpm.io.dicom_enhanced import enhanced_image
from medddpm.io.dicom_pixels import TransferSyntax, check_pixels, compress, frames_of, to_stored
from medddpm.io.dicom_quiet import quiet_pydicom
from medddpm.io.dicom_series import (
    Work,
    check_rectangular,
    plan_series,
    source_of,
    work_of,
)
from medddpm.io.files import atomic_path, check_output, is_folder
from medddpm.volume import Volume

if TYPE_CHECKING:
    from medddpm.io.sidecar import Facts  # which needs this module


@dataclass(frozen=True)
class DicomOptions:
    """How derived DICOM is written.

    Attributes:
        objects: "source" writes an enhanced object for an enhanced source, and classic images,
            one file a slice, for all others; "classic" always writes classic images.
        transfer_syntax: Lossless encoding of the pixels. Parametric maps have floats, which no
            such encoding takes, and stay "explicit" (explicit VR little endian).
        report: Also write the report as a page in the same study: "pdf" (Encapsulated PDF) or
            "image" (Secondary Capture).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    objects: Literal["source", "classic"] = "source"
    transfer_syntax: TransferSyntax = "explicit"
    report: Literal["none", "pdf", "image"] = "none"


def write_dicom(
    volume: Volume,
    folder: str | Path,
    *,
    overwrite: bool = False,
    facts: Facts | None = None,
    options: DicomOptions | None = None,
    work: Work | None = None,
) -> Path:
    """Write a derived MR series.

    Patient, study and frame of reference of a DICOM source are kept; the series and the images
    get new UIDs that depend only on the source, the model and the pixels. Private tags and
    values that no longer hold are dropped. Other sources get an anonymous patient.

    Stored values are the intensities themselves, rounded, where the source's were integers;
    else they are scaled to 16 bits, RescaleSlope undoes it, and the derivation says so.

    Args:
        volume: (X, Y, Z) or (X, Y, Z, T); X becomes the column index, Y the row index.
        folder: Made here; 00001.dcm and so on, slices fastest, or one enhanced object.
        overwrite: Replace an earlier series that was written here; no other folder.
        facts: A restoration's report; name and SHA-256 of its weights are those of the derivation,
            and its options are kept as parameters. Without one the series is a converted one.
        options: Kind of objects and encoding.
        work: What was done, in place of what facts say.

    Returns:
        The folder.

    Raises:
        ConfigError: The source is not MR, too large for one enhanced object or too small for
            JPEG 2000.
        GeometryError: The grid is sheared.
        OutputError: The folder exists, or cannot be written.
    """
    folder, options = Path(folder), options or DicomOptions()
    check_dicom(volume, options)
    if not (overwrite and is_derived_series(folder)):
        check_output(folder, overwrite)
    work = work or work_of(facts)
    with quiet_pydicom(), atomic_path(folder, is_folder=True) as partial:
        for index, dataset in enumerate(_objects(volume, work, options)):
            compress(dataset, options.transfer_syntax)
            dataset.save_as(partial / f"{index + 1:05d}.dcm", enforce_file_format=True)
    return folder


def is_derived_series(folder: Path) -> bool:
    """True if a folder holds what `write_dicom` wrote, and nothing else."""
    if not is_folder(folder):
        return False
    names = sorted(path.name for path in folder.iterdir())
    if not names or any(re.fullmatch(r"\d{5,}\.dcm", name) is None for name in names):
        return False
    try:
        with quiet_pydicom():
            first = dcmread(folder / names[0], specific_tags=["ContributingEquipmentSequence"])
    except (OSError, InvalidDicomError):
        return False
    made_by = first.get("ContributingEquipmentSequence") or []
    return any(item.get("ManufacturerModelName") == "medddpm" for item in made_by)


def check_dicom(volume: Volume, options: DicomOptions) -> None:
    """Raise, before the work, what `write_dicom` would raise after it."""
    if volume.modality not in ("", "MR"):
        raise ConfigError(
            f"a derived series can only be made of MR, this scan is {volume.modality}; write NIfTI"
        )
    check_rectangular(volume)
    columns, rows, slices = volume.geometry.shape
    frames = slices * volume.num_frames if _is_enhanced(volume, options) else 1
    check_pixels((frames, rows, columns), 2, options.transfer_syntax)


def _is_enhanced(volume: Volume, options: DicomOptions) -> bool:
    source, _ = source_of(volume, 0)
    return options.objects == "source" and "PerFrameFunctionalGroupsSequence" in source


def _objects(volume: Volume, work: Work, options: DicomOptions) -> Iterator[Dataset]:
    stored, is_enhanced = to_stored(volume), _is_enhanced(volume, options)
    series = plan_series(
        volume,
        work.description,
        work.algorithm,
        kind=" enhanced" if is_enhanced else "",
        done=work.done,
        derivation=work.derivation,
    )
    if is_enhanced:
        yield enhanced_image(series, stored)
        return
    padding = None if stored.padding is None else frames_of(stored.padding)
    for index, frame in enumerate(frames_of(stored.values)):
        part = None if padding is None else padding[index]
        yield classic_image(series, stored, frame, index, part)
