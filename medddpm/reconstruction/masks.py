"""Which lines an accelerated scan measures: retrospective undersampling, seeded."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import ConfigError

MaskKind = Literal["vd2d", "vd1d", "uniform", "poisson"]
Lines = NDArray[np.bool_]

_POWER = 3.0
"""Density falls off as (1 - r)^3 from the middle of k-space to its edge."""
_BISECTIONS = 40
_POISSON_BISECTIONS = 10
_GROWTH = 3.0
"""How much farther apart points of the disc lie at the edge than in the middle."""


def sampling_lines(
    kind: MaskKind, shape: tuple[int, int], acceleration: float, *, acs: int = 24, seed: int = 0
) -> Lines:
    """(ky, kz) of the lines that are measured; the same seed gives the same lines.

    Args:
        kind: "vd2d" and "vd1d" are random with a density that falls off from the middle, over both
            axes or over ky alone; "uniform" is every R-th line along ky; "poisson" a disc whose
            points keep their distance (Bridson 2007; variable as by Vasanawala et al. 2011).
        shape: Lines along ky and kz; kz is 1 for slices.
        acceleration: R, lines of the grid over lines that are measured, the middle included
            (uniform: without it, as scanners count).
        acs: Lines in the middle of each encoded axis that are all measured; 0 for none.
        seed: Of the random kinds.

    Raises:
        ConfigError: The middle alone has more lines than R leaves, or a number is out of range.
    """
    if kind not in get_args(MaskKind):
        known = ", ".join(get_args(MaskKind))
        raise ConfigError(f"mask {kind!r} is unknown; choose one of {known}")
    if not (np.isfinite(acceleration) and acceleration >= 1) or acs < 0:
        raise ConfigError(f"R is {acceleration} and acs {acs}; R is 1 or more, acs 0 or more")
    if kind in ("vd2d", "poisson") and shape[1] == 1:
        raise ConfigError(f"mask {kind} needs two encoded axes, and this scan has one; use vd1d")
    rng = np.random.default_rng(seed)
    flat = kind in ("vd1d", "uniform")
    size = (shape[0], 1) if flat else shape
    centre = middle(size, acs)
    wanted = size[0] * size[1] / acceleration
    if kind == "uniform":
        step = round(acceleration)
        chosen = ((np.arange(size[0]) - size[0] // 2) % step == 0)[:, None] | centre
    else:
        if centre.sum() > wanted:
            raise ConfigError(
                f"{acs} lines of calibration are {centre.sum()} of {centre.size}, more than R "
                f"{acceleration:g} leaves; give fewer, or a smaller R"
            )
        pick = _random if kind != "poisson" else _disc
        chosen = pick(size, wanted, centre, rng)
    return np.broadcast_to(chosen, shape).copy()


def middle(shape: tuple[int, int], acs: int) -> Lines:
    """(ky, kz), so many lines in the middle of both axes.

    Args:
        shape: Lines along ky and kz.
        acs: Lines of the middle.
    """
    parts = []
    for length in shape:
        start = length // 2 - min(acs, length) // 2
        place = np.arange(length)
        parts.append((place >= start) & (place < start + min(acs, length)))
    return parts[0][:, None] & parts[1]


def _radius(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Distance from the middle, 1 at the corners (2D) or at the ends (1D)."""
    places = [(np.arange(n) - n // 2) / max(n / 2, 1) for n in shape]
    radius = np.sqrt(places[0][:, None] ** 2 + places[1] ** 2)
    return np.asarray(radius / max(float(radius.max()), 1e-9))


def _random(
    shape: tuple[int, int], wanted: float, centre: Lines, rng: np.random.Generator
) -> Lines:
    """Each line on its own, by a density whose sum is what is wanted; then exactly so many."""
    density = (1 - _radius(shape) * (1 - 1e-3)) ** _POWER
    low, high = 0.0, 1e6
    for _ in range(_BISECTIONS):
        factor = (low + high) / 2
        probability = np.where(centre, 1.0, np.minimum(1, factor * density))
        low, high = (factor, high) if probability.sum() < wanted else (low, factor)
    # Efraimidis and Spirakis 2006: the largest keys are a weighted sample without replacement.
    keys = np.where(centre, np.inf, np.log(rng.random(shape)) / np.maximum(probability, 1e-12))
    order = np.argsort(-keys, axis=None, kind="stable")
    chosen = np.zeros(centre.size, bool)
    chosen[order[: round(wanted)]] = True
    return chosen.reshape(shape)


def _disc(shape: tuple[int, int], wanted: float, centre: Lines, rng: np.random.Generator) -> Lines:
    """Points in random order, each kept if none that was kept before lies within its distance."""
    order = rng.permutation(np.flatnonzero(~centre))
    spread = 1 + (_GROWTH - 1) * _radius(shape)
    low, high = 0.0, 20.0
    best = centre
    for _ in range(_POISSON_BISECTIONS):
        distance = (low + high) / 2
        found = _darts(order, distance * spread, centre)
        if abs(found.sum() - wanted) < abs(best.sum() - wanted):
            best = found
        low, high = (distance, high) if found.sum() > wanted else (low, distance)
    return best


def _darts(order: NDArray[np.intp], reach: NDArray[np.float64], centre: Lines) -> Lines:
    chosen, free = centre.copy(), ~centre
    height, width = centre.shape
    for place in order:
        y, z = divmod(int(place), width)
        if not free[y, z]:
            continue
        chosen[y, z] = True
        r = float(reach[y, z])
        n = int(r)
        top, left = max(0, y - n), max(0, z - n)
        rows = np.arange(top, min(height, y + n + 1))[:, None] - y
        columns = np.arange(left, min(width, z + n + 1)) - z
        near = rows**2 + columns**2 <= r * r
        free[top : top + near.shape[0], left : left + near.shape[1]] &= ~near
    return chosen
