"""Files that may be DICOM: found in folders, read with or without preamble, told from others."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from medddpm.errors import ContentAbsentError, DicomSeriesError, VolumeReadError
from medddpm.io.dicom_values import text
from medddpm.io.files import is_absent, why_absent

_NEEDED = ("SOPClassUID", "SeriesInstanceUID", "Modality", "Rows")
_DICOM = "1.2.840.10008."
_STORAGE = f"{_DICOM}5.1.4.1.1."
"""Where the UIDs of all storage classes of the standard begin (PS3.4 B.5)."""
_SUFFIXES = ("", ".dcm", ".dicom", ".ima", ".img", ".mr")


def files_under(folder: Path) -> Iterator[Path]:
    """Files of a folder and those in it, sorted, and links whose content is not there."""
    for path in sorted(folder.rglob("*")):
        if path.name != "DICOMDIR" and (path.is_file() or is_absent(path)):
            yield path


def read_object(
    path: Path, *, pixels: bool = True, keywords: Sequence[str] | None = None
) -> Dataset:
    """The data set of a file, also of one without preamble and meta header (PS3.10 7.1).

    Args:
        path: The file.
        pixels: Read them, too.
        keywords: Attributes to read; all if not given.

    Raises:
        InvalidDicomError: It is no DICOM.
        Exception: Of any kind, by pydicom, if it is damaged.
    """
    wanted = [*keywords, "SOPClassUID"] if keywords else None
    try:
        dataset = dcmread(path, stop_before_pixels=not pixels, specific_tags=wanted)
    except InvalidDicomError:
        if not _begins_bare(path):
            raise
        dataset = dcmread(path, stop_before_pixels=not pixels, specific_tags=wanted, force=True)
        if not text(dataset, "SOPClassUID").startswith(_STORAGE):
            raise
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _syntax_of(dataset)
    return dataset


def read_header(path: Path, keywords: Sequence[str] = ()) -> Dataset | None:
    """The data set without pixels, or None if the file is not DICOM.

    Args:
        path: The file.
        keywords: If given, only these are read beside what tells images from other objects, and
            those whose values cannot be read are left out.

    Raises:
        VolumeReadError: It cannot be opened, is damaged or cut short, or was not fetched.
    """
    if is_absent(path):
        if not _may_be_dicom(path):
            return None
        raise ContentAbsentError(why_absent(path))
    wanted = [*_NEEDED, *keywords] if keywords else None
    try:
        dataset = read_object(path, pixels=False, keywords=wanted)
        for name in _NEEDED:
            dataset.get(name)  # turns bytes into values, or raises
    except (InvalidDicomError, EOFError) as error:
        if path.suffix.lower() != ".dcm" or path.name.startswith("."):
            return None
        raise DicomSeriesError(f"{path} is no DICOM, or cut short; export it again") from error
    except OSError as error:
        raise VolumeReadError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged header makes pydicom raise anything
        raise DicomSeriesError(
            f"{path} is DICOM but damaged ({type(error).__name__}); export it again"
        ) from error
    if "Rows" not in dataset and _should_be_image(dataset):
        raise DicomSeriesError(f"{path} is DICOM but cut short; export it again")
    _drop_unreadable(dataset, keywords)
    return dataset


def is_directory_record(dataset: Dataset) -> bool:
    """True for a DICOMDIR, the index of a disc (PS3.10 8.6)."""
    told = text(dataset.file_meta, "MediaStorageSOPClassUID") or text(dataset, "SOPClassUID")
    return told == MediaStorageDirectoryStorage or "DirectoryRecordSequence" in dataset


def _drop_unreadable(dataset: Dataset, keywords: Sequence[str]) -> None:
    for keyword in keywords:
        try:
            dataset.get(keyword)
        except Exception:  # "abc" where a number belongs; who needs it reads the whole header
            del dataset[tag_for_keyword(keyword) or 0]


def _may_be_dicom(path: Path) -> bool:
    """False for a name that ends as files of other kinds do; UIDs as names end in digits."""
    suffix = path.suffix.lower()
    return suffix in _SUFFIXES or suffix[1:].isdigit()


def _begins_bare(path: Path) -> bool:
    """True if a file begins as a data set does: group 2 or 8, a VR or a short length."""
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) < 8:
        return False
    group, element, length = struct.unpack("<HHI", start)
    if group not in (0x0002, 0x0008) or element > 0x0018:
        return False
    return bool(re.fullmatch(rb"AE|AS|CS|DA|DT|IS|LO|OB|PN|SH|SQ|TM|UI|UL|US", start[4:6])) or (
        length <= 1024
    )


def _syntax_of(dataset: Dataset) -> UID:
    is_implicit, is_little = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian


def _should_be_image(dataset: Dataset) -> bool:
    """True if the SOP class is that of an image, or if the file ends before it is told."""
    meta = text(dataset.file_meta, "MediaStorageSOPClassUID")
    told = list(filter(None, [meta, text(dataset, "SOPClassUID")]))
    return not told or any(_is_of_images(uid) for uid in told)


def _is_of_images(uid: str) -> bool:
    name = UID(uid).name
    if name == uid and (uid.startswith(_DICOM) or _DICOM.startswith(uid)):
        return True  # no UID of the standard: the end of it is missing
    return name.endswith("Image Storage")
