"""Compare a set of drawn patches with real ones, and beside it the real ones with themselves.

Every distance stands beside the same distance between two halves of the real patches, by scan and
of the same size: a distance alone says nothing, as few patches and one scanner differ from others
too. Intervals are from a bootstrap over scans, and over draws (Efron and Tibshirani 1993); they are
the basic ones of Davison and Hinkley 1997, section 5.2, since a resampled distance is too large by
about as much as the distance itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import ConfigError, ShapeError
from medddpm.likeness.distances import (
    Distance,
    Items,
    frechet,
    kernel_distance,
    nearest_distance,
)
from medddpm.likeness.features import (
    LEAST_EDGE,
    Features,
    feature_rows,
    likeness_of_pairs,
    power_rows,
)
from medddpm.metrics.pairs import Estimate

Patches = NDArray[np.float32]
Values = NDArray[np.float64]
Index = NDArray[np.intp]
Statistic = Callable[[Values, Values], float]
"""Of how often each draw, and each real patch, counts."""

_RESAMPLES = 300
_PAIRS = 60
"""Of patches, whose MS-SSIM is taken."""
LEAST_DRAWS, LEAST_SCANS = 8, 16
"""Sets of eight: of fewer, a resampled one is too often one item again and again."""
_LEVEL = 0.95


@dataclass(frozen=True)
class Compared:
    """A number of the draws, and the same of the real patches alone, with 95 % intervals."""

    draws: Estimate
    reals: Estimate


@dataclass(frozen=True)
class Likeness:
    """How like the real patches the draws are.

    Attributes:
        frechet: Frechet distance of the features, in deviations of the real ones: draws to reals,
            and half of the reals to the other.
        kernel: Kernel distance (MMD^2), likewise; about 0 for sets of one law.
        nearest: Mean distance of a draw to the nearest real patch, over that of a real patch to the
            nearest of another scan. Far above 1 the draws are like no scan; far below 1 is a reason
            to search for copies (`medddpm memorisation`). Beside it, from one half to the other.
        ms_ssim: Likeness of two draws, and of real patches of two scans: draws that are more alike
            than reals lack variety.
        power: Power of the draws over that of the reals in 16 shells up to Nyquist, and of half of
            the reals over the other.
        size: Patches in each of the sets whose distance is taken.
        num_draws: Draws.
        num_reals: Real patches.
        num_scans: Scans that they are of.
    """

    frechet: Compared
    kernel: Compared
    nearest: Compared
    ms_ssim: Compared
    power: tuple[Compared, ...]
    size: int
    num_draws: int
    num_reals: int
    num_scans: int


def compare_sets(
    draws: Patches,
    reals: Patches,
    features: Features,
    *,
    scans: Sequence[str] | None = None,
    seed: int = 0,
) -> Likeness:
    """How like real patches drawn ones are, with intervals.

    Args:
        draws: (N, P, P, P) independent draws on the intensity scale, P at least 64.
        reals: (M, P, P, P) patches of real scans, of the same voxel size and contrast.
        features: Makes the features, such as `encoder_features`.
        scans: (M,) name of the scan of each real patch; without it each is one of its own.
        seed: Of the halves, the pairs and the bootstrap.

    Raises:
        ShapeError: Patches of two shapes, or too small.
        ConfigError: Fewer than 8 draws or 16 scans, or patches that hold what is no number.
    """
    groups = _checked(draws, reals, scans)
    rng = np.random.default_rng(seed)
    own = np.arange(len(draws)) + len(groups)  # each draw is a group of its own
    sets = _Sets(own, groups, rng)
    x, y = _standardised(feature_rows(draws, features), feature_rows(reals, features))
    sides = Items(x, own), Items(y, groups)
    powers = power_rows(draws), power_rows(reals)
    return Likeness(
        frechet=sets.compare(frechet, *sides),
        kernel=sets.compare(kernel_distance, *sides),
        nearest=sets.compare_nearest(*sides),
        ms_ssim=sets.compare_variety(draws, reals, rng),
        power=tuple(sets.compare_means(p, q) for p, q in zip(*(p.T for p in powers), strict=True)),
        size=len(sets.drawn),
        num_draws=len(draws),
        num_reals=len(reals),
        num_scans=len(np.unique(groups)),
    )


def _checked(draws: Patches, reals: Patches, scans: Sequence[str] | None) -> Index:
    """The number of the scan of each real patch, if the sets can be compared."""
    shapes = {patches.shape[1:] for patches in (draws, reals)}
    if len(shapes) > 1 or draws.ndim != 4 or len({*draws.shape[1:]}) > 1:
        raise ShapeError(f"patches are cubes of one size, got shapes {sorted(shapes)}")
    if draws.shape[1] < LEAST_EDGE:
        raise ShapeError(f"patches have {LEAST_EDGE}^3 voxels or more, got {draws.shape[1]}^3")
    names = [str(i) for i in range(len(reals))] if scans is None else list(scans)
    if len(names) != len(reals):
        raise ConfigError(f"{len(reals)} real patches and {len(names)} names of scans were given")
    groups: Index = np.unique(names, return_inverse=True)[1]
    if len(draws) < LEAST_DRAWS or len(set(names)) < LEAST_SCANS:
        raise ConfigError(
            f"{len(draws)} draws and {len(set(names))} scans are too few to compare; "
            f"{LEAST_DRAWS} draws and {LEAST_SCANS} scans are needed"
        )
    if not (np.isfinite(draws).all() and np.isfinite(reals).all()):
        raise ConfigError("a patch holds NaN or infinity; leave it out")
    return groups


def _standardised(x: Values, y: Values) -> tuple[Values, Values]:
    """Both in deviations of the second."""
    mean, deviation = y.mean(axis=0), y.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    return (x - mean) / deviation, (y - mean) / deviation


class _Sets:
    """Draws and two halves of the reals, of one size, and how often each counts when resampled."""

    def __init__(self, own: Index, groups: Index, rng: np.random.Generator) -> None:
        order = rng.permutation(np.unique(groups))
        sides = [np.flatnonzero(np.isin(groups, half)) for half in np.array_split(order, 2)]
        size = min(len(own), *(len(side) for side in sides))
        self.halves = [np.sort(rng.choice(side, size, replace=False)) for side in sides]
        self.drawn = np.sort(rng.choice(len(own), size, replace=False))
        self.own, self.groups = own, groups
        # What is chosen and what is left are resampled apart: a chosen set never runs empty.
        of_draws, of_reals = _parts([self.drawn], len(own)), _parts(self.halves, len(groups))
        self.weights = [
            (_resampled(own, of_draws, rng), _resampled(groups, of_reals, rng))
            for _ in range(_RESAMPLES)
        ]

    def estimate(self, statistic: Statistic) -> Estimate:
        """A statistic with its basic bootstrap interval."""
        value = statistic(np.ones(len(self.own)), np.ones(len(self.groups)))
        resampled = [statistic(*weights) for weights in self.weights]
        tail = 50 * (1 - _LEVEL)
        low, high = np.percentile(resampled, [tail, 100 - tail])
        return Estimate(value, float(2 * value - high), float(2 * value - low))

    def compare(self, distance: Distance, x: Items, y: Items) -> Compared:
        """A distance of the draws to either half, and of the halves."""
        first, second = self.halves

        def outer(of_x: Values, of_y: Values) -> float:
            drawn, weights = x.take(self.drawn), of_x[self.drawn]
            sides = [distance(drawn, y.take(i), weights, of_y[i]) for i in self.halves]
            return float(np.mean(sides))

        def inner(_: Values, of_y: Values) -> float:
            return distance(y.take(first), y.take(second), of_y[first], of_y[second])

        return Compared(self.estimate(outer), self.estimate(inner))

    def compare_nearest(self, x: Items, y: Items) -> Compared:
        """Distance to the nearest real patch over that among the real ones, likewise."""
        first, second = self.halves

        def outer(of_x: Values, of_y: Values) -> float:
            return nearest_distance(x, y, of_x, of_y) / nearest_distance(y, y, of_y, of_y)

        def inner(_: Values, of_y: Values) -> float:
            one, other, of_one = y.take(first), y.take(second), of_y[first]
            away = nearest_distance(one, other, of_one, of_y[second])
            return away / nearest_distance(one, one, of_one, of_one)

        return Compared(self.estimate(outer), self.estimate(inner))

    def compare_means(self, x: Values, y: Values) -> Compared:
        """Ratio of the means of positive numbers, and of the two halves."""
        first, second = self.halves
        least = np.finfo(np.float64).tiny

        def outer(of_x: Values, of_y: Values) -> float:
            below = float(np.average(y, weights=of_y))
            return float(np.average(x, weights=of_x)) / max(below, least)

        def inner(_: Values, of_y: Values) -> float:
            below = float(np.average(y[second], weights=of_y[second]))
            return float(np.average(y[first], weights=of_y[first])) / max(below, least)

        return Compared(self.estimate(outer), self.estimate(inner))

    def compare_variety(self, draws: Patches, reals: Patches, rng: np.random.Generator) -> Compared:
        """MS-SSIM among draws, and among real patches of two scans."""
        pairs = [_pairs(of, rng) for of in (self.own, self.groups)]
        found = [likeness_of_pairs(p, i) for p, i in zip((draws, reals), pairs, strict=True)]

        def mean(side: int) -> Statistic:
            def statistic(*of: Values) -> float:
                weights = of[side][pairs[side]].prod(axis=1)
                return float(found[side] @ weights / max(weights.sum(), 1.0))

            return statistic

        return Compared(self.estimate(mean(0)), self.estimate(mean(1)))


def _parts(chosen: Sequence[Index], count: int) -> list[Index]:
    """The chosen items, and those of `count` that are in none of them."""
    rest = np.setdiff1d(np.arange(count), np.concatenate(chosen))
    return [*chosen, rest] if len(rest) else [*chosen]


def _resampled(groups: Index, sides: Sequence[Index], rng: np.random.Generator) -> Values:
    """How often each item counts when the groups of each side are drawn with replacement."""
    weights = np.zeros(len(groups))
    for side in sides:
        own, number = np.unique(groups[side], return_inverse=True)
        weights[side] = np.bincount(rng.integers(len(own), size=len(own)), minlength=len(own))[
            number
        ]
    return weights


def _pairs(groups: Index, rng: np.random.Generator) -> Index:
    """(K, 2): some pairs of items of two groups, each once."""
    i, j = np.triu_indices(len(groups), 1)
    other = np.flatnonzero(groups[i] != groups[j])
    chosen = rng.choice(other, min(_PAIRS, len(other)), replace=False)
    return np.stack([i[chosen], j[chosen]], axis=1)
