"""What an image shows, in the words of many vendors, and how series are split by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from support.dicom_fuzz import set_raw

from medddpm.errors import DicomSeriesError
from medddpm.io import read_volume, read_volumes, why_no_magnitude
from medddpm.io.dicom_kind import holds_magnitude, kind_of

KINDS = [
    (["ORIGINAL", "PRIMARY", "M", "ND"], "magnitude", ""),
    (["ORIGINAL", "PRIMARY", "P", "ND"], "phase", ""),
    (["ORIGINAL", "PRIMARY", "R", "ND"], "real part", ""),
    (["ORIGINAL", "PRIMARY", "I", "ND"], "imaginary part", ""),
    (["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"], "magnitude", ""),
    (["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], "phase", ""),
    (["ORIGINAL", "PRIMARY", "R_FFE", "R", "FFE"], "real part", ""),
    (["ORIGINAL", "PRIMARY", "I_IR", "I", "IR"], "imaginary part", ""),
    (["ORIGINAL", "PRIMARY", "B0 MAP", "B0", "UNSPECIFIED"], "field map", ""),
    (["ORIGINAL", "PRIMARY", "VELOCITY MAP", "P", "PCA"], "phase", ""),
    (["ORIGINAL", "PRIMARY", "MAGNITUDE", "NONE"], "magnitude", ""),
    (["ORIGINAL", "PRIMARY", "PHASE", "NONE"], "phase", ""),
    (["ORIGINAL", "PRIMARY", "REAL"], "real part", ""),
    (["DERIVED", "PRIMARY", "IMAGINARY"], "imaginary part", ""),
    (["DERIVED", "PRIMARY", "FIELD_MAP"], "field map", ""),
    (["DERIVED", "PRIMARY", "W", "W", "DERIVED"], "", "water"),
    (["DERIVED", "PRIMARY", "F", "F", "DERIVED"], "", "fat"),
    (["DERIVED", "PRIMARY", "IP", "IP", "DERIVED"], "", "in-phase"),
    (["DERIVED", "PRIMARY", "OP", "OP", "DERIVED"], "", "out-of-phase"),
    (["DERIVED", "PRIMARY", "DIXON", "WATER"], "", "water"),
    (["ORIGINAL", "PRIMARY", "M", "DIXON", "IN_PHASE"], "magnitude", "in-phase"),
    (["ORIGINAL", "PRIMARY", "M", "DIXON", "OPP_PHASE"], "magnitude", "out-of-phase"),
    (["ORIGINAL", "PRIMARY", "T1", "PHASE_CONTRAST"], "", ""),
    (["ORIGINAL", "PRIMARY", "R2_STAR", "R2_STAR"], "", ""),
    ("ORIGINAL", "", ""),
    ("PRIMARY", "", ""),
    ([], "", ""),
]


@pytest.mark.parametrize(("types", "component", "dixon"), KINDS, ids=[str(k[0]) for k in KINDS])
def test_image_types_of_vendors(types: Any, component: str, dixon: str) -> None:
    dataset = Dataset()
    dataset.ImageType = types
    kind = kind_of(dataset)
    assert (kind.component, kind.dixon) == (component, dixon)
    assert holds_magnitude(dataset) == (component in ("", "magnitude"))


def ge(value: Any, vr: str = "SS", block: int = 0x10) -> Dataset:
    dataset = Dataset()
    dataset.Manufacturer = "GE MEDICAL SYSTEMS"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    if block:
        dataset.add_new((0x0043, block), "LO", "GEMS_PARM_01")
    dataset.add_new((0x0043, ((block or 0x10) << 8) + 0x2F), vr, value)
    return dataset


@pytest.mark.parametrize(
    ("value", "component"),
    list(enumerate(["magnitude", "phase", "real part", "imaginary part", ""])),
)
def test_the_number_of_ge(value: int, component: str) -> None:
    assert kind_of(ge(value)).component == component
    assert kind_of(ge(value, block=0x11)).component == component
    assert kind_of(ge(value, block=0)).component == component  # its creator was taken away
    assert kind_of(ge(value.to_bytes(2, "little"), "UN")).component == component
    other = ge(value)
    other.Manufacturer = "SIEMENS"
    other.pop((0x0043, 0x10))
    assert kind_of(other).component == ""


@pytest.mark.parametrize("value", [b"", b"\0", [1, 2]])
def test_a_number_of_ge_that_is_none(value: Any) -> None:
    assert kind_of(ge(value, "UN" if isinstance(value, bytes) else "SS")).component in (
        "",
        "magnitude",
    )


def frame_kind(root: str, own: str, frame_type: list[str]) -> str:
    dataset, frame, item = Dataset(), Dataset(), Dataset()
    item.FrameType = frame_type
    if own:
        item.ComplexImageComponent = own
    frame.MRImageFrameTypeSequence = Sequence([item])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([frame])
    dataset.ComplexImageComponent = root
    return kind_of(dataset, 0).component


def test_the_word_of_the_standard() -> None:
    plain = ["ORIGINAL", "PRIMARY", "T1", "NONE"]
    assert frame_kind("MIXED", "PHASE", plain) == "phase"
    assert frame_kind("MIXED", "MAGNITUDE", plain) == "magnitude"
    assert frame_kind("MIXED", "", plain) == ""
    assert frame_kind("REAL", "", plain) == "real part"
    assert (
        frame_kind("MAGNITUDE", "MAGNITUDE", ["ORIGINAL", "PRIMARY", "B0_MAP", "NONE"])
        == "field map"
    )
    assert frame_kind("MIXED", "MIXED", plain) == "complex values"


@pytest.fixture
def data(rng: np.random.Generator) -> Any:
    return rng.integers(0, 2000, (8, 10, 6)).astype(np.float32)


@pytest.fixture
def two(dicom_series: Any, edit: Any, tmp_path: Path, data: Any) -> Any:
    """A series of two images at each place: two(change(dataset, number of the image))."""

    def make(change: Any) -> Path:
        folder = dicom_series(tmp_path / "two", data)
        dicom_series(tmp_path / "b", data + 100)
        uid = dcmread(next(folder.iterdir())).SeriesInstanceUID
        for index, place in enumerate((folder, tmp_path / "b")):

            def join(dataset: Dataset, _: int, index: int = index) -> None:
                dataset.SeriesInstanceUID = uid
                dataset.InstanceNumber = 1
                change(dataset, index)

            edit(place, join)
        for path in (tmp_path / "b").iterdir():
            path.rename(folder / f"b-{path.name}")
        return Path(folder)

    return make


def test_water_and_fat_are_volumes(two: Any, data: Any) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.ImageType = ["DERIVED", "PRIMARY", *(2 * ["WF"[index]]), "DERIVED"]

    volumes = read_volumes(two(change))
    assert [v.native.kind.dixon for v in volumes] in (["water", "fat"], ["fat", "water"])
    assert all(v.num_frames == 1 for v in volumes)
    assert not any(why_no_magnitude(v) for v in volumes)


def test_what_only_differs_in_other_words_is_split_too(two: Any) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", ["ADC", "TRACEW"][index]]

    assert [v.num_frames for v in read_volumes(two(change))] == [1, 1]


@pytest.mark.parametrize(("times", "count"), [((2.46, 2.46000004), 1), ((2.46, 4.92), 2)])
def test_echo_times_are_numbers(two: Any, times: Any, count: int) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.EchoTime, dataset.InstanceNumber = times[index], index

    volumes = read_volumes(two(change))
    assert [v.num_frames for v in volumes] == [2 // count] * count


def test_echo_times_in_other_words(two: Any) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.InstanceNumber = index
        dataset.EchoTime = ["2.460", "2.46"][index]

    assert read_volume(two(change)).num_frames == 2


@pytest.mark.parametrize(
    ("keyword", "first", "second"),
    [
        ("TriggerTime", "20.5", "100.25"),
        ("AcquisitionTime", "095959.5", "100000"),
        ("AcquisitionTime", "0959", "10"),
        ("AcquisitionTime", "09:59:59", "10:00:00"),
        ("AcquisitionDateTime", "20200101235959.5+0100", "20200102000001"),
        ("ContentTime", "100000.1", "100000.2"),
    ],
)
def test_times_order_frames_where_nothing_else_does(
    two: Any, data: Any, keyword: str, first: str, second: str
) -> None:
    def change(dataset: Dataset, index: int) -> None:
        set_raw(dataset, keyword, [second, first][index].encode())

    volume = read_volume(two(change))
    assert np.array_equal(volume.data, np.stack([data + 100, data], -1))


def test_a_day_goes_before_its_time(two: Any, data: Any) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.AcquisitionDate = ["20200102", "20200101"][index]
        dataset.AcquisitionTime = ["000001", "235959"][index]

    assert np.array_equal(read_volume(two(change)).data[..., 0], data + 100)


@pytest.mark.parametrize("time", ["", "noon", "1"])
def test_a_time_that_is_none_orders_nothing(two: Any, time: str) -> None:
    def change(dataset: Dataset, index: int) -> None:
        set_raw(dataset, "AcquisitionTime", time.encode() if index else b"")

    with pytest.raises(DicomSeriesError, match="nothing tells their order"):
        read_volume(two(change))
