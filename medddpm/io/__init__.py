"""Foreign formats to `Volume` and back, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medddpm.errors import MedddpmError, VolumeReadError
from medddpm.io.dicom import (
    OnError,
    SeriesFiles,
    dicom_headers,
    find_series,
    read_dicom,
    read_series,
    series_shape,
    why_left_out,
)
from medddpm.io.dicom_kind import check_magnitude, why_no_magnitude
from medddpm.io.dicom_label import series_label
from medddpm.io.dicom_map import Quantity, is_parametric_map, write_parametric_map
from medddpm.io.dicom_padding import with_padding, without_padding
from medddpm.io.dicom_page import write_dicom_page
from medddpm.io.dicom_write import DicomOptions, check_dicom, write_dicom
from medddpm.io.files import atomic_path, check_name, check_output, check_there, checksum
from medddpm.io.image_files import find_images
from medddpm.io.nifti import nifti_shape, read_nifti, suffix_of
from medddpm.io.nifti import write_nifti as write_volume
from medddpm.io.nifti_forms import Trust
from medddpm.io.stored import NumberType, Stored, stored_as
from medddpm.volume import Volume

__all__ = [
    "DicomOptions",
    "NumberType",
    "OnError",
    "Quantity",
    "SeriesFiles",
    "Stored",
    "Trust",
    "atomic_path",
    "check_dicom",
    "check_magnitude",
    "check_name",
    "check_output",
    "checksum",
    "dicom_headers",
    "find_images",
    "find_series",
    "holds_dicom",
    "is_parametric_map",
    "read_dicom",
    "read_series",
    "read_volume",
    "read_volumes",
    "scan_shape",
    "series_label",
    "stored_as",
    "why_left_out",
    "why_no_magnitude",
    "with_padding",
    "without_padding",
    "write_dicom",
    "write_dicom_page",
    "write_parametric_map",
    "write_volume",
]


def read_volumes(
    path: str | Path,
    *,
    force: bool = False,
    trust: Trust | None = None,
    on_error: OnError | None = None,
) -> list[Volume]:
    """Read every scan at `path`.

    Args:
        path: A NIfTI or MGH file, a DICOM file (its series is read), or a folder: its NIfTI and
            MGH files, and the DICOM series in it at any depth.
        force: Take other modalities than MR.
        trust: "sform" or "qform", for NIfTI files where they disagree.
        on_error: Called with the error of each bad file or series of a folder, and the others
            are read; without it the first error is raised.

    Returns:
        One volume a scan, files by name and then series by number. Arrays are (X, Y, Z) or
        (X, Y, Z, T), affines RAS+ in mm.

    Raises:
        VolumeReadError: Nothing there, or nothing readable. See `read_nifti`.
        DicomSeriesError: A series is no complete stack of slices. See `read_dicom`.
        GeometryError: The place of the scan is unknown.
    """
    path = Path(path)
    check_there(path)
    if path.is_file() and suffix_of(path):
        return [read_nifti(path, trust=trust)]
    images = find_images(path, deep=False) if path.is_dir() else []
    volumes: list[Volume] = []
    for image in images:
        try:
            volumes.append(read_nifti(image, trust=trust))
        except MedddpmError as error:
            if on_error is None:
                raise
            on_error(error)
    if images and not holds_dicom(path):
        return volumes
    return [*volumes, *read_dicom(path, force=force, on_error=on_error)]


def holds_dicom(folder: Path) -> bool:
    """Whether there is a DICOM image in a folder, at any depth."""
    return next(dicom_headers(folder, [], lambda path, error: None), None) is not None


def read_volume(path: str | Path, *, force: bool = False, trust: Trust | None = None) -> Volume:
    """Read the one scan at `path`; arguments and errors as for `read_volumes`.

    Raises:
        VolumeReadError: There are several scans.
    """
    volumes = read_volumes(path, force=force, trust=trust)
    if len(volumes) > 1:
        raise VolumeReadError(
            f"{path} holds {len(volumes)} scans ({', '.join(v.case_id for v in volumes)}); "
            "name one of them, or read all with read_volumes"
        )
    return volumes[0]


def scan_shape(files: Sequence[Path]) -> tuple[tuple[int, int, int], int]:
    """Shape and number of frames of a scan that is not read.

    Args:
        files: One NIfTI or MGH file, or the files of a DICOM series.

    Raises:
        VolumeReadError: The header cannot be read.
    """
    if suffix_of(files[0]):
        return nifti_shape(files[0])
    return series_shape(files)
