"""Maps of an ensemble as Parametric Maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.sr.codedict import codes
from support.sidecars import sidecar_of

from medddpm.errors import GeometryError, OutputError
from medddpm.io import read_volume, write_dicom, write_parametric_map
from medddpm.volume import Geometry, Volume

FACTS = sidecar_of()


@pytest.fixture
def source(dicom_series: Any, rng: np.random.Generator, tmp_path: Path) -> Volume:
    return read_volume(dicom_series(tmp_path / "source", rng.integers(0, 2000, (8, 10, 6))))


@pytest.mark.parametrize("size", [1e-7, 1.0, 1e7])
def test_floats_come_back_exactly(
    size: float, source: Volume, rng: np.random.Generator, tmp_path: Path
) -> None:
    spread = source.with_data(size * rng.normal(0, 1, source.data.shape))
    back = read_volume(write_parametric_map(spread, tmp_path / "std.dcm", quantity="std"))
    assert np.array_equal(back.data, spread.data)
    assert np.allclose(back.affine, source.affine, rtol=0, atol=1e-6)


def test_where_it_belongs_and_what_it_is(source: Volume, tmp_path: Path) -> None:
    path = write_parametric_map(source, tmp_path / "std.dcm", quantity="std", facts=FACTS)
    dataset, old = dcmread(path), source.native[0]
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert dataset[name] == old[name]
    assert dataset.SOPClassUID.name == "Parametric Map Storage"
    assert list(dataset.ImageType) == ["DERIVED", "PRIMARY", "VOLUME", "STD_DEVIATION"]
    mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == source.data.max()
    assert mapping.MeasurementUnitsCodeSequence[0].CodingSchemeDesignator == "UCUM"
    for frame, image in zip(dataset.PerFrameFunctionalGroupsSequence, source.native, strict=True):
        made_of = frame.DerivationImageSequence[0]
        assert made_of.SourceImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert "standard deviation" in made_of.DerivationDescription
        assert made_of.DerivationCodeSequence[0].CodeValue == "ENSEMBLE"
    references = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert len(references) == len(source.native)


def test_codes_are_those_of_the_dictionary(source: Volume, tmp_path: Path) -> None:
    path = write_parametric_map(source, tmp_path / "std.dcm", quantity="std", facts=FACTS)
    dataset = dcmread(path)
    mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    family = dataset.DerivationAlgorithmSequence[0].AlgorithmFamilyCodeSequence[0]
    for code, known in (
        (quantity, codes.SCT.StandardDeviation),
        (mapping.MeasurementUnitsCodeSequence[0], codes.UCUM.NoUnits),
        (family, codes.DCM.ArtificialIntelligence),
    ):
        assert (code.CodeValue, code.CodeMeaning) == (known.value, known.meaning)


def test_each_map_is_a_series_of_its_own(source: Volume, tmp_path: Path) -> None:
    paths = [
        write_parametric_map(source, tmp_path / f"{name}.dcm", quantity=name, facts=FACTS)
        for name in ("std", "lower", "upper")
    ]
    image = dcmread(next(write_dicom(source, tmp_path / "image", facts=FACTS).iterdir()))
    made = [image, *(dcmread(path) for path in paths)]
    assert len({d.SeriesInstanceUID for d in made}) == 4
    assert [d.SeriesNumber for d in made] == [1001, 2001, 3001, 4001]
    again = write_parametric_map(source, tmp_path / "again.dcm", quantity="std", facts=FACTS)
    assert again.read_bytes() == paths[0].read_bytes()


def test_a_time_series(source: Volume, tmp_path: Path) -> None:
    film = Volume(
        np.stack([source.data, source.data + 0.5], -1),
        source.geometry,
        "dicom",
        modality="MR",
        native=source.native,
    )
    back = read_volume(write_parametric_map(film, tmp_path / "std.dcm", quantity="std"))
    assert np.array_equal(back.data, film.data)


def test_mosaics_are_referred_to(mosaic: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    mosaic(tmp_path / "m", rng.integers(0, 2000, (8, 10, 6)))
    volume = read_volume(tmp_path / "m")
    dataset = dcmread(write_parametric_map(volume, tmp_path / "std.dcm", quantity="std"))
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == volume.native[0].SOPInstanceUID


def test_a_source_without_dates_or_frame_of_reference(source: Volume, tmp_path: Path) -> None:
    for dataset in source.native:
        for name in ("StudyDate", "StudyTime", "FrameOfReferenceUID"):
            del dataset[name]
    path = write_parametric_map(source, tmp_path / "std.dcm", quantity="std", facts=FACTS)
    image = dcmread(next(write_dicom(source, tmp_path / "image", facts=FACTS).iterdir()))
    dataset = dcmread(path)
    assert dataset.FrameOfReferenceUID == image.FrameOfReferenceUID
    assert len(dataset.ContentDate) == 8
    assert dataset.StudyDate == ""


def test_flat_maps_and_arrays(phantom: Volume, tmp_path: Path) -> None:
    flat = phantom.with_data(np.zeros_like(phantom.data))
    dataset = dcmread(write_parametric_map(flat, tmp_path / "std.dcm", quantity="std"))
    window = dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    assert window.WindowWidth > 0
    assert not dataset.pixel_array.any()
    assert "ReferencedSeriesSequence" not in dataset


def test_refusals(source: Volume, tmp_path: Path) -> None:
    path = write_parametric_map(source, tmp_path / "std.dcm", quantity="std")
    with pytest.raises(OutputError, match="exists"):
        write_parametric_map(source, path, quantity="std")
    write_parametric_map(source, path, quantity="std", overwrite=True)
    sheared = source.affine.copy()
    sheared[:3, 1] += 0.3 * sheared[:3, 0]
    volume = Volume(source.data, Geometry(source.data.shape, sheared))
    with pytest.raises(GeometryError, match="sheared"):
        write_parametric_map(volume, tmp_path / "other.dcm", quantity="std")
    assert not (tmp_path / "other.dcm").exists()
