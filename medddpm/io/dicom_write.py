"""Volumes to derived classic MR series (PS3.3 A.4, C.7.6.1, C.8.3.1)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import DSfloat

from medddpm.errors import ConfigError, GeometryError
from medddpm.io.dicom import quiet_pydicom
from medddpm.io.dicom_attributes import KEPT, REQUIRED, from_groups
from medddpm.io.dicom_slices import rescale_of
from medddpm.io.files import atomic_path, check_output
from medddpm.volume import Volume


@dataclass(frozen=True)
class Stored:
    """Integers for the file: intensity = stored * slope."""

    values: NDArray[Any]
    slope: float


@dataclass(frozen=True)
class _Series:
    """What all images of the new series share."""

    volume: Volume
    entropy: str
    description: str
    number: int
    model: str
    stored: Stored


def write_dicom(
    volume: Volume,
    folder: str | Path,
    *,
    series_description: str | None = None,
    overwrite: bool = False,
    model_id: str = "",
    checkpoint_hash: str = "",
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a derived classic MR series, one file a slice, explicit VR little endian.

    Patient, study and frame of reference of a DICOM source are kept; the series and the images
    get new UIDs that depend only on the source, the model and the pixels. Private tags and
    values that no longer hold are dropped. Other sources get an anonymous patient.

    Stored values are the intensities themselves, rounded, where the source's were integers;
    else they are scaled to 16 bits, RescaleSlope undoes it, and DerivationDescription says so.

    Args:
        volume: (X, Y, Z) or (X, Y, Z, T); X becomes the column index, Y the row index.
        folder: Made here; 00001.dcm and so on, slices fastest.
        series_description: Put after that of the source; says by default whether a model was
            used.
        overwrite: Replace an existing folder.
        model_id: Name of the model, for ContributingEquipmentSequence.
        checkpoint_hash: Of its weights.
        facts: A restoration's report; "name" and "sha256" of its "weights" stand in for
            `model_id` and `checkpoint_hash`.

    Returns:
        The folder.

    Raises:
        ConfigError: The source is not MR.
        GeometryError: The grid is sheared.
        OutputError: The folder exists, or cannot be written.
    """
    folder = Path(folder)
    if volume.modality not in ("", "MR"):
        raise ConfigError(
            f"a derived series can only be made of MR, this scan is {volume.modality}; write NIfTI"
        )
    axes = volume.affine[:3, :3] / np.array(volume.spacing)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-2:
        raise GeometryError(
            "the grid is sheared, which DICOM cannot hold; resample it or use NIfTI"
        )
    check_output(folder, overwrite)
    weights = (facts or {}).get("weights") or {}
    names = (model_id or weights.get("name", ""), checkpoint_hash or weights.get("sha256", ""))
    model = " ".join(name for name in names if name)
    if series_description is None:
        series_description = "AI-denoised" if model else "converted"
    with quiet_pydicom():
        series = _plan(volume, series_description, model)
        with atomic_path(folder, is_folder=True) as partial:
            for index in range(volume.geometry.shape[2] * volume.num_frames):
                dataset = _image(series, index)
                dataset.save_as(partial / f"{index + 1:05d}.dcm", enforce_file_format=True)
    return folder


def _plan(volume: Volume, suffix: str, model: str) -> _Series:
    source = _source(volume, 0)
    digest = hashlib.sha256(volume.data.tobytes()).hexdigest()
    origin = str(source.get("SeriesInstanceUID") or volume.case_id)
    before = str(source.get("SeriesDescription") or "")[: 63 - len(suffix)]
    return _Series(
        volume=volume,
        entropy=f"{origin} {model} {digest} {volume.affine.tolist()}",
        description=f"{before} {suffix}".strip()[:64],
        number=int(source.get("SeriesNumber") or 0) + 1000,
        model=model,
        stored=to_integers(volume.data, keep_units=_has_integers(volume)),
    )


def _source(volume: Volume, index: int) -> Dataset:
    """The source header of slice `index`, time slowest; empty if the source was not DICOM."""
    native: list[Dataset] = volume.native if volume.format == "dicom" and volume.native else []
    if not native:
        return Dataset()
    slices = volume.geometry.shape[2]
    if len(native) == slices * volume.num_frames:
        return native[index]
    if len(native) == volume.num_frames:
        return native[index // slices]
    return native[min(index % slices, len(native) - 1)]


def _has_integers(volume: Volume) -> bool:
    if volume.format != "dicom" or not volume.native:
        return bool(np.array_equal(volume.data, np.rint(volume.data)))
    scales = {
        rescale_of(dataset, index)
        for dataset in volume.native
        for index in range(len(dataset.get("PerFrameFunctionalGroupsSequence") or [0]))
    }
    return all(slope == 1 and intercept == int(intercept) for slope, intercept in scales)


def to_integers(data: NDArray[np.float32], *, keep_units: bool) -> Stored:
    """Intensities as 16-bit integers.

    Args:
        data: Any shape.
        keep_units: Round only, if the range allows; else the largest value becomes 32767.

    Returns:
        uint16, or int16 if there are negative values, and the slope back to intensities.
    """
    low, high = float(data.min()), float(data.max())
    top = max(high, -low, 1e-30)
    fits = low >= -32768 and high <= (65535 if low >= 0 else 32767)
    slope = 1.0 if keep_units and fits and top >= 255 else float(DSfloat(top / 32767, True))
    values = np.rint(data.astype(np.float64) / slope)
    return Stored(values.astype(np.int16 if values.min() < 0 else np.uint16), slope)


def _image(series: _Series, index: int) -> Dataset:
    volume = series.volume
    slices = volume.geometry.shape[2]
    z, t = index % slices, index // slices
    source = _source(volume, index)
    dataset = _kept(source, z)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = _uid(series, "image", index)
    dataset.SeriesInstanceUID = _uid(series, "series")
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if keyword not in dataset:
            setattr(dataset, keyword, _uid(series, keyword))
    dataset.Modality = "MR"
    dataset.SeriesNumber, dataset.InstanceNumber = series.number, index + 1
    dataset.SeriesDescription = series.description
    dataset.AcquisitionNumber = t + 1
    if volume.num_frames > 1:
        dataset.TemporalPositionIdentifier = t + 1
        dataset.NumberOfTemporalPositions = volume.num_frames
    _set_geometry(dataset, volume, z)
    _set_derivation(dataset, series, source, z)
    stored = series.stored.values
    _set_pixels(dataset, stored[:, :, z] if stored.ndim == 3 else stored[:, :, z, t], series.stored)
    return dataset


def _uid(series: _Series, role: str, index: int = 0) -> str:
    return generate_uid(entropy_srcs=[series.entropy, role, str(index)])


def _kept(source: Dataset, z: int) -> Dataset:
    """The attributes of the source that stay true, and empty or neutral required ones."""
    dataset = Dataset()
    values = from_groups(source, z)
    for keyword in KEPT:
        value = values.get(keyword, source.get(keyword))
        if value not in (None, ""):
            setattr(dataset, keyword, value)
    is_foreign = "StudyInstanceUID" not in source
    for keyword, value in REQUIRED.items():
        if keyword not in dataset:
            setattr(dataset, keyword, value if is_foreign or keyword not in _EMPTY_OK else "")
    _repair(dataset)
    before = [str(v) for v in source.get("ImageType") or [] if v != "MOSAIC"]
    kind = before[2] if len(before) > 2 else "OTHER"
    dataset.ImageType = ["DERIVED", "PRIMARY", kind, *before[3:]]
    return dataset


def _repair(dataset: Dataset) -> None:
    """Conditional attributes that many sources lack, or have where they must not."""
    if "IR" not in _as_list(dataset.ScanningSequence):
        dataset.pop("InversionTime", None)
    elif "InversionTime" not in dataset:
        dataset.add(DataElement(tag_for_keyword("InversionTime") or 0, "DS", None))
    if not re.fullmatch(r"\d{3}[DWMY]", str(dataset.get("PatientAge", ""))):
        dataset.pop("PatientAge", None)
    if "BodyPartExamined" not in dataset and "Laterality" not in dataset:
        dataset.Laterality = ""
    methods = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
    if dataset.get("PatientIdentityRemoved") == "YES" and not any(m in dataset for m in methods):
        dataset.DeidentificationMethod = "not stated by the source"


_EMPTY_OK = ("PatientName", "PatientID", "Manufacturer")


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(v) for v in value]


def _ds(values: Any) -> list[DSfloat]:
    """Decimal strings of at most 16 characters, as near as these allow."""
    return [DSfloat(float(v) + 0.0, auto_format=True) for v in values]


def _set_geometry(dataset: Dataset, volume: Volume, z: int) -> None:
    """Position, orientation and spacing of slice `z`, RAS+ to LPS (C.7.6.2)."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    x, y, between = volume.spacing
    dataset.ImageOrientationPatient = _ds([*(lps[:3, 0] / x), *(lps[:3, 1] / y)])
    dataset.ImagePositionPatient = _ds((lps @ [0, 0, z, 1])[:3])
    dataset.PixelSpacing = _ds([y, x])
    dataset.SpacingBetweenSlices = _ds([between])[0]
    if "SliceThickness" not in dataset:
        dataset.SliceThickness = _ds([between])[0]


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """A code item (PS3.3 8.8).

    Args:
        value: At most 16 characters.
        scheme: "DCM", or one of our own that begins with 99.
        meaning: Human-readable, as in the dictionary.
    """
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _set_derivation(dataset: Dataset, series: _Series, source: Dataset, z: int) -> None:
    """How the image came about (C.7.6.1.1.3 and C.12.1)."""
    from medddpm import __version__

    slope = series.stored.slope
    scaling = "" if slope == 1 else f" Stored values are intensities divided by {slope:.6g}."
    if series.model:
        done = (
            f"denoised by latent diffusion (model {series.model}), whose autoencoder loses detail; "
            "not for diagnosis."
        )
        dataset.DerivationCodeSequence = Sequence([code("DENOISE", "99MEDDDPM", "Denoising")])
    else:
        done = "written anew; no model was applied by the writer."
    dataset.DerivationDescription = f"medddpm {__version__}: {done}{scaling}"
    if "SOPInstanceUID" in source:
        item = Dataset()
        item.ReferencedSOPClassUID = source.SOPClassUID
        item.ReferencedSOPInstanceUID = source.SOPInstanceUID
        item.PurposeOfReferenceCodeSequence = Sequence(
            [code("121322", "DCM", "Source image for image processing operation")]
        )
        dataset.SourceImageSequence = Sequence([item])
    equipment = Dataset()
    equipment.Manufacturer, equipment.ManufacturerModelName = "medddpm", "medddpm"
    equipment.SoftwareVersions = __version__
    equipment.ContributionDescription = dataset.DerivationDescription
    equipment.PurposeOfReferenceCodeSequence = Sequence(
        [code("109102", "DCM", "Processing Equipment")]
    )
    dataset.ContributingEquipmentSequence = Sequence([equipment])


def _set_pixels(dataset: Dataset, image: NDArray[Any], stored: Stored) -> None:
    """Pixels (columns, rows) and the attributes that describe them (C.7.6.3)."""
    pixels = np.ascontiguousarray(image.T).astype(image.dtype.newbyteorder("<"))
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(image.dtype.kind == "i")
    if stored.slope != 1:
        dataset.RescaleSlope, dataset.RescaleIntercept = _ds([stored.slope])[0], 0
        dataset.RescaleType = "US"
    dataset.PixelData = pixels.tobytes()
