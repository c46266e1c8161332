from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.errors import ConfigError, GeometryError, ShapeError, VolumeReadError
from medddpm.io.complex_files import ComplexFiles
from medddpm.io.nifti import is_complex_nifti
from medddpm.io.phase_units import phase_units

SHAPE = (20, 24, 16)


@pytest.fixture
def image(rng: np.random.Generator) -> NDArray[np.complex64]:
    """A bright box with a phase of its own, in complex noise."""
    out = rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)
    out[5:15, 6:18, 4:12] += 30 * np.exp(1j * np.linspace(0, 5, 10))[:, None, None]
    return out.astype(np.complex64)


UNITS = {
    "radians": (lambda a: a, np.float32),
    "radians from 0 to 2 pi": (lambda a: a + np.pi, np.float32),
    "degrees": (lambda a: np.degrees(a), np.float32),
    "integers from -4096 to 4095": (lambda a: np.floor(a / np.pi * 4096), np.int16),
    "integers from 0 to 4095": (lambda a: np.floor((a + np.pi) / np.pi * 2048), np.int16),
    "thousandths of a radian": (lambda a: np.rint(1000 * a), np.int16),
}


@pytest.mark.parametrize("words", UNITS)
def test_the_units_of_a_phase_are_told_from_its_values(
    image: Any, words: str, tmp_path: Path, save_nifti: Any, oblique_affine: Any
) -> None:
    turn, kind = UNITS[words]
    scan = save_nifti(tmp_path / "m.nii.gz", np.abs(image), oblique_affine)
    values = turn(np.angle(image)).astype(kind)
    phase = save_nifti(tmp_path / "p.nii.gz", values, oblique_affine)
    files = ComplexFiles.of(scan, phase)
    assert files is not None
    read, found = files.read()
    assert found == words
    ratio = read.frame(0) / image
    assert np.abs(ratio - ratio.mean()).max() < 0.003
    assert abs(ratio.mean()) == pytest.approx(1, abs=1e-3)  # a constant phase does not matter
    assert files.facts(found, tmp_path).model_dump()["units"] == words


def test_real_and_imaginary_parts_and_complex_numbers_are_read_alike(
    image: Any, tmp_path: Path, save_nifti: Any, oblique_affine: Any
) -> None:
    real = save_nifti(tmp_path / "r.nii.gz", image.real.copy(), oblique_affine)
    other = save_nifti(tmp_path / "i.nii.gz", image.imag.copy(), oblique_affine)
    whole = save_nifti(tmp_path / "c.nii.gz", image.astype(np.complex128), oblique_affine)
    assert is_complex_nifti(whole)
    assert not is_complex_nifti(real)
    for files in (ComplexFiles.of(real, imaginary=other), ComplexFiles.of(whole)):
        assert files is not None
        read, units = files.read()
        np.testing.assert_array_equal(read.frame(0), image)
        np.testing.assert_allclose(read.real.affine, oblique_affine, atol=1e-6)
        assert units is None
    assert ComplexFiles.of(real) is None


def test_a_masked_head_in_radians_need_not_fill_the_circle() -> None:
    values = np.zeros(SHAPE)
    values[4:12] = np.linspace(-1.5, 1.4, 24)[:, None]
    assert phase_units(values, "p").words == "radians"


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(-1, 1, 1000),  # fractions of a half turn, or small angles: nobody can say
        np.linspace(0, 900, 1000),
        np.abs(np.random.default_rng(0).normal(0, 900, 5000)) + 1,  # a magnitude up to 4000
        np.linspace(-20, 20, 1000),  # unwrapped
        np.linspace(5, 6, 1000),
    ],
)
def test_what_is_no_phase_is_refused(values: Any) -> None:
    with pytest.raises(VolumeReadError, match="no phase that is known"):
        phase_units(values, "p.nii")


def test_what_does_not_belong_together_is_refused(
    image: Any, tmp_path: Path, save_nifti: Any, oblique_affine: Any
) -> None:
    def saved(name: str, data: Any, affine: Any = oblique_affine) -> Path:
        path: Path = save_nifti(tmp_path / name, data, affine)
        return path

    scan, phase = saved("m.nii.gz", np.abs(image)), saved("p.nii.gz", np.angle(image))
    whole = saved("c.nii.gz", image)
    with pytest.raises(ConfigError, match="give one"):
        ComplexFiles.of(scan, phase, phase)
    with pytest.raises(ConfigError, match="holds complex numbers"):
        ComplexFiles.of(whole, phase)
    with pytest.raises(ConfigError, match="no NIfTI file"):
        ComplexFiles.of(tmp_path, phase)
    with pytest.raises(VolumeReadError, match="negative values"):
        ComplexFiles(saved("r.nii.gz", image.real.copy()), phase).read()
    shift = np.eye(4)
    shift[0, 3] = 2
    moved = saved("moved.nii.gz", np.angle(image), shift @ oblique_affine)
    with pytest.raises(GeometryError, match="another grid"):
        ComplexFiles(scan, moved).read()
    film = saved("film.nii.gz", np.stack([np.angle(image)] * 2, -1))
    with pytest.raises(ShapeError, match="2; give one of each a frame"):
        ComplexFiles(scan, film).read()
    with pytest.raises(VolumeReadError, match="does not exist"):
        ComplexFiles(scan, tmp_path / "none.nii.gz").read()
    bad = image.copy()
    bad[0, 0, 0] = np.nan
    with pytest.raises(VolumeReadError, match="NaN"):
        ComplexFiles(saved("nan.nii.gz", bad)).read()
