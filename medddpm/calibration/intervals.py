"""Does the uncertainty hold? Intervals fitted to held-out scans, and tested on other ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from medddpm.benchmark.options import NoiseName
from medddpm.errors import ConfigError
from medddpm.model.interval import NOMINAL, IntervalTable, thickness

Array = NDArray[np.float32]
EDGES = (0.3, 0.6)
"""Divide the classes of brightness: in a T1w brain about CSF, grey and white matter."""
SLICES = (2.0,)
"""Divides volumes of about cubic voxels from thick slices: largest over smallest voxel edge."""
LEVEL = 0.9
_BLOCK = 4
_SHARES = 20
"""Of a scan, that are kept in turn: the points of a curve."""
_FEWEST = 200
"""Voxels that a class needs at one noise level; with fewer it takes those of the whole level."""
NOMINAL_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class Seen:
    """What a restoration took the noisy scan for.

    Attributes:
        spacing: Voxel edges in mm.
        sigma: Noise that it estimated, as a fraction of the true intensity scale.
        scale: Intensity scale that it found, over the true one.
    """

    spacing: tuple[float, float, float]
    sigma: float
    scale: float


@dataclass(frozen=True)
class Origin:
    """One scan with one noise.

    Attributes:
        subject: Who it is: all scans of one subject are fitted, or tested, together.
        scan: Its name.
        noise: Its kind, "white" or "acquired".
        sigma: Noise as a fraction of the intensity scale.
    """

    subject: str
    scan: str
    noise: NoiseName
    sigma: float


@dataclass(frozen=True)
class Points(Origin):
    """Voxels of the foreground of one scan at one noise level.

    Attributes:
        mean: (N,) restored, as a fraction of the scale.
        std: (N,) of the ensemble.
        error: (N,) restored minus clean.
        block_std: (M,) root mean square of std over blocks of 4x4x4 voxels.
        block_error: (M,) that of the error.
        seen: What the restoration took the scan for.
    """

    mean: Array
    std: Array
    error: Array
    block_std: Array
    block_error: Array
    seen: Seen

    def half_width(self, table: IntervalTable) -> Array:
        """(N,) half width of each voxel's interval, as the restoration would take it."""
        scale = np.float32(self.seen.scale)
        mean, std = self.mean / scale, self.std / scale
        width = table.half_width(mean, std, self.seen.sigma / self.seen.scale, self.seen.spacing)
        return (scale * width).astype(np.float32)


def points_of(
    origin: Origin,
    images: tuple[Array, Array, Array],
    inside: NDArray[np.bool_],
    seen: Seen,
    most: int = 100_000,
) -> Points:
    """The points of one restored scan, at most so many, drawn evenly.

    Args:
        origin: Whose they are.
        images: Clean, mean and std of the ensemble, each (X, Y, Z), as fractions of the scale.
        inside: (X, Y, Z), the voxels that count.
        seen: What the restoration took the scan for.
        most: Points to keep.

    Raises:
        ConfigError: No voxel counts.
    """
    clean, mean, std = images
    places = np.flatnonzero(inside & (std > 0))
    if places.size == 0:
        raise ConfigError(f"{origin.scan}: the foreground has no voxel with a spread to calibrate")
    rng = np.random.default_rng(0)
    picked = np.sort(rng.choice(places, min(most, places.size), replace=False))
    error = mean - clean
    return Points(
        **asdict(origin),
        mean=mean.ravel()[picked],
        std=std.ravel()[picked],
        error=error.ravel()[picked],
        block_std=_block_rms(std, inside),
        block_error=_block_rms(error, inside),
        seen=seen,
    )


def fit_table(
    points: Sequence[Points],
    edges: tuple[float, ...] = EDGES,
    slices: tuple[float, ...] = SLICES,
) -> IntervalTable:
    """Half widths that hold `LEVEL` of the voxels of each noise level and class.

    Each scan with each kind of noise counts alike:
    the factor is the conformal quantile of |error| / std over the pooled
    voxels, each weighing one over the voxels of its scan in that class. A class with too
    few voxels takes all those of its slices, and slices that no scan has take all of the level.

    Args:
        points: What to fit to.
        edges: As in the table.
        slices: As in the table.

    Raises:
        ConfigError: There is no point.
    """
    if not points:
        raise ConfigError("there is no scan to calibrate on")
    sigmas = sorted({p.sigma for p in points})
    rows = []
    for sigma in sigmas:
        level = [p for p in points if p.sigma == sigma]
        row: list[float] = []
        for number in range(len(slices) + 1):
            alike = [p for p in level if np.digitize(thickness(p.seen.spacing), slices) == number]
            row += _row(alike or level, edges)
        rows.append(tuple(row))
    return IntervalTable(tuple(sigmas), edges, tuple(rows), slices)


def _row(points: Sequence[Points], edges: tuple[float, ...]) -> list[float]:
    """The factors of one noise level and class of slices, one for each class of brightness."""
    ratios = [_ratio(p) for p in points]
    classes = [np.digitize(p.mean / np.float32(p.seen.scale), edges) for p in points]
    whole = _quantile(ratios)
    row = []
    for number in range(len(edges) + 1):
        parts = [r[c == number] for r, c in zip(ratios, classes, strict=True)]
        enough = sum(part.size for part in parts) >= _FEWEST
        row.append(_quantile([part for part in parts if part.size]) if enough else whole)
    return [round(factor, 4) for factor in row]


def scores(points: Points, table: IntervalTable | None) -> dict[str, Any]:
    """Coverage of one scan at one noise level, and how well std ranks the error.

    "coverage" is the share of voxels within the table's interval, "coverage_nominal" within 1.645
    std; "dark", "middle" and "bright" are its classes of brightness; "error_over_std" is the root
    mean square of their ratio (1 is right); "rank" and "rank_blocks" are Spearman correlations of
    std with |error|, of voxels and of blocks of 4x4x4 voxels.
    """
    error, nominal = np.abs(points.error), np.float32(NOMINAL) * points.std
    width: Array = nominal if table is None else points.half_width(table)
    held = error <= width
    row: dict[str, Any] = {"scan": points.scan, "subject": points.subject}
    row |= {"noise": points.noise, "sigma": points.sigma}
    row |= {"coverage": float(held.mean()), "coverage_nominal": float((error <= nominal).mean())}
    edges = EDGES if table is None else table.edges
    classes = np.digitize(points.mean / np.float32(points.seen.scale), edges)
    for number, name in enumerate(("dark", "middle", "bright")):
        if (classes == number).sum() >= _FEWEST:
            row[f"coverage_{name}"] = float(held[classes == number].mean())
    row["half_width"] = float(width.mean())
    row["error_over_std"] = float(np.sqrt(np.mean(np.square(points.error / points.std))))
    row["rank"] = float(spearmanr(points.std, error).statistic)
    row["rank_blocks"] = float(spearmanr(points.block_std, points.block_error).statistic)
    return row


Tested = Sequence[tuple[Points, IntervalTable]]
"""Points, each with the table that is tested on them."""


def cross_fit(points: Sequence[Points]) -> Tested:
    """Each scan with a table that was fitted to the other subjects alone.

    Raises:
        ConfigError: There is one subject only.
    """
    subjects = sorted({p.subject for p in points})
    if len(subjects) < 2:
        raise ConfigError(
            f"only {subjects[0]} is there; a calibration is tested on other subjects than it "
            "was fitted to, so give two or more"
        )
    pairs = []
    for subject in subjects:
        table = fit_table([p for p in points if p.subject != subject])
        pairs += [(p, table) for p in points if p.subject == subject]
    return in_order(pairs)


def in_order(tested: Tested) -> Tested:
    """By noise, its level and the scan."""
    return sorted(tested, key=lambda pair: (pair[0].noise, pair[0].sigma, pair[0].scan))


def reliability(tested: Tested) -> list[tuple[float, float]]:
    """(nominal, observed) coverage of intervals that are Gaussian in shape around the table's."""
    normal = NormalDist()
    at_level = normal.inv_cdf(0.5 + LEVEL / 2)
    ratios = [np.abs(p.error) / p.half_width(table) for p, table in tested]
    pairs = []
    for nominal in NOMINAL_LEVELS:
        reach = normal.inv_cdf(0.5 + nominal / 2) / at_level
        pairs.append((nominal, float(np.mean([(ratio <= reach).mean() for ratio in ratios]))))
    return pairs


def pooled_rank(points: Sequence[Points]) -> dict[str, float]:
    """Spearman correlation of std and |error| over all noise levels together, a mean over scans.

    "voxels" and "blocks" of 4x4x4 of them. One voxel's error is one draw, so that even the true
    spread could not rank voxels far better; blocks show whether std is large in the right places.
    """
    found: dict[str, list[float]] = {"voxels": [], "blocks": []}
    for scan in dict.fromkeys(p.scan for p in points):
        mine = [p for p in points if p.scan == scan]
        pairs = {
            "voxels": [(p.std, np.abs(p.error)) for p in mine],
            "blocks": [(p.block_std, p.block_error) for p in mine],
        }
        for name, parts in pairs.items():
            std = np.concatenate([part[0] for part in parts])
            error = np.concatenate([part[1] for part in parts])
            found[name].append(float(spearmanr(std, error).statistic))
    return {name: float(np.mean(values)) for name, values in found.items()}


def risk_coverage(points: Sequence[Points]) -> list[tuple[float, float, float]]:
    """(share kept, its error, the error of the best choice), root mean square over the scans.

    The most certain share of each scan's blocks is kept (Geifman and El-Yaniv 2017); the best
    choice knows the errors.
    """
    rows = []
    for share in np.linspace(1 / _SHARES, 1, _SHARES):
        kept, best = [], []
        for p in points:
            count = max(1, round(share * p.block_std.size))
            order = np.argsort(p.block_std, kind="stable")[:count]
            kept.append(np.mean(np.square(p.block_error[order])))
            best.append(np.mean(np.square(np.sort(p.block_error)[:count])))
        rows.append((float(share), float(np.sqrt(np.mean(kept))), float(np.sqrt(np.mean(best)))))
    return rows


def _ratio(points: Points) -> Array:
    return (np.abs(points.error) / points.std).astype(np.float32)


def _quantile(parts: Sequence[Array]) -> float:
    """The conformal quantile of pooled scores, each part of the same weight in all."""
    values = np.concatenate(parts).astype(np.float64)
    weights = np.concatenate([np.full(part.size, 1 / part.size) for part in parts])
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    reach = min(LEVEL * (1 + 1 / values.size), 1.0)
    return float(values[order][min(int(np.searchsorted(share, reach)), values.size - 1)])


def _block_rms(image: Array, inside: NDArray[np.bool_]) -> Array:
    """(M,) over the blocks that lie inside for the most part."""
    box = tuple(slice(0, n - n % _BLOCK) for n in image.shape)
    counts, squares = (_block_sum(a[box]) for a in (inside, np.where(inside, image, 0) ** 2))
    most = counts >= 0.75 * _BLOCK**3
    return np.sqrt(squares[most] / counts[most]).astype(np.float32)


def _block_sum(image: NDArray[np.generic]) -> NDArray[np.float64]:
    x, y, z = (n // _BLOCK for n in image.shape)
    blocks = image.astype(np.float64).reshape(x, _BLOCK, y, _BLOCK, z, _BLOCK)
    out: NDArray[np.float64] = blocks.sum(axis=(1, 3, 5))
    return out
