"""What the objects of a derived series share: identity, references, derivation, equipment."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from medddpm.errors import GeometryError
from medddpm.io.dicom_attributes import PATIENT, PATIENT_REQUIRED, STUDY
from medddpm.io.dicom_values import sound_element, text, whole
from medddpm.version import __version__
from medddpm.volume import Volume

if TYPE_CHECKING:
    from medddpm.io.sidecar import Facts  # which needs this module

SCHEME = "99MEDDDPM"
# CID 7203 is extensible and has no code for any of these.
DENOISING = ("DENOISE", SCHEME, "Denoising")
ENSEMBLE = ("ENSEMBLE", SCHEME, "Statistic of an ensemble of denoised images")
RECONSTRUCTED = ("RECONSTRUCTED", SCHEME, "Reconstruction from k-space")
REWRITTEN = ("REWRITTEN", SCHEME, "Written anew")
_MOST_IS = 2**31  # an integer string (PS3.5 6.2) is smaller


@dataclass(frozen=True)
class Algorithm:
    """What made the values; without a name the series is only written anew.

    Attributes:
        name: Of the model.
        digest: Checksum of its weights.
        settings: JSON of what the restoration was told.
    """

    name: str = ""
    digest: str = ""
    settings: str = ""

    @property
    def model(self) -> str:
        """Name and checksum in one line; "" if no model was used."""
        return " ".join(part for part in (self.name, self.digest) if part)


def algorithm_of(facts: Facts | None) -> Algorithm:
    """The algorithm that a restoration's report names.

    The budget of memory is left out of the settings: it does not change the result.
    """
    if facts is None:
        return Algorithm()
    kept = {key: value for key, value in facts.options.items() if key != "memory_gb"}
    return Algorithm(facts.weights.name, facts.weights.sha256, json.dumps(kept, sort_keys=True))


@dataclass(frozen=True)
class Work:
    """What was done to the images of a series.

    Attributes:
        description: Put after that of the source.
        done: As in "denoised by latent diffusion".
        derivation: Code of it.
        algorithm: What did it.
    """

    description: str
    done: str
    derivation: tuple[str, str, str]
    algorithm: Algorithm


def work_of(facts: Facts | None) -> Work:
    """A restoration, or a conversion where no model was used."""
    algorithm = algorithm_of(facts)
    description = "AI-denoised" if algorithm.model else "converted"
    return Work(description, "denoised", DENOISING, algorithm)


@dataclass(frozen=True)
class DerivedSeries:
    """A new series in the study of a volume.

    Attributes:
        volume: What is written, with the headers of its source.
        description: SeriesDescription.
        number: SeriesNumber.
        algorithm: What made the values.
        entropy: The UIDs follow from it.
        done: What was done, as in "denoised by latent diffusion".
        derivation: Code of it.
    """

    volume: Volume
    description: str
    number: int
    algorithm: Algorithm
    entropy: str
    done: str
    derivation: tuple[str, str, str]

    def uid(self, role: str, index: int = 0) -> str:
        """The same UID for the same content."""
        return str(generate_uid(entropy_srcs=[self.entropy, role, str(index)]))


def plan_series(
    volume: Volume,
    suffix: str,
    algorithm: Algorithm,
    *,
    shift: int = 1000,
    kind: str = "",
    done: str = "denoised",
    derivation: tuple[str, str, str] = DENOISING,
) -> DerivedSeries:
    """A derived series whose UIDs depend on the source, the algorithm and the values only.

    Args:
        volume: What is written.
        suffix: Put after the description of the source.
        algorithm: What made the values.
        shift: Added to the number of the source.
        kind: Tells series of the same values apart.
        done: What the algorithm did, as in "denoised by latent diffusion".
        derivation: Code of it. What a model was to do, and none did, was written anew;
            `RECONSTRUCTED` needs none.
    """
    if not algorithm.model and derivation != RECONSTRUCTED:
        done, derivation = "written anew", REWRITTEN
    source, _ = source_of(volume, 0)
    digest = hashlib.sha256(volume.data.tobytes()).hexdigest()
    origin = text(source, "SeriesInstanceUID") or volume.case_id
    before = text(source, "SeriesDescription")[: 63 - len(suffix)]
    number = whole(source, "SeriesNumber") + shift
    return DerivedSeries(
        volume=volume,
        description=f"{before} {suffix}".strip()[:64],
        number=number if abs(number) < _MOST_IS else shift,
        algorithm=algorithm,
        entropy=f"{origin} {algorithm.model} {digest} {volume.affine.tolist()}{kind}",
        done=done,
        derivation=derivation,
    )


def source_of(volume: Volume, index: int) -> tuple[Dataset, int]:
    """The source header of slice `index`, time slowest, and the frame in it.

    Returns:
        An empty header if the source was neither DICOM nor raw data that name a patient.
    """
    if volume.format == "raw" and volume.native is not None:
        return volume.native, 0
    if volume.format != "dicom" or not volume.native:
        return Dataset(), 0
    number, frame = volume.native.places[index % len(volume.native.places)]
    return volume.native[number], frame


def new_dataset(series: DerivedSeries, sop_class: str, role: str, index: int = 0) -> Dataset:
    """An object of the series with patient, study, series and identity, and nothing else."""
    source, _ = source_of(series.volume, index)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    copy_kept(source, dataset, f"{PATIENT} {STUDY}".split())
    add_missing(dataset, PATIENT_REQUIRED, is_foreign="StudyInstanceUID" not in source)
    if not re.fullmatch(r"\d{3}[DWMY]", text(dataset, "PatientAge")):
        dataset.pop("PatientAge", None)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = series.uid(role, index)
    dataset.SeriesInstanceUID = series.uid("series")
    if "StudyInstanceUID" not in dataset:
        dataset.StudyInstanceUID = _shared_uid(series, source, "StudyInstanceUID")
    dataset.SeriesNumber, dataset.InstanceNumber = series.number, index + 1
    dataset.SeriesDescription = series.description
    methods = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
    if dataset.get("PatientIdentityRemoved") == "YES" and not any(m in dataset for m in methods):
        dataset.DeidentificationMethod = "not stated by the source"
    return dataset


def copy_kept(source: Dataset, dataset: Dataset, keywords: Iterable[str]) -> None:
    """Take over attributes that have a value, sequences without private attributes in them.

    One that is not what its name demands would make the object unreadable: it is dropped.
    """
    for keyword in keywords:
        element = sound_element(source, Tag(keyword))
        if element is not None and not element.is_empty:
            value = element.value
            setattr(dataset, keyword, standard(value) if isinstance(value, Sequence) else value)


def standard(items: Iterable[Dataset]) -> Sequence:
    """Copies without private attributes, and without what cannot be read."""
    return Sequence([_standard_item(item) for item in items])


def _standard_item(item: Dataset) -> Dataset:
    copy = Dataset()
    for tag in sorted(item.keys()):
        element = None if tag.is_private else sound_element(item, tag)
        if element is not None and element.VR == "SQ":
            copy.add(DataElement(tag, "SQ", standard(element.value)))
        elif element is not None:
            copy.add(deepcopy(element))
    return copy


def add_missing(dataset: Dataset, required: Mapping[str, str], *, is_foreign: bool) -> None:
    """Attributes that must be there; a patient is named anonymous only where there is none."""
    for keyword, value in required.items():
        if keyword not in dataset:
            named = is_foreign or keyword not in ("PatientName", "PatientID", "Manufacturer")
            setattr(dataset, keyword, value if named else "")


def set_frame_of_reference(dataset: Dataset, series: DerivedSeries) -> None:
    """That of the source: the grid is kept, so the derived series lies where the source does."""
    source, _ = source_of(series.volume, 0)
    uid = text(source, "FrameOfReferenceUID")
    dataset.FrameOfReferenceUID = uid or _shared_uid(series, source, "FrameOfReferenceUID")
    dataset.PositionReferenceIndicator = text(source, "PositionReferenceIndicator")


def _shared_uid(series: DerivedSeries, source: Dataset, keyword: str) -> str:
    """One UID for all that is derived from a source which lacks it."""
    origin = text(source, "SeriesInstanceUID")
    return str(generate_uid(entropy_srcs=[origin, keyword])) if origin else series.uid(keyword)


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


def item_of(**values: Any) -> Sequence:
    """A sequence with one item."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return Sequence([item])


def decimals(values: Iterable[Any]) -> list[DSfloat]:
    """Decimal strings of at most 16 characters, as near as these allow."""
    return [DSfloat(float(v) + 0.0, auto_format=True) for v in values]


def check_rectangular(volume: Volume) -> None:
    """Raise GeometryError if the axes of the grid are not perpendicular."""
    axes = volume.affine[:3, :3] / np.array(volume.spacing)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-2:
        raise GeometryError(
            "the grid is sheared, which DICOM cannot hold; resample it or use NIfTI"
        )


def geometry_of(volume: Volume, z: int) -> dict[str, Any]:
    """Position, orientation and spacing of slice `z`, RAS+ to LPS (C.7.6.2), by keyword."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    x, y, between = volume.spacing
    return {
        "ImageOrientationPatient": decimals([*(lps[:3, 0] / x), *(lps[:3, 1] / y)]),
        "ImagePositionPatient": decimals((lps @ [0, 0, z, 1])[:3]),
        "PixelSpacing": decimals([y, x]),
        "SpacingBetweenSlices": decimals([between])[0],
    }


def source_items(series: DerivedSeries, index: int) -> Sequence | None:
    """What slice `index` was made of, for SourceImageSequence; None without a DICOM source."""
    source, frame = source_of(series.volume, index)
    if not _is_named(source):
        return None
    items = item_of(
        **_reference(source),
        PurposeOfReferenceCodeSequence=Sequence(
            [code("121322", "DCM", "Source image for image processing operation")]
        ),
    )
    if whole(source, "NumberOfFrames", 1) > 1:
        items[0].ReferencedFrameNumber = frame + 1
    return items


def source_files(series: DerivedSeries) -> list[Dataset]:
    """A reference to each object that the volume was read from."""
    native = series.volume.native if series.volume.format == "dicom" else []
    return [item_of(**_reference(source))[0] for source in native or [] if _is_named(source)]


def _reference(source: Dataset) -> dict[str, str]:
    return {
        "ReferencedSOPClassUID": text(source, "SOPClassUID"),
        "ReferencedSOPInstanceUID": text(source, "SOPInstanceUID"),
    }


def _is_named(source: Dataset) -> bool:
    """True if a reference to the object can be made."""
    return bool(text(source, "SOPInstanceUID") and text(source, "SOPClassUID"))


def source_series(series: DerivedSeries) -> Sequence | None:
    """The same by series (Table 10-4); None without a DICOM source."""
    source, _ = source_of(series.volume, 0)
    if not text(source, "SeriesInstanceUID"):
        return None
    return item_of(
        SeriesInstanceUID=text(source, "SeriesInstanceUID"),
        ReferencedSOPSequence=Sequence(source_files(series)),
    )


def derivation_text(series: DerivedSeries, slope: float = 1.0) -> str:
    """How the image came about, for people (C.7.6.1.1.3)."""
    scaling = "" if slope == 1 else f" Stored values are intensities divided by {slope:.6g}."
    done = f"{series.done}; no model was applied by the writer."
    if series.algorithm.model:
        done = (
            f"{series.done} by latent diffusion (model {series.algorithm.model}), whose "
            "autoencoder loses detail; not for diagnosis."
        )
    return f"medddpm {__version__}: {done}{scaling}"


def set_equipment(dataset: Dataset, series: DerivedSeries, text: str) -> None:
    """Our part in the object (C.12.1.1.5), and the algorithm in terms that machines read.

    The Algorithm Identification Macro (Table 10-19) is the one place where the standard has a
    code for artificial intelligence. No MR object has it, so here it is a type 3 extension.
    """
    dataset.ContributingEquipmentSequence = item_of(
        Manufacturer="medddpm",
        ManufacturerModelName="medddpm",
        SoftwareVersions=__version__,
        ContributionDescription=text,
        PurposeOfReferenceCodeSequence=Sequence([code("109102", "DCM", "Processing Equipment")]),
    )
    dataset.CodingSchemeIdentificationSequence = item_of(
        CodingSchemeDesignator=SCHEME, CodingSchemeName="Codes of the medddpm software"
    )
    algorithm = series.algorithm
    if algorithm.model:
        items = item_of(
            AlgorithmFamilyCodeSequence=Sequence(
                [code("123110", "DCM", "Artificial Intelligence")]
            ),
            AlgorithmName=(algorithm.name or "unnamed")[:64],
            AlgorithmVersion=(algorithm.digest or __version__)[:64],
            AlgorithmSource="medddpm",
        )
        if algorithm.settings:
            items[0].AlgorithmParameters = algorithm.settings[:10240]
        dataset.DerivationAlgorithmSequence = items
