"""NIfTI and MGH in, NIfTI out."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medddpm.errors import (
    ConfigError,
    GeometryError,
    GeometryWarning,
    OutputError,
    VolumeReadError,
)
from medddpm.io import read_volume, write_volume
from medddpm.volume import Geometry, Volume

NIBABEL_DATA = Path(nib.__file__).parent / "tests" / "data"


@pytest.fixture
def data(rng: np.random.Generator) -> Any:
    return rng.integers(0, 1000, (5, 6, 7)).astype(np.int16)


def save(path: Path, data: Any, affine: Any, **change: Any) -> Path:
    image = nib.Nifti1Image(data, affine)
    image.set_qform(change.pop("qform", affine), code=change.pop("qcode", 1))
    image.set_sform(affine, code=change.pop("scode", 2))
    for name, value in change.items():
        image.header[name] = value
    nib.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img", ".hdr"])
def test_round_trip(suffix: str, data: Any, oblique_affine: Any, tmp_path: Path) -> None:
    source = save(tmp_path / "a.nii.gz", data, oblique_affine)
    volume = read_volume(source)
    path = write_volume(volume, tmp_path / f"b{suffix}")
    back = read_volume(path)
    assert np.array_equal(back.data, data)
    assert np.array_equal(back.affine, volume.affine)
    assert volume.case_id == "a"
    before, after = nib.load(source).header, nib.load(path).header
    for name in ("qform_code", "sform_code", "srow_x", "quatern_b", "qoffset_x"):
        assert np.array_equal(before[name], after[name])
    assert after.get_data_dtype() == np.float32
    assert after.get_xyzt_units()[0] == "mm"
    assert bytes(after["descrip"]).startswith(b"medddpm")
    names = {p.name for p in tmp_path.iterdir()} - {"a.nii.gz"}
    assert names == ({"b.img", "b.hdr"} if suffix in (".img", ".hdr") else {f"b{suffix}"})


def test_both_forms_stay_bit_for_bit(data: Any, oblique_affine: Any, tmp_path: Path) -> None:
    """The forms differ by less than the tolerance; neither is made from the other."""
    moved = oblique_affine.copy()
    moved[0, 3] += 0.002
    source = save(tmp_path / "a.nii", data, oblique_affine, qform=moved, qcode=1, scode=4)
    back = write_volume(read_volume(source), tmp_path / "b.nii")
    assert source.read_bytes()[252:328] == back.read_bytes()[252:328]


def test_slope_and_intercept(data: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", data, np.eye(4))
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([2, -5], np.float32).tobytes()
    path.write_bytes(content)
    volume = read_volume(path)
    assert np.array_equal(volume.data, data * 2.0 - 5)
    out = write_volume(volume, tmp_path / "b.nii").read_bytes()
    assert np.frombuffer(out[112:120], np.float32).tolist() == [1, 0]


def test_4d_keeps_its_time(data: Any, tmp_path: Path) -> None:
    film = np.stack([data, data + 1], -1)
    image = nib.Nifti1Image(film, np.eye(4))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.5
    nib.save(image, tmp_path / "a.nii")
    path = write_volume(read_volume(tmp_path / "a.nii"), tmp_path / "b.nii")
    header = nib.load(path).header
    assert header.get_data_shape() == film.shape
    assert header["pixdim"][4] == 2.5
    assert header.get_xyzt_units() == ("mm", "sec")


def save_in_unit(path: Path, data: Any, affine_mm: Any, unit: str, mm: float) -> Path:
    """The same place in space, in a header of another unit."""
    affine = np.array(affine_mm)
    affine[:3] /= mm
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=2)
    image.header.set_xyzt_units(unit, "msec")
    nib.save(image, path)
    return path


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1e3), ("micron", 1e-3), ("mm", 1.0)])
def test_units_are_mm_inside_and_stay_in_the_file(
    unit: str, mm: float, data: Any, oblique_affine: Any, tmp_path: Path
) -> None:
    source = save_in_unit(tmp_path / "a.nii", data, oblique_affine, unit, mm)
    volume = read_volume(source)
    assert np.allclose(volume.affine, oblique_affine, rtol=1e-6, atol=1e-5)
    assert np.allclose(volume.spacing, (1, 1.1, 1.3), rtol=1e-6)
    back = write_volume(volume, tmp_path / "b.nii")
    before, after = source.read_bytes(), back.read_bytes()
    assert before[252:328] == after[252:328]  # both forms and their codes
    assert before[76:92] == after[76:92]  # pixdim
    assert before[123] == after[123]  # xyzt_units
    assert np.array_equal(read_volume(back).affine, volume.affine)


@pytest.mark.parametrize("code", [0, 5])
def test_unknown_units_are_mm(code: int, data: Any, oblique_affine: Any, tmp_path: Path) -> None:
    """Nothing stated becomes mm in the output; a code that the standard lacks stays."""
    source = save(tmp_path / "a.nii", data, oblique_affine, xyzt_units=code)
    volume = read_volume(source)
    back = write_volume(volume, tmp_path / "b.nii")
    assert np.array_equal(volume.affine, nib.load(source).affine)
    assert int(nib.load(back).header["xyzt_units"]) == (code or 2)


def test_a_moved_grid_keeps_its_unit(data: Any, oblique_affine: Any, tmp_path: Path) -> None:
    volume = read_volume(save_in_unit(tmp_path / "a.nii", data, np.eye(4), "meter", 1e3))
    geometry = Geometry(volume.geometry.shape, oblique_affine)
    moved = Volume(volume.data, geometry, "nifti", native=volume.native)
    back = write_volume(moved, tmp_path / "b.nii")
    assert nib.load(back).header.get_xyzt_units() == ("meter", "msec")
    assert int(nib.load(back).header["qform_code"]) == 1
    assert np.allclose(read_volume(back).affine, oblique_affine, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("unit", ["meter", "micron"])
def test_a_unit_that_cannot_be_meant(unit: str, data: Any, tmp_path: Path) -> None:
    """The numbers are mm, as other tools take them whatever the header states."""
    path = save_in_unit(tmp_path / "a.nii", data, np.eye(4), unit, 1.0)
    with pytest.raises(GeometryError, match=f"the unit {unit}.*set_xyzt_units"):
        read_volume(path)


def test_trailing_axes_of_one(data: Any, tmp_path: Path) -> None:
    save(tmp_path / "a.nii", data[..., None, None], np.eye(4))
    assert read_volume(tmp_path / "a.nii").data.shape == data.shape


def test_mgz(tmp_path: Path, data: Any, oblique_affine: Any) -> None:
    film = np.stack([data, data + 1], -1)
    image = nib.freesurfer.MGHImage(film.astype(np.float32), oblique_affine.astype(np.float32))
    image.header.set_zooms((*image.header.get_zooms()[:3], 2000))
    nib.save(image, tmp_path / "a.mgz")
    volume = read_volume(tmp_path / "a.mgz")
    assert volume.format == "mgh"
    back = nib.load(write_volume(volume, tmp_path / "b.nii"))
    assert np.allclose(back.affine, image.affine, rtol=0, atol=1e-5)
    assert (int(back.header["qform_code"]), int(back.header["sform_code"])) == (1, 1)
    assert back.header["pixdim"][4] == 2.0
    assert np.array_equal(back.get_fdata(), film)


def test_nifti2(tmp_path: Path) -> None:
    volume = read_volume(NIBABEL_DATA / "example_nifti2.nii.gz")
    back = nib.load(write_volume(volume, tmp_path / "b.nii.gz"))
    assert isinstance(back, nib.Nifti2Image)
    assert np.array_equal(back.affine, volume.affine)


@pytest.mark.parametrize("name", ["anatomical.nii", "functional.nii", "example4d.nii.gz"])
def test_files_of_nibabel(name: str, tmp_path: Path) -> None:
    volume = read_volume(NIBABEL_DATA / name)
    back = read_volume(write_volume(volume, tmp_path / name))
    assert np.array_equal(back.affine, volume.affine)
    assert np.array_equal(back.affine, nib.load(NIBABEL_DATA / name).affine)
    assert np.array_equal(back.data, volume.data)


def test_moved_grid_gets_new_forms(data: Any, oblique_affine: Any, tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "a.nii", data, np.eye(4), qcode=1, scode=3))
    moved = Volume(
        volume.data, Geometry(volume.geometry.shape, oblique_affine), "nifti", native=volume.native
    )
    header = nib.load(write_volume(moved, tmp_path / "b.nii")).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 3)
    assert np.allclose(header.get_qform(), oblique_affine, atol=1e-5)


def test_sheared_grid_has_no_qform(data: Any, tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.3
    film = np.stack([data, data], -1)
    path = write_volume(Volume(film, Geometry(data.shape, affine)), tmp_path / "a.nii")
    assert int(nib.load(path).header["qform_code"]) == 0
    assert np.allclose(read_volume(path).affine, affine)


@pytest.mark.parametrize("trust", ["sform", "qform"])
def test_forms_disagree(trust: Any, data: Any, oblique_affine: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", data, np.eye(4), qform=oblique_affine, qcode=2)
    with pytest.raises(GeometryError, match="sform and qform disagree"):
        read_volume(path)
    volume = read_volume(path, trust=trust)
    expected = np.eye(4) if trust == "sform" else oblique_affine
    assert np.allclose(volume.affine, expected, atol=1e-5)
    written = write_volume(volume, tmp_path / "b.nii")
    assert np.allclose(read_volume(written, trust=trust).affine, volume.affine)
    assert written.read_bytes()[252:328] == path.read_bytes()[252:328]  # codes and both forms


@pytest.mark.parametrize(
    ("qcode", "scode", "taken"),
    [(1, 4, "q"), (1, 3, "q"), (1, 2, "q"), (2, 4, "q"), (2, 1, "s"), (4, 1, "s"), (1, 5, "q")],
)
def test_two_codes_are_two_spaces(
    qcode: int, scode: int, taken: str, data: Any, oblique_affine: Any, tmp_path: Path
) -> None:
    """NIfTI-1, methods 2 and 3: qform to the scanner, sform to a template; both are right."""
    template = np.diag([2.0, 2, 2, 1])
    path = save(tmp_path / "a.nii", data, template, qform=oblique_affine, qcode=qcode, scode=scode)
    volume = read_volume(path)
    assert np.allclose(volume.affine, oblique_affine if taken == "q" else template, atol=1e-5)
    written = write_volume(volume, tmp_path / "b.nii")
    assert written.read_bytes()[252:328] == path.read_bytes()[252:328]


def _with_bytes(path: Path, where: int, content: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[where : where + len(content)] = content
    path.write_bytes(whole)
    return path


NO_ROTATION = np.array([1, 1, 1], "<f4").tobytes()
NANS = np.full(3, np.nan, "<f4").tobytes()


@pytest.mark.parametrize("quaternion", [NO_ROTATION, NANS, np.full(3, 1e30, "<f4").tobytes()])
def test_a_bad_quaternion_beside_a_good_sform(
    quaternion: bytes, data: Any, oblique_affine: Any, tmp_path: Path
) -> None:
    path = _with_bytes(save(tmp_path / "a.nii", data, oblique_affine), 256, quaternion)
    with pytest.warns(GeometryWarning, match="its qform is no transform"):
        volume = read_volume(path)
    assert np.allclose(volume.affine, oblique_affine, atol=1e-5)
    back = nib.load(write_volume(volume, tmp_path / "b.nii"))
    assert int(back.header["qform_code"]) == 0
    assert np.allclose(read_volume(tmp_path / "b.nii").affine, volume.affine)
    with pytest.raises(GeometryError, match="no usable qform"), pytest.warns(GeometryWarning):
        read_volume(path, trust="qform")


def test_a_bad_sform_beside_a_good_quaternion(
    data: Any, oblique_affine: Any, tmp_path: Path
) -> None:
    for content in (bytes(48), np.full(12, np.nan, "<f4").tobytes()):
        path = _with_bytes(save(tmp_path / "a.nii", data, oblique_affine), 280, content)
        with pytest.warns(GeometryWarning, match="its sform is no transform"):
            assert np.allclose(read_volume(path).affine, oblique_affine, atol=1e-5)


def test_no_form_is_a_transform(data: Any, oblique_affine: Any, tmp_path: Path) -> None:
    path = _with_bytes(save(tmp_path / "a.nii", data, oblique_affine), 256, NO_ROTATION)
    _with_bytes(path, 280, bytes(48))
    with pytest.raises(GeometryError, match="its sform is no transform"):
        read_volume(path)
    path = save(tmp_path / "b.nii", data, oblique_affine, scode=0)
    with pytest.raises(VolumeReadError, match="be read"):
        read_volume(_with_bytes(path, 256, NO_ROTATION))


def test_singular_sform(data: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", data, np.eye(4), qcode=0)
    with pytest.raises(GeometryError, match="singular"):
        read_volume(_with_bytes(path, 280, bytes(16)))  # srow_x


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4, 4), np.nan, np.float32), "NaN"),
        (np.full((4, 4, 4), np.inf, np.float32), "infinite"),
        (np.zeros((4, 4, 4), np.float32), "all zeros"),
        (np.full((4, 4, 4), 7, np.int16), "constant"),
        (np.ones((4, 4, 1), np.int16), "one slice"),
        (np.ones((4, 4), np.int16), "one slice"),
        (np.ones((4, 4, 4, 2, 2), np.int16), "5 dimensions"),
        (np.ones((4, 4, 4), np.complex64), "complex"),
        (np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "RGB"),
    ],
)
def test_no_scan(values: Any, message: str, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(VolumeReadError, match=message):
        read_volume(tmp_path / "a.nii.gz")


def test_no_voxels(tmp_path: Path, data: Any) -> None:
    path = save(tmp_path / "a.nii", data, np.eye(4))
    content = bytearray(path.read_bytes())
    content[42:44] = bytes(2)  # dim[1]
    path.write_bytes(content)
    with pytest.raises(VolumeReadError, match="no voxels"):
        read_volume(path)


def test_missing_text_and_truncated(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(VolumeReadError, match="does not exist"):
        read_volume(tmp_path / "no.nii.gz")
    for name in ("a.nii", "a.nii.gz", "a.mgz", "a.img"):
        (tmp_path / name).write_text("this is no scan" * 30)
        with pytest.raises(VolumeReadError, match=name):
            read_volume(tmp_path / name)
    path = save(tmp_path / "b.nii.gz", rng.random((20, 20, 20)), np.eye(4))
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(VolumeReadError, match="cut short"):
        read_volume(path)
    raw = save(tmp_path / "c.nii", rng.random((20, 20, 20)), np.eye(4))
    short = tmp_path / "d.nii.gz"
    short.write_bytes(gzip.compress(raw.read_bytes()[:9000]))
    with pytest.raises(VolumeReadError, match="cut short"):
        read_volume(short)


def test_a_wrong_byte_in_gzip(tmp_path: Path, rng: np.random.Generator) -> None:
    """Wherever it is: nibabel stops before the checksum, and most of them only change voxels."""
    path = save(tmp_path / "a.nii.gz", rng.normal(500, 50, (24, 24, 20)), np.eye(4))
    whole = path.read_bytes()
    for place in np.linspace(400, len(whole) - 9, 8).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(VolumeReadError, match="cannot be read"):
            read_volume(path)


def test_a_folder_is_no_nifti(tmp_path: Path) -> None:
    from medddpm.io.nifti import read_nifti

    with pytest.raises(VolumeReadError, match="not a file"):
        read_nifti(tmp_path)


def test_analyze_is_refused() -> None:
    with pytest.raises(VolumeReadError, match="analyze"):
        read_volume(NIBABEL_DATA / "analyze.hdr")


def test_other_image_kinds_are_refused() -> None:
    with pytest.raises(VolumeReadError, match="Cifti2Image"):
        read_volume(NIBABEL_DATA / "row_major.dconn.nii")


def test_suffix_and_overwrite(phantom: Volume, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in"):
        write_volume(phantom, tmp_path / "a.mgz")
    write_volume(phantom, tmp_path / "a.nii")
    before = (tmp_path / "a.nii").read_bytes()
    with pytest.raises(OutputError, match="exists"):
        write_volume(phantom, tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes() == before
    write_volume(phantom, tmp_path / "a.nii", overwrite=True)
    assert (tmp_path / "a.nii").read_bytes() == before


def test_same_bytes(phantom: Volume, tmp_path: Path) -> None:
    a, b = (write_volume(phantom, tmp_path / n) for n in ("a.nii.gz", "b.nii.gz"))
    assert a.read_bytes() == b.read_bytes()
