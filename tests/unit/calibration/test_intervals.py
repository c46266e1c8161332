from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medddpm.calibration.intervals import (
    Origin,
    Points,
    Seen,
    cross_fit,
    fit_table,
    points_of,
    pooled_rank,
    reliability,
    risk_coverage,
    scores,
)
from medddpm.errors import CheckpointError, ConfigError
from medddpm.model.interval import IntervalTable, interval_table

CUBES = (1.0, 1.0, 1.2)


def made(subject, sigma, too_small, seed, n=20_000, spacing=CUBES):
    """Gaussian errors whose std is told too small by a factor that brightness decides."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0, 1, n).astype(np.float32)
    std = (sigma * np.exp(0.5 * rng.standard_normal(n))).astype(np.float32)
    true = std * np.where(mean < 0.3, 2 * too_small, too_small)
    error = (true * rng.standard_normal(n)).astype(np.float32)
    block = (sigma * np.abs(rng.standard_normal(500))).astype(np.float32)
    seen = Seen(spacing, sigma, 1.0)
    parts = (mean, std, error, block, 2 * block, seen)
    return Points(subject, f"{subject}-{sigma}", "white", sigma, *parts)


def validated(points):
    return [scores(*pair) for pair in cross_fit(points)]


@pytest.fixture
def points():
    factors = {0.03: 1.0, 0.09: 1.5}
    return [
        made(f"s{i}", s, f, 10 * i + k)
        for i in range(3)
        for k, (s, f) in enumerate(factors.items())
    ]


def test_the_table_finds_the_factors_of_level_and_class(points):
    table = fit_table(points)
    expected = 1.6449 * np.array([[2, 1, 1], [3, 1.5, 1.5]])
    expected = np.hstack([expected, expected])  # no scan has thick slices
    np.testing.assert_allclose(table.factors, expected, rtol=0.05)


def test_other_subjects_are_covered_as_promised(points):
    rows = validated(points)
    assert len(rows) == 6
    assert all(abs(row["coverage"] - 0.9) < 0.02 for row in rows)
    assert all(abs(row["coverage_dark"] - 0.9) < 0.02 for row in rows)
    assert all(row["coverage_nominal"] < 0.85 for row in rows)


def test_a_subject_unlike_the_others_shows_as_uncovered(points):
    odd = made("odd", 0.03, 3.0, 99)
    row = next(r for r in validated([*points, odd]) if r["subject"] == "odd")
    assert row["coverage"] < 0.6


def test_one_subject_is_not_enough(points):
    with pytest.raises(ConfigError, match="other subjects"):
        cross_fit([p for p in points if p.subject == "s0"])


def test_the_quantile_is_conformal_for_few_voxels():
    few = made("s", 0.05, 1.0, 0, n=9)  # 9 scores cannot promise more than 9 in 10: the largest
    table = fit_table([few])
    largest = float(np.max(np.abs(few.error) / few.std))
    np.testing.assert_allclose(table.factors, largest, atol=1e-4)


def test_each_scan_weighs_alike():
    small, large = made("a", 0.05, 1.0, 1, n=3000), made("b", 0.05, 3.0, 2, n=90_000)
    alike = made("b", 0.05, 3.0, 2, n=3000)
    np.testing.assert_allclose(
        fit_table([small, large]).factors, fit_table([small, alike]).factors, rtol=0.1
    )


def test_between_levels_the_width_goes_over_log_sigma_and_beyond_it_is_flat():
    table = IntervalTable((0.01, 0.1), (0.5,), ((1.0, 2.0), (3.0, 4.0)))
    mean = np.array([[[0.2, 0.8]]], np.float32)
    one = np.ones_like(mean)
    for sigma, dark in ((0.01, 1), (0.1, 3), (0.001, 1), (1.0, 3), (0.01 * 10**0.5, 2)):
        width = table.half_width(mean, one, sigma, CUBES)
        np.testing.assert_allclose(width.ravel(), [dark, dark + 1])
    field = np.array([[[0.1, 0.01]]], np.float32)
    np.testing.assert_allclose(table.half_width(mean, one, field, CUBES).ravel(), [3, 2], rtol=1e-5)


def test_thick_slices_are_covered_by_factors_of_their_own_and_not_without():
    thick = (0.9, 0.9, 3.0)
    fitted = [made("a", 0.05, 1.0, 1), made("b", 0.05, 2.0, 2, spacing=thick)]
    others = [made("c", 0.05, 1.0, 3), made("d", 0.05, 2.0, 4, spacing=thick)]
    for slices, off in (((2.0,), 0.02), ((), None)):
        table = fit_table(fitted, slices=slices)
        rows = [scores(p, table) for p in others]
        for row in rows:
            for name in ("coverage", "coverage_dark", "coverage_middle", "coverage_bright"):
                away = abs(row[name] - 0.9)
                assert away < off if off else away > 0.04


def test_slices_that_nobody_showed_take_the_factors_of_the_others():
    table = fit_table([made("a", 0.05, 1.0, 1)])
    thin, thick = np.reshape(table.factors[0], (2, 3))
    np.testing.assert_allclose(thick, thin)


def test_a_table_is_read_as_the_restoration_reads_it(points):
    """A scan whose scale was found twice as large is looked up at half the noise and brightness."""
    table = fit_table(points)
    p = made("s", 0.06, 1.0, 5)
    other = replace(p, seen=Seen(CUBES, 0.06, 2.0))
    expected = 2 * table.half_width(p.mean / 2, p.std / 2, 0.03, CUBES)
    np.testing.assert_allclose(other.half_width(table), expected, rtol=1e-5)
    assert not np.allclose(p.half_width(table), expected, rtol=0.05)


def test_a_gaussian_is_reliable_at_every_level():
    flat = [made(f"s{i}", 0.05, 1.0, i) for i in range(2)]
    for nominal, observed in reliability([(p, fit_table(flat)) for p in flat]):
        assert abs(nominal - observed) < 0.02


def test_certain_blocks_have_smaller_errors_and_all_of_them_the_whole(points):
    rows = risk_coverage(points)
    kept = [row[1] for row in rows]
    assert kept == sorted(kept)
    assert [row[1] for row in rows] == pytest.approx([row[2] for row in rows])  # std ranks exactly


def test_scores_rank_blocks_and_voxels():
    row = scores(made("s", 0.05, 1.0, 3), None)
    assert row["rank_blocks"] == pytest.approx(1.0)
    assert 0.2 < row["rank"] < 0.6
    assert row["coverage"] == row["coverage_nominal"]


def test_points_keep_the_foreground_alone(rng):
    clean = rng.uniform(0, 1, (16, 16, 16)).astype(np.float32)
    std = np.full_like(clean, 0.1)
    inside = np.zeros(clean.shape, bool)
    inside[:8] = True
    seen = Seen(CUBES, 0.05, 1.0)
    images = (clean, clean + np.float32(0.1), std)
    origin = Origin("s", "scan", "white", 0.05)
    found = points_of(origin, images, inside, seen, most=500)
    assert found.mean.size == 500
    assert found.block_error.size == 2 * 4 * 4
    np.testing.assert_allclose(found.error, 0.1, atol=1e-6)
    with pytest.raises(ConfigError, match="no voxel"):
        points_of(origin, (clean, clean, 0 * std), inside, seen)


@pytest.mark.parametrize(
    "found",
    [
        {"sigmas": [0.05], "edges": [0.5]},
        {"sigmas": [0.05, 0.01], "edges": [0.5], "factors": [[1, 1], [1, 1]]},
        {"sigmas": [0.05], "edges": [0.5], "factors": [[1.0]]},
        {"sigmas": [0.05], "edges": [0.5], "factors": [[1.0, 2.0], [1.0]]},
        {"sigmas": [0.05], "edges": [0.5], "factors": [[1.0, -2.0]]},
        {"sigmas": [0.05], "edges": [0.5], "factors": [[1.0, 2.0]], "slices": [2.0]},
        {"sigmas": [0.05], "edges": [], "factors": [[1, 2, 3]], "slices": [3.0, 2.0]},
        {"sigmas": [0.05], "edges": [0.5], "factors": [["high", 2.0]]},
    ],
)
def test_a_damaged_card_is_refused(found):
    with pytest.raises(CheckpointError, match="medddpm calibrate"):
        interval_table({"calibration": found})


def test_a_card_from_before_the_classes_of_slices_is_read_as_it_was():
    table = interval_table({"calibration": {"sigmas": [0.05], "edges": [0.5], "factors": [[1, 2]]}})
    assert table is not None
    mean, std = np.array([[[0.2, 0.8]]], np.float32), np.full((1, 1, 2), 0.1, np.float32)
    np.testing.assert_allclose(
        table.half_width(mean, std, 0.05, CUBES).ravel(), [0.1, 0.2], rtol=1e-6
    )


def test_ranks_over_all_levels_count_the_noise_and_blocks_rank_best(points):
    whole = pooled_rank(points)
    level = pooled_rank([p for p in points if p.sigma == 0.03])
    assert whole["blocks"] == pytest.approx(1.0)
    assert level["blocks"] == pytest.approx(1.0)
    # each made-up scan has one level: give the levels one name
    joined = pooled_rank([replace(p, scan=p.subject) for p in points])
    assert joined["voxels"] > level["voxels"] + 0.1


def test_no_calibration_is_no_table():
    assert interval_table({}) is None
