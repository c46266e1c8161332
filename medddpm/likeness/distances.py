"""Distances between two sets of features, each item with a weight: what a bootstrap resamples.

A weight is how often an item counts. Items of one group (patches of one scan) are not independent:
pairs of them are left out wherever an estimate would need independent ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Items:
    """A set.

    Attributes:
        features: (N, D).
        groups: (N,) number of the scan that each is of; another one for each independent item.
    """

    features: Values
    groups: NDArray[np.intp]

    def take(self, index: NDArray[np.intp]) -> Items:
        """Some of them."""
        return Items(self.features[index], self.groups[index])


Distance = Callable[[Items, Items, Values, Values], float]
"""Of two sets, with the weights of each."""


def frechet(x: Items, y: Items, of_x: Values, of_y: Values) -> float:
    """Frechet distance of the Gaussians that have the means and covariances of two sets.

    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)) (Dowson and Landau 1982; Heusel et al. 2017
    for images). It is too large for few items (Chong and Forsyth 2020), so it is compared between
    sets of one size alone.

    Args:
        x: One set.
        y: The other.
        of_x: (N,) weights.
        of_y: (M,) weights.
    """
    (mean_x, cov_x), (mean_y, cov_y) = _moments(x, of_x), _moments(y, of_y)
    root = _root(cov_x)
    cross = np.linalg.eigvalsh(root @ cov_y @ root)
    spread = np.trace(cov_x) + np.trace(cov_y) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(np.sum((mean_x - mean_y) ** 2) + max(float(spread), 0.0))


def _moments(items: Items, weights: Values) -> tuple[Values, Values]:
    mean: Values = np.average(items.features, axis=0, weights=weights)
    covariance = np.cov(items.features.T, fweights=np.rint(weights).astype(int))
    return mean, np.atleast_2d(covariance)


def _root(matrix: Values) -> Values:
    """The symmetric square root."""
    values, vectors = np.linalg.eigh(matrix)
    root: Values = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


def kernel_distance(x: Items, y: Items, of_x: Values, of_y: Values) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (a.b / D + 1)^3.

    The kernel inception distance of Binkowski et al. 2018, "Demystifying MMD GANs", on other
    features; the estimate is that of Gretton et al. 2012, lemma 6, over pairs of two groups. It
    is 0 on average for sets of one law, however small, and falls below 0 by chance.

    Args:
        x: One set.
        y: The other.
        of_x: (N,) weights.
        of_y: (M,) weights.
    """
    both = float(of_x @ _kernel(x, y) @ of_y / (of_x.sum() * of_y.sum()))
    return _within(x, of_x) + _within(y, of_y) - 2 * both


def _kernel(x: Items, y: Items) -> Values:
    values: Values = (x.features @ y.features.T / x.features.shape[1] + 1) ** 3
    return values


def _within(items: Items, weights: Values) -> float:
    """Mean of the kernel over pairs of two groups."""
    pairs = np.outer(weights, weights) * (items.groups[:, None] != items.groups)
    return float((pairs * _kernel(items, items)).sum() / pairs.sum())


def nearest_distance(x: Items, y: Items, of_x: Values, of_y: Values) -> float:
    """Mean distance from an item of x to the nearest of y that is of another group.

    Args:
        x: One set.
        y: The other; may hold items of the same groups, which are passed over.
        of_x: (N,) weights.
        of_y: (M,) weights; what weighs 0 is not there.
    """
    squares = (x.features**2).sum(axis=1)[:, None] + (y.features**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares - 2 * x.features @ y.features.T, 0))
    absent = (x.groups[:, None] == y.groups) | (of_y == 0)
    return float(np.average(np.where(absent, np.inf, distances).min(axis=1), weights=of_x))
