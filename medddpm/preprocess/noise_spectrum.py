"""A power spectrum of noise that was measured elsewhere, as a colour."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import ConfigError
from medddpm.preprocess.noise_law import Colour

_EMPTY = 0.01
"""Of the largest power of a line: less is no noise."""
_KNOTS = 9
"""Of a window."""
_CORNER = 0.2
"""Of the power that the windows say: corners with less are missing."""


def colour_of_power(power: NDArray[Any]) -> Colour:
    """The colour that comes closest to a power spectrum: edges, windows, an ellipse.

    Args:
        power: (X, Y, Z) on the grid of the scan's FFT, frequency 0 first, in any unit.

    Raises:
        ConfigError: It holds what no power is, or frequency 0 stands in the middle.
    """
    power = np.asarray(power, np.float64)
    if power.ndim != 3 or not np.isfinite(power).all() or power.min() < 0 or power.max() <= 0:
        raise ConfigError("a power spectrum is (X, Y, Z), finite, zero or more, and not all zero")
    ends = [_octant(power), _octant(np.fft.ifftshift(power))]
    if ends[1][:2, :2, :2].mean() > 2 * ends[0][:2, :2, :2].mean():
        raise ConfigError(
            "the spectrum has its power in the middle; frequency 0 is expected first, as "
            "numpy.fft.fftn has it (use numpy.fft.ifftshift)"
        )
    octant = ends[0]
    found = [_line(octant, axis) for axis in range(3)]
    edge = (found[0][0], found[1][0], found[2][0])
    windows = (found[0][1], found[1][1], found[2][1])
    colour = Colour(edge, (), windows)
    long = [a for a in range(3) if power.shape[a] >= 8]
    pairs = [p for p in ((0, 1), (0, 2), (1, 2)) if set(p) <= set(long)]
    bare = {a for p in pairs if _lacks_corner(octant, colour, p) for a in p}
    return Colour(edge, tuple(sorted(bare)), windows)


def _octant(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over both signs of each frequency, from 0 to Nyquist."""
    for axis, n in enumerate(power.shape):
        line = np.arange(n // 2 + 1)
        both = np.take(power, line, axis=axis) + np.take(power, (n - line) % n, axis=axis)
        power = both / 2
    return power


def _line(octant: NDArray[np.float64], axis: int) -> tuple[float, tuple[float, ...]]:
    """Edge and window along an axis, at the lowest frequencies of the others."""
    near = tuple(
        slice(None) if a == axis else slice(0, max(1, octant.shape[a] // 5)) for a in range(3)
    )
    line = octant[near].mean(axis=tuple(a for a in range(3) if a != axis))
    if len(line) < 3:
        return 1.0, (1.0,)
    f = np.linspace(0, 1, len(line))
    top = float(line[: max(1, len(line) // 8)].mean())
    there = np.flatnonzero(line > _EMPTY * top)
    last = int(there[-1]) if len(there) else 0
    edge = 1.0 if last >= len(line) - 2 else float(f[last] + 0.5 * f[1])
    amplitude = np.sqrt(np.maximum(line[: last + 1], 0) / max(top, 1e-30))
    knots = np.interp(np.linspace(0, edge, _KNOTS), f[: last + 1], amplitude)
    if np.ptp(knots) < 0.1:
        return edge, (1.0,)
    return edge, tuple(round(float(v), 4) for v in knots)


def _lacks_corner(octant: NDArray[np.float64], colour: Colour, pair: tuple[int, int]) -> bool:
    lines = [np.linspace(0, 1, n) for n in octant.shape]
    radius = sum(
        (lines[a] / colour.edge[a]).reshape([-1 if b == a else 1 for b in range(3)]) ** 2
        for a in pair
    )
    expected = colour.power(lines)
    other = ({0, 1, 2} - set(pair)).pop()
    low = (lines[other] < 0.3).reshape([-1 if b == other else 1 for b in range(3)])
    corner = (np.asarray(radius) > 1.1) & (expected > _EMPTY * expected.max()) & low
    inner = (np.asarray(radius) < 0.9) & (expected > _EMPTY * expected.max()) & low
    if corner.sum() < 4 or inner.sum() < 4:
        return False
    ratios = [float(octant[r].sum() / expected[r].sum()) for r in (corner, inner)]
    return ratios[0] < _CORNER * ratios[1]
