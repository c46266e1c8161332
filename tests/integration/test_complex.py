"""A scan with its phase, from file to file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.io import read_volume

Cli = Callable[..., Any]
SIGMA = 60.0


@pytest.fixture
def phantom_shape() -> tuple[int, int, int]:
    return (40, 44, 36)


@pytest.fixture
def image(phantom: Any, rng: np.random.Generator) -> NDArray[np.complex64]:
    """The oblique head with a smooth phase and complex noise."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in phantom.data.shape), indexing="ij")
    whole = phantom.data * np.exp(1j * (2 * x + y - z * z))
    noise = rng.normal(0, SIGMA, (2, *whole.shape))
    return np.asarray(whole + noise[0] + 1j * noise[1], np.complex64)


@pytest.fixture
def files(image: Any, tmp_path: Path, save_nifti: Any, oblique_affine: Any) -> dict[str, Path]:
    """The scan as scanners and researchers store it."""
    parts = {
        "sub-01_part-mag_T2starw": np.rint(np.abs(image)).astype(np.int16),
        "sub-01_part-phase_T2starw": np.floor(np.angle(image) / np.pi * 4096).astype(np.int16),
        "real": image.real.copy(),
        "imag": image.imag.copy(),
        "whole": image,
    }
    folder = tmp_path / "in"
    folder.mkdir()
    return {
        name: save_nifti(folder / f"{name}.nii.gz", data, oblique_affine)
        for name, data in parts.items()
    }


def read(path: Path) -> NDArray[np.float64]:
    return np.asarray(nib.load(path).dataobj, np.float64)  # type: ignore[attr-defined]


def test_magnitude_and_phase_become_both_and_are_restored_again(
    cli: Cli, files: Any, image: Any, phantom: Any, tmp_path: Path, tiny_weights: Path
) -> None:
    mag, phase = files["sub-01_part-mag_T2starw"], files["sub-01_part-phase_T2starw"]
    out = tmp_path / "out"
    done = cli("restore", mag, f"{out}/", "--phase", phase, "--weights", tiny_weights, "--report")
    assert done.exit_code in (0, 6), done.stderr
    assert "its phase (integers from -4096 to 4095)" in done.stderr
    stem = "sub-01_part-mag_T2starw_desc-denoised"
    restored, turned = out / f"{stem}.nii.gz", out / f"{stem}_part-phase.nii.gz"
    np.testing.assert_allclose(read_volume(restored).affine, phantom.affine, atol=1e-5)
    left = np.angle(np.exp(1j * (read(turned) - np.angle(image))))
    assert np.sqrt(np.mean(left[phantom.data > 600] ** 2)) < 0.2
    facts = json.loads((out / f"{stem}.json").read_text())
    assert facts["options"]["noise"] == "gaussian"
    assert facts["frames"][0]["sigma"]["sigma"] == pytest.approx(SIGMA, rel=0.08)
    assert facts["input"]["path"] == "../in/sub-01_part-mag_T2starw.nii.gz"
    assert facts["input"]["phase"]["units"] == "integers from -4096 to 4095"
    assert facts["input"]["phase"]["file"]["path"] == "../in/sub-01_part-phase_T2starw.nii.gz"
    assert facts["output"]["maps"] == {"part-phase": turned.name}
    assert (out / f"{stem}.html").is_file()

    again = cli("replay", out / f"{stem}.json")
    assert again.exit_code == 0, again.stdout
    assert "the same bytes" in again.stdout
    assert cli("report", out, "--out", tmp_path / "pages").exit_code == 0
    moved = tmp_path / "moved"
    shutil.move(mag.parent, moved)
    gone = cli("replay", out / f"{stem}.json")
    assert (gone.exit_code, "--source" in gone.stderr) == (3, True)
    assert cli("replay", out / f"{stem}.json", "--source", moved / mag.name).exit_code == 0
    (moved / phase.name).rename(moved / "elsewhere.nii.gz")
    gone = cli("replay", out / f"{stem}.json", "--source", moved / mag.name)
    assert (gone.exit_code, "is gone" in gone.stderr) == (3, True)
    shutil.copy(moved / "imag.nii.gz", moved / phase.name)
    changed = cli("replay", out / f"{stem}.json", "--source", moved / mag.name)
    assert (changed.exit_code, "has changed" in changed.stderr) == (3, True)


def test_real_and_imaginary_parts_and_complex_numbers_give_the_same(
    cli: Cli, files: Any, tmp_path: Path, tiny_weights: Path
) -> None:
    how = ("--weights", tiny_weights, "--mode", "ensemble", "--samples", 2, "--steps", 1)
    pair, whole = tmp_path / "pair.nii.gz", tmp_path / "whole.nii.gz"
    for source, out, more in (
        (files["real"], pair, ("--imaginary", files["imag"])),
        (files["whole"], whole, ()),
    ):
        done = cli("restore", source, out, *more, *how)
        assert done.exit_code in (0, 6), done.stderr
        assert cli("replay", str(out).replace(".nii.gz", ".json")).exit_code == 0
    for part in ("", "_part-phase", "_std", "_lower", "_upper"):
        found = [read(tmp_path / f"{name}{part}.nii.gz") for name in ("pair", "whole")]
        assert np.isfinite(found[0]).all()
        # the seed is of the scan's name, so samples differ, by far less than the scan
        assert np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1] > 0.5
    facts = json.loads((tmp_path / "whole.json").read_text())
    assert facts["input"]["phase"] == {"given_as": "complex"}


def test_what_is_wrong_ends_with_one_sentence(
    cli: Cli,
    files: Any,
    tmp_path: Path,
    save_nifti: Any,
    oblique_affine: Any,
    tiny_weights: Path,
) -> None:
    mag, phase = files["sub-01_part-mag_T2starw"], files["sub-01_part-phase_T2starw"]
    small = save_nifti(tmp_path / "s.nii.gz", read(phase)[:-4].astype(np.int16), oblique_affine)
    out = tmp_path / "out.nii.gz"
    for code, words, arguments in [
        (4, "another grid", (mag, "--phase", small)),
        (3, "no phase that is known", (mag, "--phase", files["real"])),
        (3, "does not exist", (mag, "--phase", tmp_path / "none.nii.gz")),
        (3, "goes with --imaginary", (files["real"], "--phase", phase)),
        (2, "give one", (mag, "--phase", phase, "--imaginary", phase)),
        (2, "give it alone", (files["whole"], "--phase", phase)),
        (2, "no NIfTI file", (mag.parent, "--phase", phase)),
        (2, "law of a magnitude", (mag, "--phase", phase, "--noise", "rician")),
        (2, "--format dicom", (mag, "--phase", phase, "--format", "dicom")),
    ]:
        source, *more = arguments
        done = cli("restore", source, out, *more, "--weights", tiny_weights)
        assert (done.exit_code, words in done.stderr) == (code, True), (arguments, done.stderr)
        assert done.stderr.strip().count("\n") == 0, done.stderr
        assert not out.exists()
    done = cli("restore", mag, phase, "--phase", phase, "--overwrite", "--weights", tiny_weights)
    assert (done.exit_code, "inputs are never replaced" in done.stderr) == (5, True)
