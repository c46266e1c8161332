"""De-identification of DICOM headers by the Basic Profile of PS3.15, Annex E.

The table E.1-1 comes from the package dicom-anonymizer (BSD-3-Clause), which keeps it per edition
of the standard; how it is applied is ours: at every depth of sequences, with UIDs that stay
consistent under one key, and without anything private.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset

from medddpm.data.private import Pseudonyms
from medddpm.errors import DicomSeriesError, MissingExtraError, missing_extra
from medddpm.io import atomic_path
from medddpm.io.dicom_files import read_object
from medddpm.io.dicom_quiet import quiet_pydicom
from medddpm.version import __version__

EDITION = "2026c"
_REMOVE, _EMPTY, _DUMMY, _UID, _RECURSE = "X", "Z", "D", "U", "recurse"
_ACTIONS = {
    "X_TAGS": _REMOVE,
    "Z_TAGS": _EMPTY,
    "D_TAGS": _DUMMY,
    "U_TAGS": _UID,
    "X_Z_TAGS": _EMPTY,
    "Z_D_TAGS": _DUMMY,
    "X_D_TAGS": _DUMMY,
    "X_Z_D_TAGS": _DUMMY,
    "X_Z_U_STAR_TAGS": _RECURSE,
}
"""Where the standard leaves a choice by the attribute's type (X/Z, X/D ...), the one that keeps
the object conformant in either case is taken: it is never less private than the other."""
_DUMMIES = {"DA": "19000101", "DT": "19000101000000", "TM": "000000", "PN": "Anonymous"}
_TEXT = ("LO", "SH", "ST", "LT", "UT", "AE", "UC")
_BASIC_PROFILE = ("113100", "DCM", "Basic Application Confidentiality Profile")


@cache
def _table() -> tuple[dict[int, str], tuple[tuple[int, int, str], ...]]:
    """Actions by tag, and (tag, mask, action) for repeating groups such as overlays."""
    try:
        fields: Any = import_module(
            f"dicomanonymizer.dicom_anonymization_databases.dicomfields_{EDITION}"
        )
    except ImportError:
        what = "dicom-anonymizer, which has the table of PS3.15 for --deidentify,"
        raise MissingExtraError(missing_extra(what, "deidentify")) from None
    single: dict[int, str] = {}
    repeating = []
    for name, action in _ACTIONS.items():
        for tag in getattr(fields, name):
            number = (tag[0] << 16) | tag[1]
            if len(tag) == 2:
                single[number] = action
            else:
                repeating.append((number, (tag[2] << 16) | tag[3], action))
    return single, tuple(repeating)


def action_for(tag: int) -> str:
    """What the Basic Profile does with an attribute; "" if it stays."""
    single, repeating = _table()
    if (tag >> 16) % 2:
        return _REMOVE
    if tag in single:
        return single[tag]
    return next((act for value, mask, act in repeating if tag & mask == value & mask), "")


def identifying(header: Dataset) -> Iterator[tuple[str, str]]:
    """Keyword and action of each attribute, at any depth, that the profile would change.

    Empty values identify nobody and are passed over. Values are never told.
    """
    for element in header:
        action = action_for(element.tag)
        if action and action != _RECURSE and not element.is_empty:
            name = "private" if element.tag.is_private else _keyword(element)
            yield name, action
        elif element.VR == "SQ":
            for item in element.value:
                yield from identifying(item)


def _keyword(element: DataElement) -> str:
    return keyword_for_tag(element.tag) or str(element.tag)


def check_headers(files: Sequence[Path]) -> Counter[tuple[str, str]]:
    """In how many files of a series each identifying attribute stands."""
    found: Counter[tuple[str, str]] = Counter()
    with quiet_pydicom():
        for path in files:
            found.update(set(identifying(_read(path, with_pixels=False))))
    return found


def write_deidentified(files: Sequence[Path], folder: Path, pseudonyms: Pseudonyms) -> None:
    """Write a de-identified copy of a series; `folder` appears whole or not at all.

    Args:
        files: The series.
        folder: New; its parent is made if missing. Files in it are numbered.
        pseudonyms: For UIDs and the patient.

    Raises:
        DicomSeriesError: A file is damaged.
        OutputError: It cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with quiet_pydicom(), atomic_path(folder, is_folder=True) as partial:
        for number, path in enumerate(files, start=1):
            dataset = deidentified(_read(path, with_pixels=True), pseudonyms)
            dataset.save_as(partial / f"{number:05d}.dcm", enforce_file_format=True)


def _read(path: Path, *, with_pixels: bool) -> Dataset:
    try:
        return read_object(path, pixels=with_pixels)
    except Exception as error:  # a damaged header makes pydicom raise anything
        raise DicomSeriesError(
            f"a file of the series is damaged ({type(error).__name__}); export it again"
        ) from None


def deidentified(dataset: Dataset, pseudonyms: Pseudonyms) -> Dataset:
    """The data set by the Basic Profile, changed in place, with a new file header."""
    number = str(dataset.get("PatientID") or "")
    syntax = dataset.file_meta.TransferSyntaxUID
    _clean(dataset, pseudonyms)
    if number:
        dataset.PatientID = dataset.PatientName = pseudonyms.subject(number)
    dataset.PatientIdentityRemoved = "YES"
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    dataset.DeidentificationMethod = f"medddpm {__version__}, PS3.15 {EDITION} E.1-1"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = _BASIC_PROFILE
    dataset.DeidentificationMethodCodeSequence = [code]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta, dataset.preamble = meta, b"\0" * 128
    return dataset


def _clean(dataset: Dataset, pseudonyms: Pseudonyms) -> None:
    for element in list(dataset):
        action = action_for(element.tag)
        if action == _REMOVE:
            del dataset[element.tag]
        elif action in (_EMPTY, _DUMMY):
            element.value = _replacement(element, action)
        elif action == _UID:
            element.value = _new_uids(element.value, pseudonyms)
        elif element.VR == "SQ":
            for item in element.value:
                _clean(item, pseudonyms)


def _replacement(element: DataElement, action: str) -> Any:
    if element.VR == "SQ":
        return []
    if action == _EMPTY or element.is_empty:
        return "" if element.VR in (*_TEXT, *_DUMMIES, "CS", "AS", "UI") else None
    if element.VR in _TEXT:
        return "ANONYMOUS"
    return _DUMMIES.get(element.VR)


def _new_uids(value: Any, pseudonyms: Pseudonyms) -> Any:
    if not value:
        return value
    if isinstance(value, str):
        return pseudonyms.uid(value)
    return [pseudonyms.uid(str(uid)) for uid in value]
