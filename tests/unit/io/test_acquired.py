"""What headers say of the acquisition: DICOM, enhanced DICOM, and the JSON beside a NIfTI file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medddpm.io import read_volume
from medddpm.io.acquired import Acquired, of_bids, of_dicom, read_acquired

SHAPE, SPACING = (40, 44, 12), (1.0, 1.0, 1.0)


def header(**told: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in told.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.fixture
def series(tmp_path: Path, head: Any, dicom_series: Callable[..., Path]) -> Path:
    return dicom_series(tmp_path / "series", head(SHAPE))


def test_a_series_is_read_with_its_matrix_along_the_axes_of_the_array(series: Path) -> None:
    for path in series.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.AcquisitionMatrix = [0, 33, 30, 0]  # frequency along columns, phase along rows
        dataset.InPlanePhaseEncodingDirection = "ROW"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D", "FIL"]
        dataset.ScanOptions = ["PFP", "FS"]
        dataset.save_as(path)
    volume = read_volume(series)
    found = read_acquired(volume)
    assert volume.geometry.shape == SHAPE
    assert found.edge == (30 / 40, 33 / 44, None)
    assert (found.filtered, found.normalised, found.resampled) == (True, True, True)
    assert found.partial_fourier is True
    assert found.words == (
        "k-space measured to 0.75 along X, 0.75 along Y; partial Fourier; filtered; normalised; "
        "resampled"
    )


def test_a_header_that_says_nothing(series: Path, noisy_nifti: Path) -> None:
    assert read_acquired(read_volume(series)) == Acquired()
    assert read_acquired(read_volume(noisy_nifti)) == Acquired()
    assert Acquired().words == ""


@pytest.mark.parametrize(
    ("told", "edge"),
    [
        ({"AcquisitionMatrix": [20, 0, 0, 33]}, (0.5, 0.75, None)),
        ({"AcquisitionMatrix": [40, 0, 0, 44]}, (1.0, 1.0, None)),
        ({"AcquisitionMatrix": [1, 0, 0, 44]}, (None, 1.0, None)),
        ({"AcquisitionMatrix": [0, 0, 0, 0]}, (None, None, None)),
        # the image is as wide as the field read out, and three quarters of that were encoded
        (
            {
                "AcquisitionMatrix": [40, 0, 0, 22],
                "InPlanePhaseEncodingDirection": "COL",
                "PercentPhaseFieldOfView": 75,
            },
            (1.0, 22 / 30, None),
        ),
        ({"MRAcquisitionType": "3D", "SliceThickness": 2}, (None, None, 0.5)),
        ({"MRAcquisitionType": "2D", "SliceThickness": 2}, (None, None, None)),
        ({"MRAcquisitionType": "3D", "SliceThickness": 1}, (None, None, None)),
    ],
)
def test_shares_of_k_space(told: dict[str, Any], edge: tuple[float | None, ...]) -> None:
    assert of_dicom(header(**told), SHAPE, SPACING).edge == pytest.approx(edge)


def test_functional_groups_of_enhanced_objects() -> None:
    place = header(
        InPlanePhaseEncodingDirection="COLUMN",
        MRAcquisitionFrequencyEncodingSteps=30,
        MRAcquisitionPhaseEncodingStepsInPlane=22,
        MRAcquisitionPhaseEncodingStepsOutOfPlane=9,
    )
    modifier = header(PartialFourier="YES", ParallelReductionFactorInPlane=2.0)
    shared = header(
        MRFOVGeometrySequence=Sequence([place]), MRModifierSequence=Sequence([modifier])
    )
    dataset = header(
        SharedFunctionalGroupsSequence=Sequence([shared]),
        CoverageOfKSpace="ELLIPSOIDAL",
        KSpaceFiltering="COSINE",
    )
    expected = Acquired((0.75, 0.5, 0.75), "ellipsoidal", True, 2.0, filtered=True)
    assert of_dicom(dataset, SHAPE, SPACING) == expected


def test_private_attributes_that_the_dictionary_names() -> None:
    dataset = header(InPlanePhaseEncodingDirection="COL")
    block = dataset.private_block(0x51, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0B, "SH", "22p*30")
    block.add_new(0x11, "LO", "p3s2")
    found = of_dicom(dataset, SHAPE, SPACING)
    assert found.edge == (0.75, 0.5, None)
    assert found.parallel_factor == 3
    philips = header()
    block = philips.private_block(0x2001, "Philips Imaging DD 001", create=True)
    block.add_new(0x19, "CS", "Y")
    assert of_dicom(philips, SHAPE, SPACING).partial_fourier is True


def test_a_bids_sidecar(noisy_nifti: Path) -> None:
    content = {
        "PhaseEncodingDirection": "j-",
        "BaseResolution": 24,
        "AcquisitionMatrixPE": 15,
        "ReconMatrixPE": 30,
        "PartialFourier": 0.75,
        "ParallelReductionFactorInPlane": 2,
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM"],
    }
    noisy_nifti.with_name("noisy.json").write_text(json.dumps(content))
    volume = read_volume(noisy_nifti)  # of 32 x 30 x 26 voxels
    found = read_acquired(volume)
    assert found == Acquired((0.75, 0.5, None), "", 0.75, 2.0, normalised=True)
    assert "partial Fourier 0.75; parallel imaging by 2" in found.words
    noisy_nifti.with_name("noisy.json").write_text("[1, 2")
    assert read_acquired(volume) == Acquired()


@pytest.mark.parametrize(
    "content",
    [
        {"BaseResolution": "many", "PhaseEncodingDirection": 3, "PartialFourier": "no"},
        {"BaseResolution": -4, "AcquisitionMatrixPE": True, "ImageType": "M"},
        {"BaseResolution": 30, "AcquisitionMatrixPE": 22},  # along which axis, nothing says
    ],
)
def test_nonsense_in_a_sidecar_names_no_edge(content: dict[str, Any]) -> None:
    assert of_bids(content, SHAPE, SPACING).edge == (None, None, None)


def test_a_damaged_header_says_nothing(series: Path) -> None:
    volume = read_volume(series)
    volume.native[0].AcquisitionMatrix = [1, 2]
    assert read_acquired(volume) == Acquired()
    assert np.isfinite(volume.data).all()
