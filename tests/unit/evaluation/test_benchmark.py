from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.errors import ConfigError
from medddpm.evaluation.benchmark import (
    BenchmarkOptions,
    bootstrap_interval,
    prepare_case,
    run_method,
)
from medddpm.evaluation.peers import PEERS
from medddpm.preprocess.degrade import add_noise
from medddpm.volume import Geometry, Volume
from medddpm.workflows.benchmarking import benchmark, scan_files, summarise

Head = Callable[..., NDArray[np.float32]]
QUICK = BenchmarkOptions(sigmas=(0.05, 0.1), methods=("identity", "shrinkage"))


@pytest.fixture
def scan(head: Head) -> Volume:
    x = head((40, 44, 36))
    return Volume(x, Geometry(x.shape, np.diag([1.0, 1.0, 1.2, 1.0])), case_id="head")


@pytest.fixture
def folder(scan: Volume, tmp_path: Path, save_nifti: Any) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a", "b"):
        save_nifti(data / f"{name}.nii.gz", scan.data, scan.affine)
    return data


def test_shrinkage_beats_the_noisy_scan_and_the_regions_are_there(scan: Volume) -> None:
    case = prepare_case(scan, None)
    noisy, shrunk = (run_method(case, 0.08, m, QUICK, None) for m in ("identity", "shrinkage"))
    assert noisy["psnr"] == pytest.approx(-20 * np.log10(0.08), abs=0.3)
    assert shrunk["psnr"] > noisy["psnr"] + 4
    for region in ("foreground", "dark", "middle", "bright", "edges"):
        assert f"psnr_{region}" in shrunk
        assert np.isfinite(shrunk[f"bias_{region}"])
    assert abs(shrunk["bias_middle"]) < 0.02


def test_the_classes_are_those_of_the_phantom(scan: Volume) -> None:
    """Three nested ellipsoids of 350, 700 and 950."""
    regions = prepare_case(scan, None).regions
    means = [float(scan.data[regions[name]].mean()) for name in ("dark", "middle", "bright")]
    assert means == pytest.approx([350, 700, 950], rel=0.12)


def test_a_crop_lies_where_it_was(scan: Volume) -> None:
    case = prepare_case(scan, (16, 20, 12))
    assert case.volume.data.shape == (16, 20, 12)
    start = np.linalg.inv(scan.affine) @ case.volume.affine[:, 3]
    x, y, z = (round(v) for v in start[:3])
    np.testing.assert_array_equal(case.volume.data, scan.data[x : x + 16, y : y + 20, z : z + 12])


def test_told_and_blind_sigma(scan: Volume) -> None:
    case = prepare_case(scan, None)
    oracle = BenchmarkOptions(methods=("shrinkage",), sigma_source="oracle")
    assert run_method(case, 0.05, "shrinkage", oracle, None)["sigma_told"] == pytest.approx(0.05)
    blind = run_method(case, 0.05, "shrinkage", QUICK, None)["sigma_told"]
    assert blind == pytest.approx(0.05, rel=0.2)
    assert blind != 0.05


def test_a_run_is_complete_and_goes_on(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[str] = []
    first = benchmark(folder, out, options=QUICK)
    assert len(first.rows) == 2 * 2 * 2
    assert {line["method"] for line in first.summary} == {"identity", "shrinkage"}
    kept = {p: p.stat().st_mtime_ns for p in (out / "rows").iterdir()}
    again = benchmark(folder, out, options=QUICK, on_row=lambda r: seen.append(r["method"]))
    assert again.rows == first.rows
    assert len(seen) == 8
    assert kept == {p: p.stat().st_mtime_ns for p in (out / "rows").iterdir()}
    with (out / "summary.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["gain"]) for line in lines if line["method"] == "identity"] == [0, 0]


def test_our_own_method_needs_and_uses_weights(
    folder: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    options = BenchmarkOptions(sigmas=(0.05,), methods=("identity", "mean"), crop=(32, 32, 32))
    done = benchmark(folder, tmp_path / "out", options=options, weights=tiny_weights, include="a*")
    assert [row["method"] for row in done.rows] == ["identity", "mean"]
    assert np.isfinite(done.rows[1]["psnr"])
    with pytest.raises(ConfigError, match="needs a model"):
        run_method(prepare_case(_volume(folder), None), 0.05, "mean", options, None)


def _volume(folder: Path) -> Volume:
    from medddpm.io import read_volume

    return read_volume(next(folder.iterdir()))


@pytest.mark.parametrize("name", ["identity", "shrinkage", "tv"])
@pytest.mark.parametrize("coils", [0, 1])
def test_methods_without_a_package_remove_noise_and_bias(name: str, coils: int) -> None:
    import torch

    x = np.full((24, 24, 24), 0.5, np.float32)
    generator = torch.Generator().manual_seed(0)
    kind: Any = "rician" if coils else "gaussian"
    y = add_noise(torch.from_numpy(x), 0.08, kind=kind, generator=generator).numpy()
    error = PEERS[name](y, 0.08, coils) - x
    if name != "identity":
        assert error.std() < 0.5 * (y - x).std()
        assert abs(error.mean()) < 0.004


def test_the_interval_covers_the_mean_and_is_paired() -> None:
    rng = np.random.default_rng(0)
    low, high = bootstrap_interval(list(1 + 0.1 * rng.standard_normal(30)))
    assert 0.9 < low < 1 < high < 1.1
    rows = [
        {
            "case": c,
            "sigma": 0.1,
            "method": m,
            "psnr": base + gain,
            "ssim": 1,
            "nrmse": 0,
            "hfen": 0,
            "bias_foreground": 0,
            "seconds": 1,
        }
        for c, base in (("a", 20.0), ("b", 30.0))
        for m, gain in (("x", 0.0), ("y", 1.0))
    ]
    line = summarise(rows)[1]
    assert (line["gain"], line["gain_low"], line["gain_high"]) == pytest.approx((1, 1, 1))


def test_bad_input(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown; choose from"):
        BenchmarkOptions(methods=("magic",))
    with pytest.raises(ConfigError, match="no NIfTI"):
        scan_files(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is called"):
        benchmark(folder, tmp_path / "out", options=QUICK, include="zzz")
    manifest = tmp_path / "m.csv"
    manifest.write_text("path\na.nii\n")
    with pytest.raises(ConfigError, match="no column 'file'"):
        scan_files(manifest)
    manifest.write_text("file\ndata/a.nii.gz\n")
    assert scan_files(manifest) == [folder / "a.nii.gz"]
    monkeypatch.setitem(__import__("sys").modules, "bm4d", None)
    with pytest.raises(ConfigError, match="medddpm\\[peers\\]"):
        PEERS["bm4d"](np.ones((8, 8, 8), np.float32), 0.1, 1)
    with pytest.raises(ConfigError, match="no case"):
        bootstrap_interval([])
