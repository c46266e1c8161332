from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.errors import (
    GeometryError,
    GeometryWarning,
    MissingExtraError,
    ShapeError,
    VolumeReadError,
)
from medddpm.io.raw import read_noise, read_raw
from medddpm.io.raw_bart import read_cfl, write_cfl
from medddpm.io.raw_header import Encoding, header_text, parse_header
from medddpm.io.raw_ismrmrd import REVERSE, read_ismrmrd
from medddpm.io.raw_ismrmrd_write import write_ismrmrd
from medddpm.io.raw_lines import Line, epi_corrected, gridded
from medddpm.io.raw_scan import RawScan, affine_of, stack_of, unplaced_affine

h5py: Any = pytest.importorskip("h5py")


def turned() -> NDArray[np.float64]:
    """(3, 3) directions in rows: an oblique stack, LPS."""
    c, s = np.cos(0.3), np.sin(0.3)
    return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def scan_of(
    rng: np.random.Generator, *, slices: int = 1, depth: int = 6, frames: int = 1, coils: int = 3
) -> RawScan:
    size = (frames, slices, coils, 8, 10, depth)
    kspace = rng.normal(size=size) + 1j * rng.normal(size=size)
    mask = np.ones((frames, slices, 8, 10, depth), bool)
    mask[:, :, :, 1] = False
    shape = (4, 10, depth * slices)
    return RawScan(
        np.where(mask[:, :, None], kspace, 0).astype(np.complex64),
        mask,
        (16.0, 15.0, 3.0 * depth),
        (4, 10, depth),
        (8.0, 15.0, 3.0 * depth),
        affine_of((3, -7, 11.5), turned(), (2, 1.5, 3), shape),
        noise=(rng.normal(size=(coils, 50)) + 0j).astype(np.complex64),
        frames=tuple(f"contrast {n}" if n else "" for n in range(frames)),
    )


@pytest.mark.parametrize(
    "kind", [{}, {"slices": 4, "depth": 1}, {"slices": 1, "depth": 1, "coils": 1}, {"frames": 2}]
)
def test_ismrmrd_comes_back_as_it_was_written(
    kind: dict[str, int], rng: np.random.Generator, tmp_path: Path
) -> None:
    scan = scan_of(rng, **kind)
    again = read_raw(write_ismrmrd(scan, tmp_path / "scan.h5"))
    np.testing.assert_array_equal(again.kspace, scan.kspace)
    np.testing.assert_array_equal(again.mask, scan.mask)
    np.testing.assert_array_equal(again.noise, scan.noise)
    np.testing.assert_allclose(again.affine, scan.affine, atol=1e-3)
    assert again.frames == scan.frames
    assert again.recon_matrix == scan.recon_matrix
    assert again.fov_mm == pytest.approx(scan.fov_mm)
    assert again.placed
    assert again.acceleration == pytest.approx(10 / 9)


def test_ismrmrd_is_what_its_own_package_reads(rng: np.random.Generator, tmp_path: Path) -> None:
    ismrmrd: Any = pytest.importorskip("ismrmrd")
    scan = scan_of(rng)
    path = write_ismrmrd(scan, tmp_path / "scan.h5")
    dataset = ismrmrd.Dataset(str(path), "dataset", False)
    header = ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header())
    assert header.encoding[0].encodedSpace.matrixSize.y == 10
    assert dataset.number_of_acquisitions() == 1 + 9 * 6
    line = dataset.read_acquisition(1)
    assert dataset.read_acquisition(0).isFlagSet(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    y, z = line.idx.kspace_encode_step_1, line.idx.kspace_encode_step_2
    np.testing.assert_array_equal(line.data, scan.kspace[0, 0, :, :, y, z])


def test_calibration_lines_stay_apart(rng: np.random.Generator, tmp_path: Path) -> None:
    scan = scan_of(rng)
    mask = np.zeros_like(scan.mask)
    mask[:, :, :, 4:7] = True
    extra = (np.where(mask[:, :, None], scan.kspace, 0), mask)
    again = read_raw(write_ismrmrd(replace(scan, calibration=extra), tmp_path / "scan.h5"))
    assert again.calibration is not None
    np.testing.assert_array_equal(again.calibration[0], extra[0])
    np.testing.assert_array_equal(again.mask, scan.mask)


def test_an_asymmetric_echo_keeps_its_middle(rng: np.random.Generator, tmp_path: Path) -> None:
    scan = scan_of(rng)
    mask = scan.mask.copy()
    mask[:, :, :3] = False
    scan = replace(scan, mask=mask, kspace=np.where(mask[:, :, None], scan.kspace, 0))
    again = read_raw(write_ismrmrd(scan, tmp_path / "scan.h5"))
    np.testing.assert_array_equal(again.kspace, scan.kspace)
    np.testing.assert_array_equal(again.mask, scan.mask)


def edited(path: Path, change: Callable[[Any], None]) -> Path:
    """The file with its table of readouts changed."""
    with h5py.File(path, "r+") as file:
        table = file["dataset/data"][:]
        change(table)
        file["dataset/data"][:] = table
    return path


@pytest.fixture
def written(rng: np.random.Generator, tmp_path: Path) -> Path:
    return write_ismrmrd(scan_of(rng), tmp_path / "scan.h5")


def test_averages_are_averaged_and_their_noise_is_less(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    scan = scan_of(rng)
    path = write_ismrmrd(scan, tmp_path / "scan.h5")
    with h5py.File(path, "r+") as file:
        table = file["dataset/data"][:]
        twice = np.concatenate([table, table[1:]])
        file["dataset/data"].resize((len(twice),))
        file["dataset/data"][:] = twice
    again = read_raw(path)
    np.testing.assert_allclose(again.kspace, scan.kspace, rtol=1e-6)
    assert again.noise is not None
    assert scan.noise is not None
    np.testing.assert_allclose(again.noise, scan.noise / np.sqrt(2), rtol=1e-6)
    assert again.facts["averages"] == 2


def test_reversed_lines_are_turned(written: Path) -> None:
    before = read_raw(written)

    def turn(table: Any) -> None:
        row = table[5]
        data = row["data"].view(np.complex64).reshape(3, 8)[:, ::-1]
        row["data"] = np.ascontiguousarray(data).view(np.float32).ravel()
        row["head"]["flags"] = 1 << (REVERSE - 1)

    np.testing.assert_array_equal(read_raw(edited(written, turn)).kspace, before.kspace)


def _wrong_line(table: Any) -> None:
    table[5]["head"]["idx"]["kspace_encode_step_1"] = 77


def _cut_readout(table: Any) -> None:
    table[5]["data"] = table[5]["data"][:-6]


def _nan(table: Any) -> None:
    table[5]["data"] = np.full(48, np.nan, np.float32)


def _all_noise(table: Any) -> None:
    table["head"]["flags"] = 1 << 18


def _askew(table: Any) -> None:
    table["head"]["phase_dir"] = (1, 1, 0)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (_wrong_line, VolumeReadError, "wrong matrix"),
        (_cut_readout, VolumeReadError, "cut short, or damaged"),
        (_nan, VolumeReadError, "NaN or infinity in 24 of"),
        (_all_noise, VolumeReadError, "no line of an image"),
        (_askew, GeometryError, "not perpendicular"),
    ],
)
def test_bad_readouts_are_refused(
    written: Path, change: Callable[[Any], None], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        read_raw(edited(written, change))


def test_a_file_that_was_cut_short_is_refused(written: Path) -> None:
    written.write_bytes(written.read_bytes()[:3000])
    with pytest.raises(VolumeReadError, match="cut short"):
        read_raw(written)


def test_a_header_without_matrix_or_trajectory_is_refused(written: Path) -> None:
    text = header_text(Encoding((8, 10, 6), (1, 1, 1), (8, 10, 6), (1, 1, 1), "radial"), 3)
    with h5py.File(written, "r+") as file:
        file["dataset/xml"][0] = text
    with pytest.raises(VolumeReadError, match="radial and does not tell where"):
        read_ismrmrd(written)
    with pytest.raises(VolumeReadError, match="no matrix"):
        parse_header(text.replace("<x>8</x>", "<x>0</x>"), "scan")
    with pytest.raises(VolumeReadError, match="no XML"):
        parse_header("<a>", "scan")
    with pytest.raises(VolumeReadError, match="encodedSpace"):
        parse_header("<a/>", "scan")


def test_limits_say_where_the_middle_line_is() -> None:
    text = header_text(Encoding((8, 10, 6), (8, 10, 6), (8, 10, 6), (8, 10, 6)), 1)
    found = parse_header(text, "scan")
    assert found.centres == (5, 3)
    assert found.fov_mm == (8.0, 10.0, 6.0)


def test_without_a_field_of_view_the_place_is_unknown(written: Path) -> None:
    text = header_text(Encoding((8, 10, 6), (0, 0, 0), (8, 10, 6), (0, 0, 0)), 3)
    with h5py.File(written, "r+") as file:
        file["dataset/xml"][0] = text
    with pytest.warns(GeometryWarning, match="no field of view"):
        scan = read_raw(written)
    assert not scan.placed
    assert scan.spacing == (1.0, 1.0, 1.0)


def test_other_files_are_named(tmp_path: Path) -> None:
    other = tmp_path / "scan.txt"
    other.write_text("x")
    with pytest.raises(VolumeReadError, match="no raw data that is known"):
        read_raw(other)
    with pytest.raises(VolumeReadError, match="does not exist"):
        read_raw(tmp_path / "none.h5")
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(VolumeReadError, match="no group with xml and data"):
        read_raw(tmp_path / "empty.h5")


def test_without_h5py_the_extra_is_named(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtraError, match="raw"):
        read_raw(written)


def test_fastmri_slices_are_read_with_their_mask(rng: np.random.Generator, tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    kspace = (rng.normal(size=(3, 2, 16, 12)) + 1j).astype(np.complex64)
    lines = np.arange(12) % 3 == 0
    text = header_text(Encoding((16, 12, 1), (32, 18, 4), (8, 8, 1), (16, 12, 4)), 2)
    with h5py.File(path, "w") as file:
        file["kspace"], file["ismrmrd_header"], file["mask"] = kspace, text, lines
    scan = read_raw(path)
    assert scan.kspace.shape == (1, 3, 2, 16, 12, 1)
    np.testing.assert_array_equal(scan.kspace[0, :, :, :, 3, 0], kspace[..., 3])
    assert not scan.kspace[..., 4, 0].any()
    assert scan.image_shape == (8, 8, 3)
    assert scan.spacing == pytest.approx((2, 1.5, 4))
    assert not scan.placed
    with h5py.File(path, "r+") as file:
        del file["mask"]
        file["mask"] = lines[:5]
    with pytest.raises(VolumeReadError, match="mask has 5 lines"):
        read_raw(path)


def test_single_coil_fastmri_without_header(rng: np.random.Generator, tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = (rng.normal(size=(2, 8, 8)) + 1j).astype(np.complex64)
    assert read_raw(path).kspace.shape == (1, 2, 1, 8, 8, 1)
    with h5py.File(path, "w") as file:
        file["kspace"] = np.ones((8, 8))
    with pytest.raises(VolumeReadError, match="expected complex"):
        read_raw(path)


def test_bart_files_come_back(rng: np.random.Generator, tmp_path: Path) -> None:
    kspace = (rng.normal(size=(6, 5, 4, 2)) + 1j).astype(np.complex64)
    path = write_cfl(kspace, tmp_path / "k")
    np.testing.assert_array_equal(read_cfl(tmp_path / "k"), kspace)
    for name in (path, path.with_suffix(".hdr"), tmp_path / "k"):
        scan = read_raw(name)
        np.testing.assert_array_equal(scan.kspace[0, 0], np.moveaxis(kspace, 3, 0))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(VolumeReadError, match="cut short"):
        read_raw(path)


def test_other_dimensions_of_bart_are_refused(tmp_path: Path) -> None:
    write_cfl(np.ones((4, 4, 1, 1, 3), np.complex64), tmp_path / "k")
    with pytest.raises(VolumeReadError, match="bart slice"):
        read_raw(tmp_path / "k.cfl")
    (tmp_path / "k.hdr").write_text("nothing")
    with pytest.raises(VolumeReadError, match="no line of dimensions"):
        read_raw(tmp_path / "k.cfl")


def test_noise_of_a_scan_is_its_noise_readouts_or_all(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    scan = scan_of(rng)
    path = write_ismrmrd(scan, tmp_path / "a.h5")
    np.testing.assert_array_equal(read_noise(path), scan.noise)
    path = write_ismrmrd(replace(scan, noise=None), tmp_path / "b.h5")
    assert read_noise(path).shape == (3, 8 * 9 * 6)


# twixtools leaves a file that it cannot read open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_twix_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("twixtools")
    path = tmp_path / "meas.dat"
    path.write_bytes(b"\0" * 2000)
    with pytest.raises(VolumeReadError, match=r"twix|measurement"):
        read_raw(path)


def test_slices_are_stacked_by_their_places() -> None:
    normal = turned()[2]
    places = np.array([2.0, 0.0, 4.0])[:, None] * normal + 5
    assert stack_of(places, normal, 9, "scan") == ([1, 0, 2], pytest.approx(2))
    with pytest.raises(GeometryError, match="no evenly spaced stack"):
        stack_of(places * [[1], [1], [1.3]], normal, 9, "scan")


def test_the_middle_voxel_lies_at_the_position() -> None:
    affine = affine_of((3, -7, 11.5), turned(), (2, 1.5, 3), (4, 10, 6))
    np.testing.assert_allclose(affine @ [2, 5, 3, 1], [-3, 7, 11.5, 1])
    step = affine @ [3, 5, 3, 1] - affine @ [2, 5, 3, 1]
    np.testing.assert_allclose(step[:3], [-2, 0, 0])  # along +x of LPS, -x of RAS
    np.testing.assert_allclose(unplaced_affine((1, 2, 3), (4, 4, 5))[:3, 3], [-2, -4, -6])


def test_arrays_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    scan = scan_of(rng)
    with pytest.raises(ShapeError, match="mask of that shape"):
        replace(scan, mask=scan.mask[..., :3])
    with pytest.raises(VolumeReadError, match="no signal"):
        replace(scan, kspace=np.zeros_like(scan.kspace))
    assert "R 1.11" in scan.words


def test_a_readout_of_another_matrix_is_refused() -> None:
    line = Line(np.ones((1, 12), np.complex64), (0, 0), 6)
    with pytest.raises(VolumeReadError, match="does not fit"):
        gridded([line], (8, 4, 1), [0], "scan")
    short = Line(np.ones((2, 8), np.complex64), (0, 0), 4)
    with pytest.raises(VolumeReadError, match="1 and 2 coils"):
        gridded([Line(np.ones((1, 8), np.complex64), (0, 0), 4), short], (8, 4, 1), [0], "scan")


def test_the_ghost_of_epi_is_taken_off(rng: np.random.Generator) -> None:
    n = 32
    place = np.arange(n) - n // 2
    image = (np.abs(place) < 9) * (1 + 0.1 * rng.normal(size=n)) * np.exp(0.3j * place / n)

    def read(scale: complex, *, back: bool) -> Line:
        shift = 0.5 * (0.15 * place + 0.7) * (1 if back else -1)
        line = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(scale * image * np.exp(1j * shift))))
        return Line(line[None].astype(np.complex64), (0, 0), n // 2, reversed=back)

    navigators = [read(1, back=True), read(1, back=False), read(1, back=True)]
    forth, back = epi_corrected([read(2j, back=False), read(2j, back=True)], navigators)
    np.testing.assert_allclose(forth.data, back.data, atol=1e-3)
    assert np.abs(read(2j, back=False).data - read(2j, back=True).data).max() > 1
    alone = epi_corrected([forth], [])
    np.testing.assert_array_equal(alone[0].data, forth.data)
