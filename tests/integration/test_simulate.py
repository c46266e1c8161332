"""`medddpm simulate` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medddpm.preprocess.intensity import intensity_scale
from medddpm.volume import Volume
from medddpm.workflows import simulate

EVEN = ("acquisition.acceleration=1", "acquisition.normalised=0")


def sets(*texts: str) -> list[str]:
    return [word for text in texts for word in ("--set", text)]


def voxels(path: Path) -> Any:
    return nib.nifti1.load(path).get_fdata(dtype=np.float32)


def test_a_scan_is_acquired_and_its_sidecar_makes_it_again(
    cli: Any, clean_nifti: Path, phantom: Volume, tmp_path: Path
) -> None:
    noisy = tmp_path / "n.nii.gz"
    fixed = sets("acquisition.matrix=0.6,0.6,0.9", "acquisition.elliptical=0,1,2", *EVEN)
    fixed += sets("acquisition.rotation=0,0,0", "acquisition.kind=gaussian", "acquisition.bits=0")
    fixed += sets("acquisition.masked=false")
    done = cli("simulate", clean_nifti, noisy, "--sigma", 0.05, "--seed", 4, *fixed)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.split() == [str(noisy), str(tmp_path / "n_clean.nii.gz")]
    assert "60 x 60 x 90 %" in done.stderr
    assert not (tmp_path / "n_sigma.nii.gz").exists()
    told = json.loads((tmp_path / "n.json").read_text())
    assert told["acquisition"]["matrix"] == [0.6, 0.6, 0.9]
    assert told["noise"]["colour"]["edge"] == [0.6, 0.6, 0.9]
    assert told["noise"]["sigma"] == pytest.approx(0.05 * intensity_scale(phantom.data))
    error = voxels(noisy) - voxels(tmp_path / "n_clean.nii.gz")
    assert error.std() == pytest.approx(told["noise"]["sigma"], rel=0.05)
    power = np.abs(np.fft.fftn(error)) ** 2
    f = [
        2 * np.abs(np.fft.fftfreq(n)) / e for n, e in zip(error.shape, (0.6, 0.6, 0.9), strict=True)
    ]
    radius = sum(np.meshgrid(*(a**2 for a in f), indexing="ij"))
    assert power[radius > 1.001].max() < 1e-6 * power[radius < 0.9].mean()
    nib_noisy, nib_clean = (nib.nifti1.load(p) for p in (noisy, clean_nifti))
    np.testing.assert_allclose(nib_noisy.affine, nib_clean.affine, atol=1e-5)

    again = tmp_path / "again.nii.gz"
    same = ("--acquisition", tmp_path / "n.json", "--sigma", 0.05, "--seed", 4)
    assert cli("simulate", clean_nifti, again, *same).exit_code == 0
    np.testing.assert_array_equal(voxels(again), voxels(noisy))
    assert json.loads((tmp_path / "again.json").read_text())["noise"] == told["noise"]


def test_noise_that_varies_is_written_voxel_by_voxel(
    cli: Any, clean_nifti: Path, tmp_path: Path
) -> None:
    noisy = tmp_path / "n.nii.gz"
    fixed = sets("acquisition.acceleration=2", "acquisition.coils=16", "acquisition.kind=gaussian")
    fixed += sets("acquisition.rotation=0,0,0", "acquisition.bits=0", "acquisition.masked=false")
    done = cli("simulate", clean_nifti, noisy, "--sigma", 0.05, *fixed)
    assert done.exit_code == 0, done.stderr
    sigma = voxels(tmp_path / "n_sigma.nii.gz")
    error = voxels(noisy) - voxels(tmp_path / "n_clean.nii.gz")
    assert sigma.std() > 0
    assert (error / sigma).std() == pytest.approx(1, rel=0.05)
    refused = cli("simulate", clean_nifti, noisy, "--sigma", 0.05, *fixed)
    assert refused.exit_code == 5


@pytest.mark.parametrize("part", ["_clean", "_sigma"])
def test_no_part_of_another_result_is_replaced(
    part: str, cli: Any, clean_nifti: Path, tmp_path: Path
) -> None:
    there = tmp_path / f"n{part}.nii.gz"
    there.write_bytes(b"mine")
    words = ("simulate", clean_nifti, tmp_path / "n.nii.gz", "--sigma", 0.05)
    done = cli(*words, *sets("acquisition.normalised=0.3"))
    assert done.exit_code == 5
    assert there.read_bytes() == b"mine"
    assert not (tmp_path / "n.nii.gz").exists()


def test_frame_by_frame(save_nifti: Any, phantom: Volume, tmp_path: Path, cli: Any) -> None:
    pair = np.stack([phantom.data, phantom.data], axis=-1)
    source = save_nifti(tmp_path / "pair.nii.gz", pair, phantom.affine)
    done = cli(
        *("simulate", source, tmp_path / "out", "--sigma", 0.05),
        *sets("acquisition.normalised=0.3"),
    )
    assert done.exit_code == 0, done.stderr
    stem = tmp_path / "out" / "pair_desc-noisy"
    noisy, clean = voxels(Path(f"{stem}.nii.gz")), voxels(Path(f"{stem}_clean.nii.gz"))
    assert noisy.shape == clean.shape == pair.shape
    assert voxels(Path(f"{stem}_sigma.nii.gz")).shape == phantom.data.shape
    np.testing.assert_array_equal(clean[..., 0], clean[..., 1])
    assert not np.array_equal(noisy[..., 0], noisy[..., 1])


def test_white_noise_as_before(
    cli: Any, clean_nifti: Path, phantom: Volume, tmp_path: Path
) -> None:
    from medddpm.preprocess.degrade import simulate as add_white

    for name in ("white", "rician"):
        noisy = tmp_path / f"{name}.nii.gz"
        done = cli("simulate", clean_nifti, noisy, "--sigma", 0.05, "--noise", name, "--seed", 2)
        assert done.exit_code == 0, done.stderr
        assert sorted(p.name for p in tmp_path.glob(f"{name}*")) == [f"{name}.json", noisy.name]
        from medddpm.io import read_volume

        wanted = add_white(read_volume(clean_nifti), 0.05, seed=2)
        np.testing.assert_array_equal(voxels(noisy), wanted.data)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--coils", 4), "acquisition.coils=4"),
        (("--set", "matrix=0.6,0.6,0.9"), "acquisition.FIELD=VALUE"),
        (("--set", "acquisition.matrix"), "acquisition.FIELD=VALUE"),
        (("--set", "acquisition.matrix=[0.6"), "not readable"),
        (("--set", "acquisition.matrix=0.6,0.6,2"), "lies in"),
        (("--set", "acquisition.sharpness=2"), "sharpness is no field"),
        (("--set", "acquisition.sigma=2"), "--sigma"),
        (("--noise", "white", "--set", "acquisition.blur=1"), "no acquisition"),
        (("--noise", "ellipse", "--acquisition", "x.json"), "exclude each other"),
        (("--acquisition", "nowhere.json"), "nowhere.json cannot be read"),
        (("--gmap", "g.nii.gz"), "--noise white"),
    ],
)
def test_what_cannot_be_simulated(
    words: tuple[Any, ...], says: str, cli: Any, clean_nifti: Path, tmp_path: Path
) -> None:
    done = cli("simulate", clean_nifti, tmp_path / "n.nii.gz", "--sigma", 0.05, *words)
    assert done.exit_code == 2
    assert says in done.stderr
    assert not (tmp_path / "n.nii.gz").exists()


@pytest.mark.parametrize("content", ["[1, 2]", '"x"', '{"acquisition": null}', "{"])
def test_a_file_without_an_acquisition(
    content: str, cli: Any, clean_nifti: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(content)
    done = cli(
        *("simulate", clean_nifti, tmp_path / "n.nii.gz", "--sigma", 0.05),
        *("--acquisition", tmp_path / "a.json"),
    )
    assert done.exit_code == 2
    assert "a.json" in done.stderr


def test_from_python(clean_nifti: Path, tmp_path: Path) -> None:
    made = simulate(clean_nifti, tmp_path / "out", 0.05, seed=1)
    assert made.noisy.is_file()
    assert made.clean.name == f"{made.noisy.name.removesuffix('.nii.gz')}_clean.nii.gz"
    assert (made.sigma is not None) == ("normalised" in made.words or "accelerated" in made.words)
