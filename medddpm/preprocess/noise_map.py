"""How the noise varies over a scan, if it does.

Parallel imaging amplifies noise by a smooth g-factor (Pruessmann et al., Magn Reson Med 42:952,
1999), and a normalisation multiplies signal and noise by a smooth field. So the logarithm of the
variance is sought as a sum of the first cosines over the body, fitted to the fine coefficients of
all blocks that hold little anatomy; what anatomy is left in them is fitted along with it.

There is a map only where the field is larger than it would be by chance. The blocks of one region
are not independent, so the covariance of the field is taken from sums over regions (a sandwich,
Liang and Zeger, Biometrika 73:13, 1986).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.preprocess.intensity import foreground_mask
from medddpm.preprocess.noise import NoiseEstimate, seen_axes
from medddpm.preprocess.noise_blocks import Blocks, body_blocks, law_spread, noise_variance
from medddpm.preprocess.noise_law import RICIAN, WHITE, Colour, Image, NoiseLaw

Line = NDArray[np.float64]

_ORDER = 5
"""Most half waves of the field over the body, in all directions together."""
_LEAST_CHANCE = 12.0
"""Wald statistic a coefficient of a field that is no chance: over 400 simulated scans of even
noise it is larger in fewer than 1 %."""
_LEAST_FIELD = 0.07
"""Standard deviation of log sigma over the body: less is not worth a map, and anatomy can do it."""
_LEAST_ALIKE = 0.7
"""Slope of the field of the finest coefficients over that of the others."""
_MOST = 8000
"""Blocks of the fit."""
_QUIET_SHARE = 0.6
"""Blocks that hold least anatomy for their noise."""
_STEPS = 6
"""Classes of anatomy, each of which may add its own share to the variance."""
_REGIONS = 5
"""Regions along each axis of the body."""
_RIDGE = 30.0
_FINE, _LOW = 0.5, 0.3
"""Orders of the coefficients that show noise, and of those that show anatomy."""


def noise_map(
    image: NDArray[Any],
    noise: NoiseEstimate,
    *,
    law: NoiseLaw = RICIAN,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Image | None:
    """Sigma of white noise at every voxel (X, Y, Z) in scan units, or None where it is even.

    Args:
        image: (X, Y, Z) magnitudes in any unit.
        noise: Its level as one number, from `estimate_noise`.
        law: Kind and coils of the noise.
        spacing: Voxel edges in mm.
    """
    image = np.asarray(image, dtype=np.float32)
    blocks = body_blocks(
        image, foreground_mask(image), seen_axes(spacing, image.shape), noise.scale
    )
    if blocks is None or noise.sigma <= 0:
        return None
    field = noise_field(blocks, WHITE, noise.sigma, law.dof)
    return None if field is None else field.sigma(image.shape)


@dataclass(frozen=True)
class Field:
    """A smooth field of sigma.

    Attributes:
        level: Sigma where the cosines are zero.
        waves: (n, n, n) coefficients of products of cosines of log sigma.
        box: Lower and upper corner of the body, as fractions of the image.
        limits: Least and most log sigma that the blocks show: cosines know nothing of the rest.
    """

    level: float
    waves: Line
    box: tuple[Line, Line]
    limits: tuple[float, float]

    def sigma(self, shape: Sequence[int]) -> Image:
        """At every voxel of a grid that covers the image; beyond the body its border's."""
        low, high = self.box
        out = self.waves
        for n, a, b in zip(shape, low, high, strict=True):
            place = np.clip(((np.arange(n) + 0.5) / n - a) / (b - a), 0, 1)
            cosines = np.cos(np.pi * np.arange(len(self.waves))[:, None] * place)
            out = np.tensordot(out, cosines.astype(np.float32), (0, 0))
        return np.asarray(self.level * np.exp(np.clip(out, *self.limits)), np.float32)


def noise_field(blocks: Blocks, colour: Colour, sigma: float, dof: int) -> Field | None:
    """The field of sigma that the blocks show, or None where the noise is even.

    Args:
        blocks: Of the body.
        colour: Of the noise, on the grid of the blocks.
        sigma: Its level as one number.
        dof: Real components 2 L of the magnitude.
    """
    quiet = _quiet(blocks, colour, sigma, dof)
    if quiet is None:
        return None
    logs, steps, centres = quiet
    low, high = centres.min(axis=0), centres.max(axis=0)
    place = (centres - low) / np.maximum(high - low, 1e-6)
    orders = _orders(place)
    waves = np.prod(np.cos(np.pi * place[:, None] * orders), axis=-1)
    middle = waves.mean(axis=0)
    design = np.hstack([steps, waves - middle])
    found, covariance = _fitted(design, logs, _regions(place), steps.shape[1])
    b, covariance = found[steps.shape[1] :], covariance[steps.shape[1] :, steps.shape[1] :]
    chance = float(b @ np.linalg.pinv(covariance) @ b) / len(b)
    spread = float(np.std(waves @ b)) / 2
    if chance < _LEAST_CHANCE or spread < _LEAST_FIELD:
        return None
    if _alike(design, logs, steps.shape[1]) < _LEAST_ALIKE:
        return None
    cube = np.zeros((_ORDER + 1,) * 3)
    cube[tuple(orders.T)] = b / 2
    level = sigma * float(np.exp((found[0] - middle @ b) / 2))
    least, most = (float(v) for v in np.quantile(waves @ b / 2, [0.005, 0.995]))
    return Field(level, cube, (low, high), (least, most))


def _quiet(
    blocks: Blocks, colour: Colour, sigma: float, dof: int
) -> tuple[Line, Line, Line] | None:
    """Log variance, class of anatomy and place of the quieter blocks, twice each.

    The fine coefficients are halved: one half shows the variance, the other says, with the low
    ones, how much anatomy there is for it; then the other way round. The first rows are of the
    finest half.
    """
    if len(blocks.means) > _MOST:
        some = np.random.default_rng(0).choice(len(blocks.means), _MOST, replace=False)
        blocks = blocks.kept(np.sort(some))
    size = np.array(blocks.size)
    long = size > 1
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij")).reshape(3, -1)
    order = np.sqrt(np.sum((grid / np.maximum(size - 1, 1)[:, None]) ** 2, axis=0) / long.sum())
    variance = noise_variance(blocks.size, colour)
    fine = np.flatnonzero((order > _FINE) & (variance > 0.1 * np.median(variance[order > _LOW])))
    fine = fine[np.argsort(order[fine], kind="stable")]
    low = (order > 0) & (order < _LOW)
    if len(fine) < 8 or len(blocks.means) < 400:
        return None
    unit = np.square(law_spread(blocks.means, sigma, dof)) * sigma**2
    power = np.square(blocks.coefficients) / variance / unit[:, None]
    parts = fine[: len(fine) // 2], fine[len(fine) // 2 :]
    halves = [np.maximum(power[:, part].mean(axis=1), 1e-6) for part in parts]
    anatomy = [np.log1p(np.maximum(power[:, low].mean(axis=1) / h - 1, 0)) for h in halves]
    both = anatomy[0] + anatomy[1]
    kept = both <= np.quantile(both, _QUIET_SHARE)
    logs = np.concatenate([np.log(halves[1 - i][kept]) for i in (0, 1)])
    amounts = np.concatenate([a[kept] for a in anatomy])
    edges = np.unique(np.quantile(amounts, np.linspace(0, 1, _STEPS + 1)))[1:-1]
    steps = np.eye(len(edges) + 1)[np.searchsorted(edges, amounts)]
    # The mean logarithm of a mean of n squares is 1 / n below the logarithm of the mean.
    return logs + 2 / len(fine), steps, np.tile(blocks.centres[kept], (2, 1))


def _alike(design: Line, logs: Line, num_steps: int) -> float:
    """Slope of the field of the finest coefficients over that of the others: of noise, 1.

    Anatomy that is left is stronger in the coarser ones.
    """
    half = len(logs) // 2
    fields = []
    for rows in (slice(0, half), slice(half, None)):
        found = _fitted(design[rows], logs[rows], np.zeros(half, np.int64), num_steps)[0]
        fields.append(design[:half, num_steps:] @ found[num_steps:])
    finest, other = (f - f.mean() for f in fields)
    return float(finest @ other / (other @ other))


def _orders(place: Line) -> NDArray[np.int64]:
    """(P, 3) half waves along each axis, without the constant; fewer along short axes."""
    most = [min(_ORDER, len(np.unique(place[:, a])) // 4) for a in range(3)]
    grid = np.stack(np.meshgrid(*[np.arange(m + 1) for m in most], indexing="ij"), axis=-1)
    grid = grid.reshape(-1, 3)
    total = grid.sum(axis=1)
    out: NDArray[np.int64] = grid[(total > 0) & (total <= _ORDER)]
    return out


def _regions(place: Line) -> NDArray[np.int64]:
    cells = np.minimum((place * _REGIONS).astype(np.int64), _REGIONS - 1)
    out: NDArray[np.int64] = np.unique(cells @ [_REGIONS**2, _REGIONS, 1], return_inverse=True)[1]
    return out


def _fitted(
    design: Line, logs: Line, regions: NDArray[np.int64], num_steps: int
) -> tuple[Line, Line]:
    """Coefficients by robust least squares (Huber), and their covariance over regions."""
    ridge = np.diag([1e-6] * num_steps + [_RIDGE] * (design.shape[1] - num_steps))
    weight = np.ones(len(logs))
    for _ in range(4):
        weighted = design * weight[:, None]
        found = np.linalg.solve(weighted.T @ design + ridge, weighted.T @ logs)
        rest = logs - design @ found
        limit = 1.5 * 1.4826 * float(np.median(np.abs(rest))) + 1e-12
        weight = np.minimum(1, limit / np.maximum(np.abs(rest), 1e-12))
    bread = np.linalg.pinv((design * weight[:, None]).T @ design)
    count = int(regions.max()) + 1
    scores = np.zeros((count, design.shape[1]))
    np.add.at(scores, regions, design * (weight * rest)[:, None])
    free = max(count - design.shape[1], 1) / max(count - 1, 1)
    covariance = bread @ (scores.T @ scores) @ bread / max(free, 0.1)
    return np.asarray(found, np.float64), np.asarray(covariance)
