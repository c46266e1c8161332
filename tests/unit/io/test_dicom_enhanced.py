"""An enhanced source gives an enhanced derived object, or classic images by choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage
from support.sidecars import sidecar_of

from medddpm.errors import ConfigError
from medddpm.io import DicomOptions, dicom_pixels, read_volume, write_dicom
from medddpm.volume import Volume

FACTS = sidecar_of(options={"mode": "mean", "seed": 0, "memory_gb": 2.0})


@pytest.fixture
def film(rng: np.random.Generator) -> Any:
    return rng.integers(0, 2000, (32, 34, 6, 3)).astype(np.float32)


def grouped(path: Path) -> Path:
    """Frames with groups of their own and private tags in them, as vendors write them."""
    dataset = dcmread(path)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        z, t = frame.FrameContentSequence[0].DimensionIndexValues
        echo, diffusion = Dataset(), Dataset()
        echo.EffectiveEchoTime = 7.0
        diffusion.DiffusionBValue = 100.0 * t + z
        diffusion.private_block(0x29, "SOMEONE", create=True).add_new(1, "LO", "secret")
        frame.MREchoSequence, frame.MRDiffusionSequence = Sequence([echo]), Sequence([diffusion])
        frame.MRAveragesSequence = Sequence([Dataset()])
        frame.MRAveragesSequence[0].NumberOfAverages = 1 if z < 3 else 2
        frame.FrameContentSequence[0].FrameAcquisitionNumber = t
        frame.private_block(0x2005, "SOMEONE", create=True).add_new(1, "LO", "secret")
    del dataset.PerFrameFunctionalGroupsSequence[0].MRAveragesSequence
    agent = Dataset()
    agent.ContrastBolusAgentNumber = 1
    agent.private_block(0x29, "SOMEONE", create=True).add_new(1, "LO", "secret")
    dataset.ContrastBolusAgentSequence = Sequence([agent])
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "T1", "NONE"]
    dataset.save_as(path)
    return path


@pytest.fixture
def source(enhanced: Any, film: Any, tmp_path: Path) -> Volume:
    return read_volume(grouped(enhanced(tmp_path, film)))


@pytest.fixture
def derived(source: Volume, tmp_path: Path) -> Any:
    (path,) = write_dicom(source, tmp_path / "out", facts=FACTS).iterdir()
    return dcmread(path)


def shared(dataset: Any, name: str) -> Any:
    return getattr(dataset.SharedFunctionalGroupsSequence[0], name)[0]


def test_values_and_places_come_back(source: Volume, derived: Any, tmp_path: Path) -> None:
    back = read_volume(tmp_path / "out")
    slope = float(shared(derived, "PixelValueTransformationSequence").RescaleSlope)
    assert np.abs(back.data - source.data).max() <= slope / 2 * 1.01
    assert np.allclose(back.affine, source.affine, rtol=0, atol=1e-6)
    assert back.data.shape == source.data.shape


def test_each_frame_refers_to_the_frame_it_was_made_of(source: Volume, derived: Any) -> None:
    old = dcmread(source.native[0].filename)
    rows = old.pixel_array.astype(float) * 2 + 1
    new = derived.pixel_array * float(
        shared(derived, "PixelValueTransformationSequence").RescaleSlope
    )
    for number, frame in enumerate(derived.PerFrameFunctionalGroupsSequence):
        made_of = frame.DerivationImageSequence[0]
        (reference,) = made_of.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert np.abs(rows[reference.ReferencedFrameNumber - 1] - new[number]).max() < 1
        assert made_of.DerivationCodeSequence[0].CodeMeaning == "Denoising"
        before = old.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1]
        assert np.allclose(
            frame.PlanePositionSequence[0].ImagePositionPatient,
            before.PlanePositionSequence[0].ImagePositionPatient,
            rtol=0,
            atol=1e-6,
        )
    orientation = shared(derived, "PlaneOrientationSequence").ImageOrientationPatient
    turned = shared(old, "PlaneOrientationSequence").ImageOrientationPatient
    assert np.allclose(orientation, turned, rtol=0, atol=1e-9)
    evidence = derived.SourceImageEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.SeriesInstanceUID == old.SeriesInstanceUID
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID


def test_groups_of_the_source_follow_their_frames(source: Volume, derived: Any) -> None:
    assert shared(derived, "MREchoSequence").EffectiveEchoTime == 7.0
    assert shared(derived, "FrameAnatomySequence").FrameLaterality == "U"
    slices = source.geometry.shape[2]
    for number, frame in enumerate(derived.PerFrameFunctionalGroupsSequence):
        t, z = divmod(number, slices)
        content = frame.FrameContentSequence[0]
        assert frame.MRDiffusionSequence[0].DiffusionBValue == 100 * (t + 1) + z + 1
        assert content.DimensionIndexValues == [1, z + 1, t + 1]
        assert (content.InStackPositionNumber, content.TemporalPositionIndex) == (z + 1, t + 1)
        assert content.FrameAcquisitionNumber == t + 1
        assert "MRAveragesSequence" not in frame  # one frame of the source lacks it
    assert "MRAveragesSequence" not in derived.SharedFunctionalGroupsSequence[0]
    assert derived.ContrastBolusAgentSequence[0].ContrastBolusAgentNumber == 1
    assert not any(element.tag.is_private for element in derived.iterall())
    native = source.native[0].ContrastBolusAgentSequence[0]
    assert any(element.tag.is_private for element in native)  # the source is as it was


def test_what_the_object_says_of_itself(source: Volume, derived: Any) -> None:
    old = source.native[0]
    assert derived.SOPClassUID == EnhancedMRImageStorage
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert derived[name] == old[name]
    assert derived.SOPInstanceUID != old.SOPInstanceUID
    assert derived.SeriesInstanceUID != old.SeriesInstanceUID
    assert list(derived.ImageType) == ["DERIVED", "PRIMARY", "T1", "FILTERED"]
    assert shared(derived, "MRImageFrameTypeSequence").FrameType == derived.ImageType
    assert derived.ContentQualification == "RESEARCH"
    algorithm = derived.DerivationAlgorithmSequence[0]
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("tiny", "abc123")
    assert algorithm.AlgorithmParameters == '{"mode": "mean", "seed": 0}'
    assert derived.NumberOfFrames == 18


def test_a_conversion_claims_no_model(source: Volume, tmp_path: Path) -> None:
    (path,) = write_dicom(source, tmp_path / "plain").iterdir()
    dataset = dcmread(path)
    assert dataset.ImageType[3] == "NONE"
    assert "DerivationAlgorithmSequence" not in dataset
    made_of = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    assert made_of.DerivationCodeSequence[0].CodeMeaning == "Written anew"


def test_classic_by_choice(source: Volume, derived: Any, tmp_path: Path) -> None:
    options = DicomOptions(objects="classic")
    folder = write_dicom(source, tmp_path / "classic", facts=FACTS, options=options)
    images = [dcmread(path) for path in sorted(folder.iterdir())]
    assert len(images) == 18
    assert {d.SOPClassUID for d in images} == {MRImageStorage}
    assert images[0].SeriesInstanceUID != derived.SeriesInstanceUID
    assert images[0].EchoTime == 7.0
    old = derived.PerFrameFunctionalGroupsSequence
    for image, frame in zip(images, old, strict=True):
        reference = image.SourceImageSequence[0]
        same = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedFrameNumber == same.ReferencedFrameNumber
    slope = float(images[0].RescaleSlope)
    assert np.abs(read_volume(folder).data - source.data).max() <= slope / 2 * 1.01


@pytest.mark.parametrize("syntax", ["rle", "jpeg2000-lossless"])
def test_compressed(source: Volume, derived: Any, syntax: Any, tmp_path: Path) -> None:
    options = DicomOptions(transfer_syntax=syntax)
    (path,) = write_dicom(source, tmp_path / "c", facts=FACTS, options=options).iterdir()
    dataset = dcmread(path)
    assert dataset.file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(dataset.pixel_array, derived.pixel_array)
    assert dataset.SOPInstanceUID == derived.SOPInstanceUID


def test_same_bytes(source: Volume, derived: Any, tmp_path: Path) -> None:
    (again,) = write_dicom(source, tmp_path / "again", facts=FACTS).iterdir()
    (first,) = (tmp_path / "out").iterdir()
    assert again.read_bytes() == first.read_bytes()


def test_one_object_a_time_point(enhanced: Any, film: Any, tmp_path: Path) -> None:
    for t in range(2):
        (tmp_path / str(t)).mkdir()
        path = enhanced(tmp_path / str(t), film[..., t : t + 1])
        dataset = dcmread(path)
        dataset.SeriesInstanceUID = "1.2.3"
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            frame.FrameContentSequence[0].TemporalPositionIndex = t + 1
        dataset.save_as(path)
    volume = read_volume(tmp_path)
    assert volume.data.shape == (32, 34, 6, 2)
    (path,) = write_dicom(volume, tmp_path / "out").iterdir()
    frames = dcmread(path).PerFrameFunctionalGroupsSequence
    uids = [
        f.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for f in frames
    ]
    assert uids == [volume.native[0].SOPInstanceUID] * 6 + [volume.native[1].SOPInstanceUID] * 6


def test_more_than_an_object_can_hold(
    source: Volume, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dicom_pixels, "_MOST_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"objects=classic"):
        write_dicom(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "region"), [("BRAIN", "Brain"), ("HEAD", "Head"), ("WRIST", "Unknown")]
)
def test_anatomy(name: str, region: str, enhanced: Any, film: Any, tmp_path: Path) -> None:
    path = enhanced(tmp_path, film[..., :1])
    dataset = dcmread(path)
    dataset.BodyPartExamined, dataset.LossyImageCompression = name, "01"
    dataset.LossyImageCompressionRatio = 7
    dataset.save_as(path)
    (out,) = write_dicom(read_volume(path), tmp_path / "out").iterdir()
    written = dcmread(out)
    code = shared(written, "FrameAnatomySequence").AnatomicRegionSequence[0]
    known = getattr(codes.SCT, region)
    assert code.CodingSchemeDesignator == "SCT"
    assert (code.CodeValue, code.CodeMeaning) == (known.value, known.meaning)
    assert (written.LossyImageCompression, written.LossyImageCompressionRatio) == ("01", 7)
