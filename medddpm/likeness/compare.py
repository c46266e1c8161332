"""Compare a set of drawn patches with real ones, and beside it the real ones with themselves.

Every distance stands beside the same distance between two halves of the real patches, by scan and
of the same size: a distance alone says nothing, as few patches and one scanner differ from others
too. What an interval is about is the distance that sets of this size have on average.

Intervals are from the jackknife, which leaves out one scan, or one draw, at a time, with a t
quantile (Efron and Tibshirani 1993, chapter 11). Its variance is too large on average and never too
small, whatever the statistic (Efron and Stein 1981). A bootstrap is wrong here: its sets hold items
twice, so that they are effectively smaller, and a Frechet distance of fewer items is larger by
about as much as the distance itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

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
"""Of the weights of the draws and of the real patches, each 1, or 0 where it is left out."""

_PAIRS = 60
"""Of patches, whose MS-SSIM is taken."""
LEAST_DRAWS, LEAST_SCANS = 8, 16
"""Sets of eight: of fewer, nobody can say how much they vary."""
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


@dataclass(frozen=True)
class RealSet:
    """Real patches, with all that does not depend on what they are compared with.

    Attributes:
        features: (M, D) in deviations of their own.
        mean: (D,) that was taken off.
        deviation: (D,) that they were divided by.
        power: (M, 16) in shells of frequency.
        groups: (M,) number of the scan of each.
        shape: Of a patch.
        pairs: (K, 2) patches of two scans.
        ms_ssim: (K,) of these pairs.
        of_patch: Makes the features.
        seed: Of the halves and pairs.
    """

    features: Values
    mean: Values
    deviation: Values
    power: Values
    groups: Index
    shape: tuple[int, ...]
    pairs: Index
    ms_ssim: Values
    of_patch: Features
    seed: int


def real_set(
    reals: Patches, features: Features, *, scans: Sequence[str] | None = None, seed: int = 0
) -> RealSet:
    """What sets of draws are compared with, measured once.

    Args:
        reals: (M, P, P, P) patches of real scans, of one voxel size and contrast, P at least 64.
        features: Makes the features, such as `encoder_features`.
        scans: (M,) name of the scan of each patch; without it each is one of its own.
        seed: Of the halves and the pairs.

    Raises:
        ShapeError: The patches are too small, or no cubes.
        ConfigError: Fewer than 16 scans, or patches that hold what is no number.
    """
    _check_patches(reals)
    names = [str(i) for i in range(len(reals))] if scans is None else list(scans)
    if len(names) != len(reals):
        raise ConfigError(f"{len(reals)} real patches and {len(names)} names of scans were given")
    groups: Index = np.unique(names, return_inverse=True)[1]
    if len(set(names)) < LEAST_SCANS:
        raise ConfigError(
            f"{len(set(names))} scans are too few to compare with; {LEAST_SCANS} are needed"
        )
    rows = feature_rows(reals, features)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    pairs = _pairs(groups, np.random.default_rng([seed, 1]))
    return RealSet(
        features=(rows - mean) / deviation,
        mean=mean,
        deviation=deviation,
        power=power_rows(reals),
        groups=groups,
        shape=reals.shape[1:],
        pairs=pairs,
        ms_ssim=likeness_of_pairs(reals, pairs),
        of_patch=features,
        seed=seed,
    )


def compare_sets(draws: Patches, reals: RealSet) -> Likeness:
    """How like real patches drawn ones are, with intervals.

    Args:
        draws: (N, P, P, P) independent draws on the intensity scale, of the reals' voxel size.
        reals: What they are compared with.

    Raises:
        ShapeError: Draws of another shape than the real patches.
        ConfigError: Fewer than 8 draws, or one that holds what is no number.
    """
    _check_patches(draws)
    if draws.shape[1:] != reals.shape:
        raise ShapeError(f"draws of shape {draws.shape[1:]} and real patches of {reals.shape}")
    if len(draws) < LEAST_DRAWS:
        raise ConfigError(f"{len(draws)} draws are too few to compare; {LEAST_DRAWS} are needed")
    own = np.arange(len(draws)) + len(reals.groups)  # each draw is a group of its own
    sets = _Sets(own, reals)
    rows = (feature_rows(draws, reals.of_patch) - reals.mean) / reals.deviation
    sides = Items(rows, own), Items(reals.features, reals.groups)
    powers = power_rows(draws), reals.power
    return Likeness(
        frechet=sets.compare(frechet, *sides, least=0.0),
        kernel=sets.compare(kernel_distance, *sides),
        nearest=sets.compare_nearest(*sides),
        ms_ssim=sets.compare_variety(draws),
        power=tuple(sets.compare_means(p, q) for p, q in zip(*(p.T for p in powers), strict=True)),
        size=len(sets.drawn),
        num_draws=len(draws),
        num_reals=len(reals.groups),
        num_scans=len(np.unique(reals.groups)),
    )


def _check_patches(patches: Patches) -> None:
    """Refuse what are no cubes of numbers, or too small ones."""
    if patches.ndim != 4 or len({*patches.shape[1:]}) > 1:
        raise ShapeError(f"patches are cubes of one size, got shape {patches.shape[1:]}")
    if patches.shape[1] < LEAST_EDGE:
        raise ShapeError(f"patches have {LEAST_EDGE}^3 voxels or more, got {patches.shape[1]}^3")
    if not np.isfinite(patches).all():
        raise ConfigError("a patch holds NaN or infinity; leave it out")


class _Sets:
    """Draws and two halves of the reals, of one size."""

    def __init__(self, own: Index, reals: RealSet) -> None:
        rng = np.random.default_rng(reals.seed)
        groups = reals.groups
        order = rng.permutation(np.unique(groups))
        sides = [np.flatnonzero(np.isin(groups, half)) for half in np.array_split(order, 2)]
        size = min(len(own), *(len(side) for side in sides))
        self.halves = [np.sort(rng.choice(side, size, replace=False)) for side in sides]
        self.drawn = np.sort(rng.choice(len(own), size, replace=False))
        self.own, self.groups, self.reals = own, groups, reals
        self.all = [np.arange(len(own))], [np.arange(len(groups))]

    def estimate(
        self, statistic: Statistic, draws: Sequence[Index], reals: Sequence[Index], least: float
    ) -> Estimate:
        """A statistic with its jackknife interval, which is cut at the least it can be.

        Args:
            statistic: Of the weights of all.
            draws: Independent sets of draws that it is of.
            reals: Those of the real patches.
            least: The least it can be.
        """
        whole = np.ones(len(self.own)), np.ones(len(self.groups))
        value, variance, fewest = statistic(*whole), 0.0, len(self.own) + len(self.groups)
        for side, (groups, parts) in enumerate(((self.own, draws), (self.groups, reals))):
            for part in parts:
                left_out = []
                for name in np.unique(groups[part]):
                    weights = list(whole)
                    weights[side] = (groups != name).astype(np.float64)
                    left_out.append(statistic(*weights))
                variance += (len(left_out) - 1) * float(np.var(left_out))
                fewest = min(fewest, len(left_out))
        reach = float(stats.t.ppf(0.5 + _LEVEL / 2, fewest - 1)) * variance**0.5
        return Estimate(value, max(value - reach, least), value + reach)

    def compare(self, distance: Distance, x: Items, y: Items, least: float = -np.inf) -> Compared:
        """A distance of the draws to either half, and of the halves."""
        first, second = self.halves

        def outer(of_x: Values, of_y: Values) -> float:
            drawn, weights = x.take(self.drawn), of_x[self.drawn]
            sides = [distance(drawn, y.take(i), weights, of_y[i]) for i in self.halves]
            return float(np.mean(sides))

        def inner(_: Values, of_y: Values) -> float:
            return distance(y.take(first), y.take(second), of_y[first], of_y[second])

        return Compared(
            self.estimate(outer, [self.drawn], self.halves, least),
            self.estimate(inner, [], self.halves, least),
        )

    def compare_nearest(self, x: Items, y: Items) -> Compared:
        """Distance to the nearest real patch over that among the real ones, likewise."""
        first, second = self.halves

        def outer(of_x: Values, of_y: Values) -> float:
            return nearest_distance(x, y, of_x, of_y) / nearest_distance(y, y, of_y, of_y)

        def inner(_: Values, of_y: Values) -> float:
            one, other, of_one = y.take(first), y.take(second), of_y[first]
            away = nearest_distance(one, other, of_one, of_y[second])
            return away / nearest_distance(one, one, of_one, of_one)

        return Compared(
            self.estimate(outer, *self.all, 0.0), self.estimate(inner, [], self.halves, 0.0)
        )

    def compare_means(self, x: Values, y: Values) -> Compared:
        """Ratio of the means of positive numbers, and of the two halves."""
        first, second = self.halves
        tiny = np.finfo(np.float64).tiny

        def outer(of_x: Values, of_y: Values) -> float:
            below = float(np.average(y, weights=of_y))
            return float(np.average(x, weights=of_x)) / max(below, tiny)

        def inner(_: Values, of_y: Values) -> float:
            below = float(np.average(y[second], weights=of_y[second]))
            return float(np.average(y[first], weights=of_y[first])) / max(below, tiny)

        return Compared(
            self.estimate(outer, *self.all, 0.0), self.estimate(inner, [], self.halves, 0.0)
        )

    def compare_variety(self, draws: Patches) -> Compared:
        """MS-SSIM among draws, and among real patches of two scans."""
        pairs = _pairs(self.own, np.random.default_rng([self.reals.seed, 2]))
        of_draws = likeness_of_pairs(draws, pairs)

        def outer(of_x: Values, _: Values) -> float:
            return float(np.average(of_draws, weights=of_x[pairs].prod(axis=1)))

        def inner(_: Values, of_y: Values) -> float:
            return float(np.average(self.reals.ms_ssim, weights=of_y[self.reals.pairs].prod(1)))

        of_all_draws, of_all_reals = self.all
        return Compared(
            self.estimate(outer, of_all_draws, [], 0.0), self.estimate(inner, [], of_all_reals, 0.0)
        )


def _pairs(groups: Index, rng: np.random.Generator) -> Index:
    """(K, 2): some pairs of items of two groups, each once."""
    i, j = np.triu_indices(len(groups), 1)
    other = np.flatnonzero(groups[i] != groups[j])
    chosen = rng.choice(other, min(_PAIRS, len(other)), replace=False)
    return np.stack([i[chosen], j[chosen]], axis=1)
