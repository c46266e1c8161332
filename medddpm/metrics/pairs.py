"""The error of restorations from pairs of noisy repeats, with its interval, without any truth.

Let y_i = |x + n_i| be repeats of one scan, n_i independent of n_j, m(x) = E[y_i], v(x) = Var[y_i],
and a_i = m(x_hat_i) the magnitude that the restoration x_hat_i of y_i alone lets expect. Over any
voxels and pairs i != j

    E (a_i - y_j)^2 = E (a_i - m(x))^2 + v(x),          since a_i does not depend on n_j,      (1)
    E (y_i - y_j)^2 = 2 v(x),                                                                 (2)

so the mean of (a_i - y_j)^2 - (y_i - y_j)^2 / 2 is an unbiased estimate of the mean squared error
|m(x_hat) - m(x)|^2, for noise of any law, colour and map, which need not be known (Lehtinen et al.
2018 train on (1); (2) puts the repeats in the place of a sigma). With y_i in the place of y_j it
would measure what was removed, not what is wrong. It may come out below 0: it is not squared.

With r = y - a the estimate is the mean of (a_i - a_j)^2 / 2 + r_i r_j: what changes from repeat to
repeat, and what was removed from both, which noise is not. The interval is that of the error
expected over the noise. Pairs share repeats, so it comes from units that are independent, by the
influence of each on the mean over all pairs:

- Three repeats or more: the repeats. With D_i the mean over the pairs of repeat i less that of all
  pairs, Var = 4 (R - 1) / (R (R - 2)^2) sum_i D_i^2 (the jackknife; Arvesen 1969). Few repeats tell
  that sum badly, but noise is independent from block to block of voxels, so that its part in it
  is sum_i sum_b D_ib^2 over B blocks, which is known well; what is beyond that (the drift or the
  estimate of sigma of one repeat, which all of its blocks share) is added where it is positive.
  It is too wide by 1.4 (many repeats) to 2 (three) where chance lies in r_i r_j (Efron and Stein
  1981: the jackknife counts it more than once).
- Two repeats: the blocks. With u_b the sum over the voxels of block b of what they differ by from
  the mean, Var = B / (B - 1) sum_b (u_b / N)^2. Blocks that are harder to restore than others
  count as chance, so it is too wide for this anatomy; what a whole repeat shares is not seen.

Quantities that are no means (a ratio, a root) go by their gradient. Quantiles are Student's, the
degrees of freedom those of the sum (Satterthwaite 1946).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medddpm.errors import ConfigError

Vectors = NDArray[np.float64]
Statistic = Callable[["Means"], float]


@dataclass(frozen=True)
class Means:
    """Means over voxels and pairs i != j, in the square of the units of y.

    Attributes:
        error: (a_i - y_j)^2.
        nothing: The same for the scan itself as its restoration.
        noise: (y_i - y_j)^2 / 2: the variance of a voxel of y.
        spread: (a_i - a_j)^2 / 2: that of a voxel of a.
        left: (x_hat_i - x_hat_j)^2 / 2: that of a voxel of the restoration itself.
        power: As `noise`, each voxel times a given weight.
    """

    error: float
    nothing: float
    noise: float
    spread: float
    left: float
    power: float


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def squared_error(means: Means) -> float:
    """Mean of |m(x_hat) - m(x)|^2."""
    return means.error - means.noise


def error_ratio(means: Means) -> float:
    """The squared error over that of the scan as it is."""
    return (means.error - means.noise) / (means.nothing - means.noise)


def removed_share(means: Means) -> float:
    """Share of the variance between repeats that the restoration took away."""
    return 1 - means.left / means.noise


def systematic_error(means: Means) -> float:
    """Squared error that all restored repeats share: blurred or invented anatomy."""
    return means.error - means.noise - means.spread


def noise_power(means: Means) -> float:
    """The weighted variance."""
    return means.power


@dataclass(frozen=True)
class PairSums:
    """What the numbers are made of.

    Attributes:
        sums: (B, R, R, 6): sums over the voxels of a block, for each ordered pair of repeats, of
            what `Means` lists; symmetric, and without meaning for i = j.
        counts: (B,) voxels of the blocks.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]

    def means(self) -> Means:
        """Over all voxels and pairs."""
        return Means(*self._vector())

    def estimate(self, statistic: Statistic, level: float = 0.95) -> Estimate:
        """A statistic of the means with its interval."""
        means = self._vector()
        value = statistic(Means(*means))
        weights = _gradient(statistic, means)
        influence = (self.sums - self.counts[:, None, None, None] * means) @ weights
        variance, freedom = _variance(influence / self.counts.sum())
        reach = float(stats.t.ppf((1 + level) / 2, freedom)) * float(np.sqrt(variance))
        return Estimate(float(value), float(value) - reach, float(value) + reach)

    def _vector(self) -> Vectors:
        total = self.sums.sum(axis=0)
        off = ~np.eye(len(total), dtype=bool)
        mean: Vectors = total[off].mean(axis=0) / self.counts.sum()
        return mean


@dataclass(frozen=True)
class Repeats:
    """Voxels of repeats and of what was made of them, in one unit.

    Attributes:
        y: (R, N) the repeats.
        restored: (R, N) x_hat, of each repeat alone.
        expected: (R, N) a = m(x_hat).
        nothing: (R, N) m(y): the restoration that does nothing.
        weight: (N,) of `Means.power`.
    """

    y: Vectors
    restored: Vectors
    expected: Vectors
    nothing: Vectors
    weight: Vectors


def pair_sums(repeats: Repeats, blocks: NDArray[np.intp]) -> PairSums:
    """The sums for one method.

    Args:
        repeats: The voxels that count.
        blocks: (N,) number of the block that each of them lies in.

    Raises:
        ConfigError: There are fewer than two repeats or blocks.
    """
    order = np.argsort(blocks, kind="stable")
    starts = np.flatnonzero(np.diff(blocks[order], prepend=-1))
    if len(repeats.y) < 2 or len(starts) < 2:
        raise ConfigError("the scan is too small to say how far its error is known")
    parts = np.split(order, starts[1:])
    sums = [_block_sums(repeats, part) for part in parts]
    return PairSums(np.stack(sums), np.array([float(len(part)) for part in parts]))


def _block_sums(repeats: Repeats, part: NDArray[np.intp]) -> Vectors:
    """(R, R, 6) of one block."""
    centre = repeats.y[:, part].mean(axis=0)  # differences stay as they are, rounding is less
    y, restored, expected, nothing = (
        values[:, part] - centre
        for values in (repeats.y, repeats.restored, repeats.expected, repeats.nothing)
    )
    error, base = _squares(expected, y), _squares(nothing, y)
    weighted = y * np.sqrt(repeats.weight[part])
    variances = [_squares(v, v) / 2 for v in (y, expected, restored, weighted)]
    return np.stack([(error + error.T) / 2, (base + base.T) / 2, *variances], axis=-1)


def _squares(left: Vectors, right: Vectors) -> Vectors:
    """(R, R): sum over the voxels of (left_i - right_j)^2."""
    lefts, rights = ((side**2).sum(axis=1) for side in (left, right))
    squares: Vectors = lefts[:, None] + rights - 2 * left @ right.T
    return squares


def _gradient(statistic: Statistic, means: Vectors) -> Vectors:
    """Central differences; the statistics are ratios of sums, so a small step is exact enough."""
    step = 1e-4 * float(np.abs(means).max())
    slopes = [
        statistic(Means(*(means + shift))) - statistic(Means(*(means - shift)))
        for shift in step * np.eye(len(means))
    ]
    return np.array(slopes) / (2 * step)


def _variance(influence: Vectors) -> tuple[float, float]:
    """The variance of the mean over pairs of a statistic, and its degrees of freedom.

    Args:
        influence: (B, R, R) what each pair adds in each block, over all voxels; see above.
    """
    num_blocks, num = influence.shape[:2]
    off = ~np.eye(num, dtype=bool)
    per_block = influence[:, off].mean(axis=1)
    if num == 2:
        return num_blocks / (num_blocks - 1) * float(np.sum(per_block**2)), num_blocks - 1.0
    rows = np.where(off, influence, 0).sum(axis=2) / (num - 1) - per_block[:, None]
    factor = 4 * (num - 1) / (num * (num - 2) ** 2)
    noise = factor * float(np.sum(rows**2))
    shared = max(0.0, factor * float(np.sum(rows.sum(axis=0) ** 2)) - noise)
    spare = noise**2 / (num_blocks * (num - 1)) + shared**2 / (num - 1)
    return noise + shared, (noise + shared) ** 2 / spare if spare > 0 else num - 1.0
