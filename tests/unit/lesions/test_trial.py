"""Lesions in a phantom: what is planted, what is left, and what a run writes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.benchmark.degradation import NoiseModel
from medddpm.benchmark.measure import Case, prepare_case
from medddpm.benchmark.methods import parse_method
from medddpm.benchmark.options import BenchmarkOptions
from medddpm.data.scan_list import ScanList
from medddpm.errors import ConfigError
from medddpm.lesions.run import NAMES, lesion_test
from medddpm.lesions.summary import summarise_lesions
from medddpm.lesions.trial import (
    LesionOptions,
    Trial,
    lesion_image,
    measure_lesions,
    plant_lesions,
)
from medddpm.volume import Geometry, Volume

Head = Callable[..., NDArray[np.float32]]


@pytest.fixture
def scan(head: Head) -> Volume:
    x = head((48, 48, 44))
    return Volume(x, Geometry(x.shape, np.diag([1.0, 1.0, 1.2, 1.0])), case_id="head")


def _options(*methods: str, **changes: Any) -> LesionOptions:
    run = BenchmarkOptions(
        sigmas=(0.05,), methods=methods, noises=("white",), noise=NoiseModel("gaussian")
    )
    return LesionOptions(**{"run": run, "diameters": (3.0, 6.0), "count": 4} | changes)


def _trial(case: Case, options: LesionOptions, name: str) -> dict[str, Any]:
    trial = Trial(0, 0.05, parse_method(name), "oracle")
    return measure_lesions(case, plant_lesions(case, options, 0), trial, options, None)


def test_lesions_of_all_sizes_keep_clear_of_each_other(scan: Volume) -> None:
    options = _options("identity")
    planted = plant_lesions(prepare_case(scan, options.run), options, 0)
    assert [group.diameter for group in planted] == [6.0, 3.0]
    assert all(set(group.signs) == {1.0, -1.0} for group in planted)
    image = lesion_image(scan.data.shape, scan.spacing, planted)
    assert image.min() == -1
    assert image.max() == 1
    volumes = [len(g.places) * np.pi / 6 * g.diameter**3 for g in planted]
    assert np.abs(image).sum() * 1.2 == pytest.approx(sum(volumes), rel=0.04)


def test_draws_differ_and_are_the_same_again(scan: Volume) -> None:
    options = _options("identity")
    case = prepare_case(scan, options.run)
    first, again, other = (plant_lesions(case, options, draw)[0] for draw in (0, 0, 1))
    np.testing.assert_array_equal(first.places, again.places)
    assert not np.array_equal(first.places, other.places)


def test_the_noisy_scan_keeps_all_and_shrinkage_less_of_the_small(scan: Volume) -> None:
    options = _options("identity", "shrinkage")
    case = prepare_case(scan, options.run)
    noisy, shrunk = (_trial(case, options, name) for name in ("identity", "shrinkage"))
    assert noisy["psnr"] == pytest.approx(26.0, abs=0.2)
    assert shrunk["psnr"] > noisy["psnr"] + 3
    for row in noisy["lesions"]:
        assert row["contrast_kept"] == pytest.approx(1, abs=1e-3)
        assert row["volume_kept"] == pytest.approx(1, abs=0.1)
    kept = {
        size: np.mean([r["contrast_kept"] for r in shrunk["lesions"] if r["diameter"] == size])
        for size in (3.0, 6.0)
    }
    assert kept[3.0] < kept[6.0] < 1
    assert len(noisy["free"]["3"]) > 50


def test_summary_pairs_methods_and_bounds_what_it_says(scan: Volume) -> None:
    options = _options("identity", "shrinkage", contrasts=(0.1,))
    case = prepare_case(scan, options.run)
    cells = [_trial(case, options, name) for name in ("identity", "shrinkage")]
    lines = summarise_lesions(cells, {"head": "head"}, draws=60)
    assert len(lines) == 4
    for line in lines:
        for name in ("contrast_kept", "dprime_matched", "dprime_hotelling", "auc_hotelling"):
            assert line[f"{name}_low"] <= line[name] + 0.3 * abs(line[name])
            assert line[f"{name}_low"] <= line[f"{name}_high"]
    small = {line["method"]: line for line in lines if line["diameter"] == 3.0}
    ratio, low, high = small["shrinkage"]["over"]["identity (oracle)"]["contrast_kept"]
    assert ratio == pytest.approx(small["shrinkage"]["contrast_kept"], abs=0.01)
    assert low <= ratio <= high
    assert small["identity"]["contrast_kept"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"diameters": ()}, "diameters are"),
        ({"contrasts": (0.5,)}, "contrasts are"),
        ({"count": 1}, "2 lesions"),
        (
            {"run": BenchmarkOptions(noises=("white",), noise=NoiseModel(gfactor=True))},
            "even noise",
        ),
        ({"run": BenchmarkOptions()}, "white noise alone"),
    ],
)
def test_options_that_make_no_sense(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        _options("identity", **changes)


def test_no_room_is_said(scan: Volume) -> None:
    options = _options("identity", diameters=(30.0,))
    with pytest.raises(ConfigError, match="no room for two lesions of 30 mm"):
        plant_lesions(prepare_case(scan, options.run), options, 0)


def test_a_run_writes_its_tables_and_goes_on(
    scan: Volume, tmp_path: Path, save_nifti: Any, cli: Any
) -> None:
    path, out = save_nifti(tmp_path / "head.nii.gz", scan.data, scan.affine), tmp_path / "out"
    asked = ["lesions", path, "--out", out, "--sigma", 0.05, "--diameter", 3, "--diameter", 5]
    asked += ["--contrast", 0.1, "--count", 3, "--crop", "40,40,40", "--method", "identity"]
    first = cli(*asked)
    assert first.exit_code == 0, first.stderr
    [cell] = sorted((out / "cells").glob("*.json"))
    made = cell.stat().st_mtime_ns
    second = cli(*asked, "--method", "shrinkage")
    assert second.exit_code == 0, second.stderr
    assert cell.stat().st_mtime_ns == made
    assert len(list((out / "cells").glob("*.json"))) == 2
    assert all((out / name).stat().st_size for name in NAMES)
    with (out / "lesions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))["summary"]
    assert {line["method"] for line in summary} == {"identity", "shrinkage"}
    assert "shrinkage (blind)" in second.stdout


def test_our_own_method_runs(
    scan: Volume, tmp_path: Path, save_nifti: Any, tiny_weights: Path
) -> None:
    path = save_nifti(tmp_path / "head.nii.gz", scan.data, scan.affine)
    options = _options("mean", diameters=(4.0,), contrasts=(0.1,), count=2)
    done = lesion_test(ScanList(path), tmp_path / "out", options, weights=tiny_weights)
    assert len(done.cells) == 1
    assert done.summary[0]["lesions"] == 2
    assert np.isfinite(done.summary[0]["dprime_hotelling"])
