"""Bright lesions of a scan: found by size and place, and measured against their shell."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.benchmark.measure import prepare_case
from medddpm.benchmark.options import BenchmarkOptions
from medddpm.errors import ConfigError
from medddpm.lesions.planted import lesion_profile
from medddpm.lesions.real import (
    find_lesions,
    lesion_contrast,
    lesion_rows,
    lesion_volume,
)
from medddpm.lesions.real_trial import find_own_lesions, summarise_own_lesions
from medddpm.lesions.trial import LesionOptions
from medddpm.volume import Geometry, Volume

SPACING = (1.0, 1.0, 1.5)
SHAPE = (64, 60, 44)


@pytest.fixture
def head_with_lesions(rng: np.random.Generator) -> NDArray[np.float32]:
    """An ellipsoid of 0.6 with 2 % texture; 6 and 5 mm lesions deep in it, one at its surface."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.9
    image = np.where(inside, 0.6 + 0.02 * rng.normal(size=SHAPE), 0.0)
    for place, size in (((32, 30, 22), 6.0), ((40, 30, 22), 5.0), ((32, 30, 41), 6.0)):
        image += 0.3 * lesion_profile(SHAPE, place, size, SPACING)
    image += 0.3 * lesion_profile(SHAPE, (26, 30, 22), 2.0, SPACING)  # too small to count
    return image.astype(np.float32)


def test_deep_lesions_of_their_size_are_found(head_with_lesions: NDArray[np.float32]) -> None:
    inside = head_with_lesions > 0.3
    found = find_lesions(head_with_lesions, inside, inside, SPACING)
    assert sorted(lesion.diameter_mm for lesion in found) == pytest.approx([5, 6], rel=0.15)
    for lesion in found:
        assert lesion_contrast(head_with_lesions, lesion) == pytest.approx(0.25, abs=0.05)
        assert not (lesion.mask & lesion.shell).any()
    first, second = (lesion_contrast(2 * head_with_lesions, lesion) for lesion in found)
    assert first == pytest.approx(2 * lesion_contrast(head_with_lesions, found[0]), rel=1e-5)
    assert second > 0


def test_a_scan_that_is_untouched_or_halved(head_with_lesions: NDArray[np.float32]) -> None:
    inside = head_with_lesions > 0.3
    found = find_lesions(head_with_lesions, inside, inside, SPACING)
    flat = np.where(inside, np.float32(0.6), np.float32(0))
    faded = 0.5 * (head_with_lesions + flat)
    for row in lesion_rows(head_with_lesions, head_with_lesions, faded, found):
        assert row["contrast_noisy"] == pytest.approx(1)
        assert row["volume_noisy"] == pytest.approx(1)
        assert row["contrast_restored"] == pytest.approx(0.5, abs=0.02)
        assert row["volume_restored"] < 0.9
        assert row["cnr_noisy"] == row["cnr_clean"]
    truth = lesion_contrast(head_with_lesions, found[0])
    assert lesion_volume(head_with_lesions, found[0], 10 * truth) == 0


def test_nothing_deep_means_no_lesion() -> None:
    thin = np.zeros(SHAPE, dtype=bool)
    thin[:, :, 20:23] = True
    assert find_lesions(np.ones(SHAPE, np.float32), thin, thin & False, SPACING) == []


def test_a_lesion_counts_once_whatever_the_draws() -> None:
    names = ("contrast_noisy", "contrast_restored", "volume_noisy", "volume_restored")
    names += ("cnr_clean", "cnr_noisy", "cnr_restored")
    facts = {"case": "a", "sigma": 0.05, "method": "mean", "sigma_source": "blind"}
    cells = [
        facts | {"lesions": [dict.fromkeys(names, value), dict.fromkeys(names, 1.0)]}
        for value in (0.4, 0.6)
    ]
    [line] = summarise_own_lesions(cells, {"a": "a"}, draws=100)
    assert line["lesions"] == 2
    assert line["contrast_restored"] == pytest.approx(0.75)
    assert line["contrast_restored_low"] == pytest.approx(0.5)
    assert line["contrast_restored_high"] == pytest.approx(1.0)


def test_a_run_on_real_lesions(
    head_with_lesions: NDArray[np.float32], tmp_path: Path, save_nifti: Any, cli: Any
) -> None:
    path = save_nifti(tmp_path / "flair.nii.gz", head_with_lesions, np.diag([*SPACING, 1]))
    asked = ["lesions", path, "--real", "--out", tmp_path / "out", "--sigma", 0.05]
    done = cli(*asked, "--method", "identity", "--method", "shrinkage")
    assert done.exit_code == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["summary"]
    by_method = {line["method"]: line for line in summary}
    assert by_method["identity"]["lesions"] == 2
    assert by_method["identity"]["contrast_restored"] == pytest.approx(1, abs=0.1)
    shrunk = by_method["shrinkage"]
    assert shrunk["cnr_restored"] > 1.5 * shrunk["cnr_noisy"]
    with (tmp_path / "out" / "lesions.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_a_scan_without_lesions_is_said(head_with_lesions: NDArray[np.float32]) -> None:
    flat = np.minimum(head_with_lesions, 0.6)
    volume = Volume(flat, Geometry(SHAPE, np.diag([*SPACING, 1.0])), case_id="healthy")
    case = prepare_case(volume, BenchmarkOptions())
    with pytest.raises(ConfigError, match="healthy: no bright lesion"):
        find_own_lesions(case, LesionOptions(kind="real"), 0)
