from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.benchmark.degradation import NoiseModel, degrade
from medddpm.benchmark.figures import (
    Planes,
    gain_charts,
    level_chart,
    montage,
    repeat_pictures,
    score_charts,
    steps_charts,
    without_steps,
)
from medddpm.benchmark.measure import prepare_case, run_method, spoil
from medddpm.benchmark.memory_meter import MemoryMeter
from medddpm.benchmark.methods import parse_method
from medddpm.benchmark.options import BenchmarkOptions
from medddpm.benchmark.page import benchmark_page
from medddpm.benchmark.peers import PEERS
from medddpm.benchmark.rows import prepare_run
from medddpm.benchmark.run import benchmark
from medddpm.data.scan_list import ScanList, scan_files
from medddpm.errors import ConfigError, GeometryError
from medddpm.metrics.bootstrap import bootstrap_interval, choose_reference, summarise
from medddpm.preprocess.acquisition import Acquisition
from medddpm.preprocess.degrade import add_noise
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Geometry, Volume

Head = Callable[..., NDArray[np.float32]]
# These tests are of white noise on the finished scan; test_benchmark_acquired.py has the rest.
WHITE: Any = {"noises": ("white",)}
QUICK = BenchmarkOptions(sigmas=(0.05, 0.1), methods=("identity", "shrinkage"), **WHITE)


def run(scan: Volume, name: str, sigma: float = 0.05, source: Any = "blind", **options: Any) -> Any:
    settings = BenchmarkOptions(**{"methods": (name,), **WHITE, **options})
    spoilt = spoil(prepare_case(scan, settings), sigma, "white", settings)
    return run_method(spoilt, parse_method(name), source, None)


def test_shrinkage_beats_the_noisy_scan_and_every_region_is_scored(scan: Volume) -> None:
    noisy, shrunk = (run(scan, name, 0.08).row.cells for name in ("identity", "shrinkage"))
    assert noisy["psnr"] == pytest.approx(-20 * np.log10(0.08), abs=0.3)
    assert shrunk["psnr"] > noisy["psnr"] + 4
    for region in ("dark", "middle", "bright", "edges", "whole"):
        for metric in ("psnr", "ssim", "bias", "nrmse", "hfen"):
            assert np.isfinite(shrunk[f"{metric}_{region}"])
    assert abs(shrunk["bias_middle"]) < 0.02


def test_the_classes_are_those_of_the_phantom(scan: Volume) -> None:
    """Three nested ellipsoids of 350, 700 and 950."""
    regions = prepare_case(scan, QUICK).regions
    means = [float(scan.data[regions[name]].mean()) for name in ("dark", "middle", "bright")]
    assert means == pytest.approx([350, 700, 950], rel=0.12)


def test_a_crop_lies_where_it_was(scan: Volume) -> None:
    case = prepare_case(scan, BenchmarkOptions(crop=(16, 20, 12)))
    assert case.volume.data.shape == (16, 20, 12)
    start = np.linalg.inv(scan.affine) @ case.volume.affine[:, 3]
    x, y, z = (round(v) for v in start[:3])
    np.testing.assert_array_equal(case.volume.data, scan.data[x : x + 16, y : y + 20, z : z + 12])


def test_told_and_blind_sigma(scan: Volume) -> None:
    told = run(scan, "shrinkage", source="oracle").row.sigma_told
    assert told == pytest.approx(0.05)
    blind = run(scan, "shrinkage", source="blind").row.sigma_told
    assert blind == pytest.approx(0.05, rel=0.2)
    assert blind != told
    assert parse_method("tv@oracle").label == "tv"
    assert parse_method("mean@noise_map=off").changes == {"noise_map": "off"}
    sources = BenchmarkOptions().sources
    assert sources(parse_method("mean@shifts=1,oracle"), "white") == ("oracle",)
    assert sources(parse_method("bm4d"), "white") == ("blind",)
    assert sources(parse_method("bm4d"), "acquired") == ("oracle",)
    assert sources(parse_method("bm4d@blind"), "acquired") == ("blind",)
    assert sources(parse_method("mean"), "ellipse") == ("blind",)
    both = BenchmarkOptions(sigma_source="both")
    assert both.sources(parse_method("mean"), "acquired") == ("oracle", "blind")
    assert both.sources(parse_method("identity"), "acquired") == ("none",)


def test_a_method_may_have_a_second_contrast() -> None:
    method = parse_method("mean@reference=a/t1w.nii.gz,shifts=1,reference_weights=own.safetensors")
    assert (method.reference, method.reference_weights) == ("a/t1w.nii.gz", "own.safetensors")
    assert method.changes == {"shifts": 1}
    assert "t1w" in method.label
    for wrong in ("vae@reference=a.nii.gz", "tv@reference=a.nii.gz"):
        with pytest.raises(ConfigError, match="take settings"):
            parse_method(wrong)


def test_noise_is_the_same_for_all_and_differs_between_scans(scan: Volume) -> None:
    one, two = (run(scan, name).noisy for name in ("identity", "shrinkage"))
    np.testing.assert_array_equal(one, two)
    other = degrade(Volume(scan.data, scan.geometry, case_id="other"), 50.0, NoiseModel())
    assert not np.array_equal(degrade(scan, 50.0, NoiseModel()).data, other.data)


@pytest.mark.parametrize("kind", ["rician", "gaussian", "ncchi"])
def test_correlated_noise_has_its_sigma_and_its_width(kind: Any) -> None:
    flat = np.full((48, 48, 48), 1000, np.float32)
    volume = Volume(flat, Geometry(flat.shape, np.eye(4)), case_id="flat")
    coils = 3 if kind == "ncchi" else 1
    error = degrade(volume, 20.0, NoiseModel(kind, coils, correlated=2.0)).data - flat
    assert error.std() == pytest.approx(20, rel=0.05)
    neighbours = np.corrcoef(error[1:].ravel(), error[:-1].ravel())[0, 1]
    spread = 2.0 / 2.3548
    assert neighbours == pytest.approx(np.exp(-1 / (4 * spread**2)), abs=0.03)


def test_a_gain_map_amplifies_where_it_says(scan: Volume) -> None:
    outcome = run(scan, "identity", noise=NoiseModel("gaussian", gfactor=True))
    error = np.abs(outcome.restored - scan.data)
    middle = ndimage.mean(error[18:22, 20:24, 16:20])
    assert middle / error[:3, :3, :3].mean() == pytest.approx(2.4, rel=0.3)


def test_a_run_is_complete_goes_on_and_shows_itself(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[str] = []
    first = benchmark(ScanList(folder), out, prepare_run(QUICK))
    assert len(first.rows) == 2 * 2 * 2
    assert {line["method"] for line in first.summary} == {"identity", "shrinkage"}
    kept = {p: p.stat().st_mtime_ns for p in (out / "rows").iterdir()}
    again = benchmark(
        ScanList(folder), out, prepare_run(QUICK), on_row=lambda r, *_: seen.append(r.method)
    )
    assert again.rows == first.rows
    assert len(seen) == 8
    assert kept == {p: p.stat().st_mtime_ns for p in (out / "rows").iterdir()}
    with (out / "summary.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["gain"]) for line in lines if line["method"] == "identity"] == [0, 0]
    facts = json.loads((out / "results.json").read_text())
    assert facts["scans"] == ["a", "b"]
    assert facts["machine"]["cores"]
    page = (out / "index.html").read_text()
    assert page.count("<svg ") == 4 + 1
    assert page.count("data:image/png;base64,") > 2 * 4  # pictures of a slice for each sigma
    assert "src=http" not in page


def test_our_own_methods_need_and_use_weights(
    folder: Path, tmp_path: Path, tiny_weights: Path, scan: Volume
) -> None:
    methods = ("identity", "vae", "mean", "mean@fidelity=0")
    options = BenchmarkOptions(sigmas=(0.05,), methods=methods, crop=(32, 32, 32), **WHITE)
    done = benchmark(
        ScanList(folder, "a*"), tmp_path / "out", prepare_run(options, weights=tiny_weights)
    )
    assert [row.method for row in done.rows] == list(methods)
    scores = [row.psnr for row in done.rows]
    assert np.isfinite(scores).all()
    assert len(set(scores)) == len(scores)
    with pytest.raises(ConfigError, match="needs a model"):
        run(scan, "mean")


def test_the_round_trip_is_that_of_the_codec(scan: Volume, tiny_weights: Path) -> None:
    import torch

    from medddpm.benchmark.methods import round_trip

    restorer = Restorer.from_pretrained(tiny_weights, "cpu")
    x = np.ascontiguousarray(scan.data[4:36, 4:36, 2:34]) / 1000
    with torch.inference_mode():
        tile = torch.from_numpy(x)[None, None]
        wanted = restorer.model.codec.decode(restorer.model.codec.encode(tile))[0, 0].numpy()
    np.testing.assert_allclose(round_trip(restorer, x), wanted, atol=2e-2)


@pytest.mark.parametrize("name", ["identity", "shrinkage", "tv"])
@pytest.mark.parametrize("coils", [0, 1])
def test_methods_without_a_package_remove_noise_and_bias(name: str, coils: int) -> None:
    import torch

    x = np.full((24, 24, 24), 0.5, np.float32)
    generator = torch.Generator().manual_seed(0)
    kind: Any = "rician" if coils else "gaussian"
    y = add_noise(torch.from_numpy(x), 0.08, law=NoiseLaw(kind), generator=generator).numpy()
    error = PEERS[name](y, NoiseLaw(kind, 1, 0.08)) - x
    if name != "identity":
        assert error.std() < 0.6 * (y - x).std()
        assert abs(error.mean()) < 0.004


@pytest.mark.parametrize("shape", [(24, 21, 3), (24, 24, 1), (20, 5, 4)])
def test_the_base_takes_thin_scans(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    y = NoiseLaw("gaussian", sigma=0.08).added_to(np.full(shape, 0.5, np.float32), rng)
    found = PEERS["shrinkage"](y, NoiseLaw("gaussian", 1, 0.08))
    assert found.shape == shape
    assert (found - 0.5).std() < 0.8 * (y - 0.5).std()


def test_the_interval_covers_the_mean_and_is_paired() -> None:
    rng = np.random.default_rng(0)
    low, high = bootstrap_interval(list(1 + 0.1 * rng.standard_normal(30)))
    assert 0.9 < low < 1 < high < 1.1
    rows = [
        {
            "case": case,
            "noise": "white",
            "sigma": 0.1,
            "method": name,
            "sigma_source": "none",
            "psnr": base + gain,
            "ssim": 1,
        }
        for case, base in (("a", 20.0), ("b", 30.0))
        for name, gain in (("x", 0.0), ("y", 1.0))
    ]
    line = summarise(rows, "x")[1]
    assert (line["gain"], line["gain_low"], line["gain_high"]) == pytest.approx((1, 1, 1))
    assert line["psnr"] == pytest.approx(26)


def test_the_reference_is_the_strongest_that_ran() -> None:
    assert choose_reference(("mean", "identity", "bm4d")) == "bm4d"
    assert choose_reference(("mean", "tv")) == "mean"
    assert choose_reference(("mean", "tv"), "tv") == "tv"
    with pytest.raises(ConfigError, match="none of the methods"):
        choose_reference(("mean",), "tv")


def test_pictures_and_charts_of_a_benchmark_name_its_methods() -> None:
    name = "mean@weights=" + "/a/long/folder" * 12 + "/model.safetensors"
    planes = Planes(*(np.full((24, 24), value, np.float32) for value in (0.5, 0.6, 0.5)), 1.0)
    shown = montage({name: planes, "identity": planes}, 0.05)
    assert shown.count("<img ") == 4 + 3  # noisy, two methods, truth; three errors
    assert "model.safetensors</figcaption>" in shown
    assert repeat_pictures({name: planes, "identity": planes}, 0.05).count("<img ") == 2 * 4
    level = {"sigma_true": 0.05, "sigma_own": 0.0, "sigma_told": 0.05, "sigma_error": 0.1}
    line = {"noise": "white", "sigma": 0.05, "method": name, "sigma_source": "blind"}
    assert level_chart([line | level]).count("<circle") == 1


def test_of_one_scan_there_is_no_interval() -> None:
    line: dict[str, Any] = {"noise": "white", "method": "a", "sigma_source": "none", "psnr": 30.0}
    line |= {"ssim": 0.9, "gain": 1.0, "gain_low": 0.9, "gain_high": 1.1, "seconds": 1.0}
    line |= {"gain_over": "identity", "sigma": 0.05}
    bars = []
    for scans in (1, 2):
        gain, _ = gain_charts([line | {"scans": scans}])
        assert f"n = {scans}" in gain
        bars.append(gain.count("<path d="))
        page = benchmark_page([line | {"scans": scans}], {}, {})
        assert ("(+0.90 to +1.10)" in page) == (scans == 2)
    assert bars == [0, 1]
    assert len(score_charts([line | {"scans": 1}])) == 2


def test_methods_that_differ_in_steps_alone_are_one_curve() -> None:
    assert without_steps("mean") == ("mean", None)
    assert without_steps("sample@start=3,steps=4,weights=a") == ("sample@start=3,weights=a", 4)
    methods = ("mean", "sample@steps=4", "sample@steps=1", "sample@weights=w,steps=1")
    lines: list[dict[str, Any]] = [
        {"noise": "white", "sigma": sigma, "method": method, "psnr": 30.0 + sigma}
        for method in methods
        for sigma in (0.05, 0.09)
    ]
    (drawn,) = steps_charts(lines)  # none of them has a power
    assert drawn.count("sample, sigma") == 2
    assert "weights" not in drawn  # one point is no curve
    both = steps_charts([line | {"power_high": 0.9} for line in lines])
    assert len(both) == 2
    assert steps_charts([line for line in lines if line["method"] == "mean"]) == []


def test_the_memory_of_a_block_is_seen() -> None:
    with MemoryMeter() as memory:
        block = np.ones(30_000_000, np.float32)
    assert memory.peak_gb == pytest.approx(block.nbytes / 1e9, rel=0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("magic", "unknown; choose from"),
        ("tv@weight=3", "only mean, sample, ensemble"),
        ("mean@fidelity", "no setting such as"),
        ("mean@sigma=3", "no setting such as"),
        ("mean@fidelity=7", "fidelity"),
        ("mean@sharpness=7", "sharpness"),
    ],
)
def test_bad_methods(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_method(text)


@pytest.mark.parametrize(
    "options",
    [
        {"sigmas": ()},
        {"sigmas": (0.0,)},
        {"crop": (4, 40, 40)},
        {"methods": ()},
        {"noises": ()},
        {"noises": ("white", "white")},
        {"noise": NoiseModel("gaussian")},  # white noise that nobody asked for
        {"noise": NoiseModel(gfactor=True), "noises": ("ellipse",)},
        {"acquisition": Acquisition(0.0), "noises": ("white",)},
    ],
)
def test_bad_options(options: Any) -> None:
    with pytest.raises(ConfigError):
        BenchmarkOptions(**options)


def test_bad_scans_and_maps(
    folder: Path, tmp_path: Path, save_nifti: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="no NIfTI"):
        scan_files(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is called"):
        benchmark(ScanList(folder, "zzz"), tmp_path / "out", prepare_run(QUICK))
    manifest = tmp_path / "m.csv"
    manifest.write_text("path\na.nii\n")
    with pytest.raises(ConfigError, match="no column file"):
        scan_files(manifest)
    manifest.write_text("file\ndata/a.nii.gz\n")
    assert ScanList(manifest).files() == [folder / "a.nii.gz"]
    manifest.write_text("file\ndata/c.nii.gz\n")
    with pytest.raises(ConfigError, match="does not exist"):
        scan_files(manifest)
    gmap = tmp_path / "g.nii.gz"
    save_nifti(gmap, np.arange(125, dtype=np.float32).reshape(5, 5, 5), np.eye(4))
    with pytest.raises(GeometryError):
        benchmark(ScanList(folder), tmp_path / "out", prepare_run(QUICK, gmap))
    monkeypatch.setitem(sys.modules, "bm4d", None)
    with pytest.raises(ConfigError, match="bm4d is not installed"):
        PEERS["bm4d"](np.ones((8, 8, 8), np.float32), NoiseLaw("rician", 1, 0.1))
    with pytest.raises(ConfigError, match="no case"):
        bootstrap_interval([])
