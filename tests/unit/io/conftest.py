"""DICOM objects made in code: enhanced multi-frame and Siemens mosaic."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage

ROW, COLUMN = np.array([0.96, 0.28, 0.0]), np.array([-0.28, 0.96, 0.0])


def _item(**values: Any) -> Sequence:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return Sequence([item])


@pytest.fixture
def edit() -> Callable[..., None]:
    """Changes files of a series: edit(folder, change(dataset, number), which)."""

    def _edit(folder: Path, change: Any, which: Any = slice(None)) -> None:
        paths = sorted(folder.iterdir(), key=lambda p: int(p.stem.split("-")[-1]))
        for number, path in enumerate(paths):
            if path in paths[which]:
                dataset = dcmread(path)
                change(dataset, number)
                dataset.save_as(path, enforce_file_format=True)

    return _edit


@pytest.fixture
def enhanced(dicom_series: Callable[..., Path]) -> Callable[..., Path]:
    """An enhanced MR object: enhanced(folder, data (X, Y, Z, T)), frames in shuffled order."""

    def make(folder: Path, data: Any, slope: float = 2.0) -> Path:
        classic = dicom_series(folder / "classic", data[..., 0])
        dataset = dcmread(next(classic.iterdir()))
        for path in classic.iterdir():
            path.unlink()
        classic.rmdir()
        for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            del dataset[name]
        dataset.SOPClassUID = EnhancedMRImageStorage
        dataset.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
        shared = Dataset()
        shared.PlaneOrientationSequence = _item(ImageOrientationPatient=[*ROW, *COLUMN])
        shared.PixelMeasuresSequence = _item(PixelSpacing=[1.5, 1.0], SliceThickness=3.0)
        shared.MREchoSequence = _item(EffectiveEchoTime=5.5)
        dataset.SharedFunctionalGroupsSequence = Sequence([shared])
        dims = [Dataset(), Dataset()]
        dims[0].DimensionIndexPointer, dims[1].DimensionIndexPointer = 0x00209057, 0x00209128
        dataset.DimensionIndexSequence = Sequence(dims)
        places = [(z, t) for z in range(data.shape[2]) for t in range(data.shape[3])]
        np.random.default_rng(1).shuffle(places)
        frames, pixels = [], []
        for z, t in places:
            frame = Dataset()
            frame.PlanePositionSequence = _item(ImagePositionPatient=[-30.0, -40.0, 3.0 * z - 25])
            frame.FrameContentSequence = _item(DimensionIndexValues=[z + 1, t + 1], StackID="1")
            frame.PixelValueTransformationSequence = _item(RescaleSlope=slope, RescaleIntercept=1)
            frames.append(frame)
            pixels.append(data[:, :, z, t].T.astype(np.uint16))
        dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
        dataset.NumberOfFrames = len(frames)
        dataset.PixelData = np.stack(pixels).tobytes()
        path = folder / "enhanced.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return path

    return make


def csa_header(tags: dict[str, tuple[str, list[Any]]]) -> bytes:
    """A Siemens CSA2 header with the given tags: name -> (VR, values)."""
    out = b"SV10\x04\x03\x02\x01" + struct.pack("<2I", len(tags), 77)
    for name, (vr, values) in tags.items():
        out += struct.pack("<64si4s3i", name.encode(), len(values), vr.encode(), 0, 6, 77)
        for value in [*(str(v) for v in values), *[""] * (6 - len(values))]:
            text = value.encode()
            out += struct.pack("<4i", len(text), len(text), 77, 0)
            out += text + b"\0" * (-len(text) % 4)
    return out


@pytest.fixture
def mosaic(dicom_series: Callable[..., Path]) -> Callable[..., Path]:
    """A Siemens mosaic: mosaic(folder, data (X, Y, Z), number, shift), with a CSA header."""

    def make(folder: Path, data: Any, number: int = 1, shift: float = 0.0) -> Path:
        side = int(np.ceil(np.sqrt(data.shape[2])))
        x, y = data.shape[:2]
        sheet = np.zeros((x * side, y * side))
        for z in range(data.shape[2]):
            left, top = z % side * x, z // side * y
            sheet[left : left + x, top : top + y] = data[:, :, z]
        made = dicom_series(folder / "one", np.stack([sheet], -1))
        dataset = dcmread(next(made.iterdir()))
        next(made.iterdir()).unlink()
        made.rmdir()
        dataset.SeriesInstanceUID = "1.2.3.4"
        dataset.InstanceNumber = number
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
        first = np.array([-30.0, -40.0, -25.0 + shift])
        corner = first - ROW * x * (side - 1) / 2 - COLUMN * 1.5 * y * (side - 1) / 2
        dataset.ImagePositionPatient = list(corner)
        block = dataset.private_block(0x29, "SIEMENS CSA HEADER", create=True)
        header = csa_header(
            {
                "NumberOfImagesInMosaic": ("US", [data.shape[2]]),
                "SliceNormalVector": ("FD", [0.0, 0.0, 1.0]),
            }
        )
        block.add_new(0x10, "OB", header)
        path = folder / f"mosaic-{number}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return path

    return make
