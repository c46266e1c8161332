from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.likeness.distances import Items, frechet, kernel_distance, nearest_distance

Values = NDArray[np.float64]


def items(features: object, groups: object = None) -> Items:
    rows = np.asarray(features, dtype=np.float64)
    return Items(rows, np.arange(len(rows)) if groups is None else np.asarray(groups))


def whitened(num: int, width: int, seed: int) -> Values:
    """Rows whose mean is exactly 0 and whose covariance is exactly 1."""
    rows = np.random.default_rng(seed).standard_normal((num, width))
    rows -= rows.mean(axis=0)
    root = np.linalg.cholesky(np.linalg.inv(np.cov(rows.T)))
    return rows @ root


def ones(*sets: Items) -> tuple[Values, ...]:
    return tuple(np.ones(len(s.features)) for s in sets)


def test_frechet_distance_of_known_gaussians() -> None:
    shift, scale = np.array([1.0, -2.0, 0.5]), 3.0
    x, y = items(whitened(40, 3, 0)), items(whitened(50, 3, 1) * scale + shift)
    expected = float(shift @ shift) + 3 * (1 - scale) ** 2
    assert frechet(x, y, *ones(x, y)) == pytest.approx(expected)
    assert frechet(y, x, *ones(y, x)) == pytest.approx(expected)
    assert frechet(x, x, *ones(x, x)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    a, b = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.7], [-0.7, 3.0]])
    x = items(whitened(30, 2, 0) @ np.linalg.cholesky(a).T)
    y = items(whitened(30, 2, 1) @ np.linalg.cholesky(b).T)
    # of a 2 x 2 matrix: tr sqrt(M) = sqrt(tr M + 2 sqrt(det M))
    cross = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    assert frechet(x, y, *ones(x, y)) == pytest.approx(np.trace(a) + np.trace(b) - 2 * cross)


def test_a_weight_is_a_repetition() -> None:
    rng = np.random.default_rng(0)
    rows, other = rng.standard_normal((6, 2)), items(rng.standard_normal((7, 2)))
    weights = np.array([1.0, 2, 0, 1, 3, 1])
    repeated = np.repeat(rows, weights.astype(int), axis=0)
    again = items(repeated, np.repeat(np.arange(6), weights.astype(int)))
    for distance in (frechet, kernel_distance):
        weighted = distance(items(rows), other, weights, np.ones(7))
        assert weighted == pytest.approx(distance(again, other, *ones(again, other)))


def test_kernel_distance_by_hand() -> None:
    x, y = items([[1.0], [2.0]]), items([[0.0], [1.0]])
    within_x, within_y = (1 * 2 + 1) ** 3, (0 * 1 + 1) ** 3
    both = np.mean([1.0, 8.0, 1.0, 27.0])
    found = kernel_distance(x, y, *ones(x, y))
    assert found == pytest.approx(within_x + within_y - 2 * both)


def test_kernel_distance_of_one_law_is_0_on_average_and_falls_below() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        x, y = items(rng.standard_normal((8, 3))), items(rng.standard_normal((12, 3)))
        found.append(kernel_distance(x, y, *ones(x, y)))
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3.5 * error
    assert min(found) < 0
    assert frechet(x, y, *ones(x, y)) > 0.1  # which is why it is compared between sets of one size


def test_copies_within_a_scan_count_for_nothing_more() -> None:
    rng = np.random.default_rng(0)
    rows, other = rng.standard_normal((6, 2)), items(rng.standard_normal((7, 2)))
    doubled = items(np.repeat(rows, 2, axis=0), np.repeat(np.arange(6), 2))
    once = kernel_distance(items(rows), other, *ones(items(rows), other))
    assert kernel_distance(doubled, other, *ones(doubled, other)) == pytest.approx(once)


def test_nearest_passes_over_its_own_scan_and_what_is_not_there() -> None:
    y = items([[0.0], [1.0], [5.0]], [0, 0, 1])
    assert nearest_distance(y, y, *ones(y, y)) == pytest.approx((5 + 4 + 4) / 3)
    x = items([[0.9]], [9])
    assert nearest_distance(x, y, *ones(x, y)) == pytest.approx(0.1)
    assert nearest_distance(x, y, np.ones(1), np.array([1.0, 0, 1])) == pytest.approx(0.9)
