"""A benchmark of scans of several frames."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.benchmark.measure import prepare_case, restore_case, run_method, spoil
from medddpm.benchmark.methods import parse_method
from medddpm.benchmark.options import BenchmarkOptions
from medddpm.benchmark.rows import prepare_run
from medddpm.benchmark.run import benchmark
from medddpm.benchmark.series import derived_scores, pooled
from medddpm.benchmark.series_peers import SERIES_PEERS
from medddpm.data.scan_list import ScanList
from medddpm.errors import ConfigError
from medddpm.io.gradients import Gradients
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.volume import Geometry, Volume

Image = NDArray[np.float32]
SHAPE, FRAMES = (18, 20, 14), 12
OPTIONS = BenchmarkOptions(sigmas=(0.05,), methods=("identity",), noises=("white",))


@pytest.fixture
def frames(head: Any) -> Image:
    """A tensor along x: two frames without weighting, then one direction each."""
    bvals, bvecs = table()
    x = head(SHAPE)
    decay = bvals * (0.4e-3 + 1.2e-3 * bvecs[:, 0] ** 2)
    out: Image = x[..., None] * np.exp(-decay).astype(np.float32)
    return out


@pytest.fixture
def series(frames: Image) -> Volume:
    return Volume(frames, Geometry(SHAPE, np.diag([2.0, 2, 2, 1])), case_id="dwi")


def table() -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(1)
    bvecs = rng.normal(size=(FRAMES, 3))
    bvecs /= np.linalg.norm(bvecs, axis=1, keepdims=True)
    bvecs[:2] = 0
    return np.array([0.0, 0, *[1000] * (FRAMES - 2)]), bvecs


def spoilt(series: Volume, options: BenchmarkOptions = OPTIONS, noise: Any = "white") -> Any:
    case = prepare_case(series, options, all_frames=True)
    return spoil(case, 0.05, noise, options)


@pytest.mark.parametrize("noise", ["white", "acquired"])
def test_every_frame_has_noise_of_its_own_and_a_score(series: Volume, noise: Any) -> None:
    options = BenchmarkOptions(sigmas=(0.05,), methods=("identity",), noises=(noise,))
    made = spoilt(series, options, noise)
    changes = made.noisy.data - made.case.volume.data
    one, two = (changes[..., i][made.case.regions["foreground"]] for i in (2, 3))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.2
    outcome = run_method(made, parse_method("identity"), "none", None)
    row = outcome.row
    assert len(row.frames) == FRAMES
    clean, inside = made.case.volume.data, made.case.regions["foreground"]
    scale = made.case.scale
    errors = (made.noisy.data - clean)[inside].astype(np.float64) / scale
    whole = -10 * np.log10(np.mean(errors**2))
    assert row.psnr == pytest.approx(whole, abs=0.01)
    assert outcome.restored.shape == SHAPE


def test_the_first_frame_alone_unless_all_are_asked_for(series: Volume) -> None:
    case = prepare_case(series, OPTIONS)
    assert case.volume.data.shape == SHAPE
    assert case.gradients is None


def test_a_method_for_images_gets_frame_by_frame(series: Volume) -> None:
    made = spoilt(series)
    method, law = parse_method("shrinkage"), made.law
    told: dict[str, Any] = {"told": True, "seed": 0}
    every = restore_case(made.noisy, made.case, law, method, None, **told).image
    one = made.noisy.with_data(made.noisy.frame(4))
    alone = restore_case(one, made.case.frame(4), law, method, None, **told).image
    np.testing.assert_array_equal(every[..., 4], alone)


def test_a_method_for_series_refuses_an_image(series: Volume) -> None:
    case = prepare_case(series, OPTIONS)
    made = spoil(case, 0.05, "white", OPTIONS)
    for name in ("mppca", "mean@frames=mppca"):
        with pytest.raises(ConfigError, match="takes all frames of a scan, and dwi has one"):
            run_method(made, parse_method(name), "none", None)


def test_pooled_scores_are_those_of_all_voxels() -> None:
    found = pooled([{"psnr": 20.0, "ssim": 0.5, "bias": 0.1}, {"psnr": 30.0, "ssim": 0.7}])
    assert found == {"psnr": pytest.approx(-10 * np.log10((0.01 + 0.001) / 2)), "ssim": 0.6}


def test_changes_that_are_halved_are_half_kept(frames: Image) -> None:
    inside = frames[..., 0] > 100
    halved = frames.mean(-1, keepdims=True) + 0.5 * (frames - frames.mean(-1, keepdims=True))
    scores = derived_scores(frames, halved, inside, None)
    assert scores["kept"] == pytest.approx(0.5, abs=1e-4)
    still = np.repeat(frames[..., :1], 6, axis=-1)
    rng = np.random.default_rng(0)
    noisy = still + rng.normal(0, 0.01, still.shape).astype(np.float32) * still
    scores = derived_scores(still, noisy, inside, None)
    assert "kept" not in scores
    assert scores["tsnr"] == pytest.approx(100, rel=0.25)


def test_errors_of_the_tensor(frames: Image) -> None:
    pytest.importorskip("dipy")
    inside = frames[..., 0] > 100
    gradients = Gradients(*table())
    exact = derived_scores(frames, frames, inside, gradients)
    assert exact["md_error"] < 1e-6
    assert exact["fa_error"] < 1e-6
    faster = frames * np.exp(-gradients.bvals * 0.1e-3).astype(np.float32)
    true_md = (0.4e-3 * 3 + 1.2e-3) / 3
    found = derived_scores(frames, faster, inside, gradients)
    assert found["md_error"] == pytest.approx(0.1e-3 / true_md, rel=0.01)
    assert "md_error" not in derived_scores(frames, frames, inside, Gradients(gradients.bvals))


@pytest.mark.parametrize("name", ["mppca", "patch2self"])
def test_a_peer_removes_noise_and_its_bias_where_asked(name: str, series: Volume) -> None:
    pytest.importorskip("dipy")
    if name == "patch2self":
        pytest.importorskip("sklearn")
    made = spoilt(series)
    inside, clean = made.case.regions["foreground"], made.case.volume.data
    y, law = made.noisy.data / made.case.scale, NoiseLaw("rician", 1, 0.05)
    gradients = Gradients(table()[0])
    plain, unbiased = (SERIES_PEERS[name + end](y, law, gradients) for end in ("", "-unbiased"))
    errors = [np.std((x - clean / made.case.scale)[inside]) for x in (y, plain)]
    assert errors[1] < (0.7 if name == "mppca" else 0.98) * errors[0]
    dark = inside & (clean[..., 2] < 0.25 * made.case.scale)
    lifts = [float((x - clean / made.case.scale)[dark].mean()) for x in (plain, unbiased)]
    assert abs(lifts[1]) < 0.7 * abs(lifts[0])


def test_patch2self_asks_for_b_values() -> None:
    with pytest.raises(ConfigError, match=r"\.bval file"):
        SERIES_PEERS["patch2self"](np.ones((4, 4, 4, 12), np.float32), NoiseLaw(), None)


def test_the_run_has_a_table_of_frames_and_knows_its_b_values(
    series: Volume, tmp_path: Path, save_nifti: Any
) -> None:
    (tmp_path / "in").mkdir()
    save_nifti(tmp_path / "in" / "dwi.nii.gz", series.data, series.affine)
    scans, out = ScanList(tmp_path / "in"), tmp_path / "out"
    done = benchmark(scans, out, prepare_run(OPTIONS))
    lines = list(csv.DictReader((out / "frames.csv").read_text().splitlines()))
    assert [line["frame"] for line in lines] == [str(i) for i in range(FRAMES)]
    assert "frames" not in (out / "rows.csv").read_text().splitlines()[0].split(",")
    assert float(lines[3]["psnr"]) == pytest.approx(done.rows[0].frames[3]["psnr"])
    assert "changes kept" in (out / "index.html").read_text()
    (tmp_path / "in" / "dwi.bval").write_text(" ".join(["0"] * FRAMES))
    benchmark(scans, out, prepare_run(OPTIONS))
    assert len(list((out / "rows").glob("*.json"))) == 2
