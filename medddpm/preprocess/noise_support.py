"""Where the spectrum of a scan ends: the part of k-space that was measured.

A scanner fills what it did not measure with zeros, so the power of a scan drops by 10 dB and more
within a few samples of k-space, where anatomy alone would fall by one. The magnitude of the air
leaks beyond that edge, so the body is looked at alone, faded out at its border. What is beyond a
drop may still be noise (white noise that was added to a zero-filled scan): an edge is one only if
flat tissue is far quieter beyond it than within.

What a header says of an edge is one more candidate, which flat tissue must confirm too. It decides
where flat tissue cannot tell, and it places an edge that the spectrum shows less exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from medddpm.preprocess.intensity import Mask
from medddpm.preprocess.noise_law import Colour, Image

Triple = tuple[float, float, float]
Hint = tuple[float | None, float | None, float | None]
Line = NDArray[np.float64]

_LEAST = 16
"""Voxels along an axis for its spectrum to be looked at."""
_FADE = 3.0
"""Standard deviation, in voxels, of the border at which the body fades out."""
_BESIDE = (0.04, 0.14)
"""Frequencies along the other axes at which an axis is looked at: a profile of its edge."""
_QUIET = (0.15, 0.45)
"""The same, where anatomy is weak: for the noise within and beyond the edge."""
_LEAST_DROP = 2.0
"""dB of a drop that the slopes on its two sides do not explain."""
_SHARP = 12.0
"""A drop by so many dB is that of a box: it shows where it is; a lesser one is a filter's end."""
_CANDIDATES = 4
"""Drops along an axis, the largest first, that are asked for their noise."""
_LEAST_FALL = 14.0
"""dB by which flat tissue is quieter beyond an edge; white noise over a scan that was zero-filled
reaches 13, as anatomy is left within the edge."""
_CORNER_FALL = 10.0
"""The same for the corners beyond an ellipse."""
_CORNER_DROP = 6.0
"""dB of the drop at an ellipse."""
_RINGS = ((0.75, 0.88), (0.88, 0.97), (1.04, 1.14), (1.14, 1.28))
"""Radii within and beyond an ellipse, in units of the edges."""
_STEEPER = 0.7
"""Distance of the first two rings over that of the two beside the ellipse."""
_SHIFT = 0.02
"""The drop is steepest this far beyond the edge, as the border of the body blurs the spectrum."""
_WHOLE = 0.95
"""An edge beyond this is none: too little is left to see the floor."""
_ROLLS = (0.0, 0.15, 0.3, 0.6, 1.0)
"""Shares of the band over which a filter may roll the spectrum off."""
_LEAST_APART = 0.04
"""Of Nyquist: an edge in a header and one in the spectrum that are closer are the same."""
_EMPTY = 8.0
"""Times more power in any plane of k-space within an edge than in any beyond, where zeros were
filled in: a signal that decays has 2 from one plane to the next, but for the innermost."""
_INNERMOST = 0.3
"""Of Nyquist: no scanner measures less."""
_GRID = np.linspace(0, 1.3, 521)
_BLUR = np.exp(-0.5 * ((_GRID - 0.65) / 0.02) ** 2)
_BLUR /= _BLUR.sum()
_HALF_NORMAL = 0.5244
"""Quantile 0.4 of |n| for a standard normal n."""


@dataclass(frozen=True)
class Support:
    """The part of k-space that holds signal and noise.

    Attributes:
        edge: Fraction of Nyquist along each axis, 1 where the whole of k-space is filled.
        elliptical: Axes over which the corners are missing.
        error: Standard error of each edge.
    """

    edge: Triple = (1.0, 1.0, 1.0)
    elliptical: tuple[int, ...] = ()
    error: Triple = (0.0, 0.0, 0.0)

    def colour(self) -> Colour:
        """White noise on that part."""
        return Colour(self.edge, self.elliptical)


def find_support(
    image: Image, mask: Mask, flat: Mask, axes: Sequence[int], hint: Hint = (None, None, None)
) -> Support:
    """Where the spectrum of a scan ends along each axis, and whether its corners are missing.

    Args:
        image: (X, Y, Z).
        mask: The body.
        flat: Voxels of flat tissue, in which the noise is seen.
        axes: Those that are not across thick slices: corners may be missing over them.
        hint: Where a header says that each edge is, None where it does not.
    """
    spectrum = _Spectrum.of(image, mask, flat)
    if spectrum is None:
        return Support()
    found = [_hinted(spectrum, axis, hint[axis]) for axis in range(3)]
    edge = (found[0][0], found[1][0], found[2][0])
    error = (found[0][1], found[1][1], found[2][1])
    return Support(edge, _ellipse(spectrum, edge, axes), error)


def filled_edges(image: NDArray[np.complex64]) -> Hint:
    """Where the k-space of a complex image ends along each axis, as zeros beyond it show.

    Of a magnitude this cannot be seen: it is no linear function of what was measured.

    Args:
        image: (X, Y, Z), as it was read: without its phase k-space is blurred.

    Returns:
        Fractions of Nyquist, None where all of it is filled, or it ends smoothly.
    """
    power = np.square(np.abs(fft.fftn(image)))
    found: list[float | None] = []
    for axis, length in enumerate(image.shape):
        profile = power.mean(axis=tuple(a for a in range(3) if a != axis))
        half = length // 2
        both = 0.5 * (profile[:half] + np.roll(profile[::-1], 1)[:half])
        least, most = np.minimum.accumulate(both), np.maximum.accumulate(both[::-1])[::-1]
        ratio = least[:-1] / np.maximum(most[1:], 1e-30) if length >= _LEAST else np.zeros(1)
        ratio[: int(_INNERMOST * half)] = 0
        last = int(np.argmax(ratio))
        found.append((last + 0.5) / (length / 2) if ratio[last] > _EMPTY else None)
    return found[0], found[1], found[2]


def first_known(seen: Hint, told: Hint) -> Hint:
    """What was seen along each axis, else what was told."""
    x, y, z = (told[a] if seen[a] is None else seen[a] for a in range(3))
    return x, y, z


def crop_shape(shape: Sequence[int], edge: Sequence[float]) -> tuple[int, int, int]:
    """Voxels of the smallest grid that holds the box of a support."""
    x, y, z = (
        n if n < _LEAST else max(8, int(np.ceil(e * n - 1e-6)))
        for e, n in zip(edge, shape, strict=True)
    )
    return x, y, z


@dataclass(frozen=True)
class _Spectrum:
    """The Fourier transform of the faded body, and where flat tissue is."""

    values: NDArray[np.complex64]
    power_db: Image
    frequencies: list[Line]
    fade: Image
    flat: Mask

    @classmethod
    def of(cls, image: Image, mask: Mask, flat: Mask) -> _Spectrum | None:
        fade = ndimage.gaussian_filter(_eroded(mask).astype(np.float32), _FADE, truncate=3.0)
        found = ndimage.find_objects((fade > 0.01).astype(np.uint8))
        if not found:
            return None
        box = found[0]
        fade, image = fade[box], image[box]
        for axis, n in enumerate(fade.shape):
            fade = fade * along(_taper(n, min(8, n // 4)), axis)
        values = fft.rfftn(fade * image)
        power = 10 * np.log10(np.square(np.abs(values)) + np.float32(1e-20))
        x, y, z = image.shape
        lines = [np.abs(np.fft.fftfreq(x)) * 2, np.abs(np.fft.fftfreq(y)) * 2]
        lines.append(np.fft.rfftfreq(z) * 2)
        return cls(values, power, lines, fade, flat[box] & (fade > 0.5))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.fade.shape

    def profile(self, axis: int) -> tuple[Line, Line]:
        """Frequencies from 0 to 1 and mean log power in dB at low frequencies of other axes."""
        region = self.band({axis: (0.0, 1.0)}, _BESIDE)
        other = tuple(a for a in range(3) if a != axis)
        weight = np.broadcast_to(region, self.power_db.shape)
        total = np.sum(self.power_db * weight, axis=other) / np.sum(weight, axis=other)
        half = self.shape[axis] // 2 + 1
        return self.frequencies[axis][:half], total[:half].astype(np.float64)

    def band(self, ranges: dict[int, tuple[float, float]], others: tuple[float, float]) -> Image:
        """1 where each frequency is in its range, of the shape of the spectrum or broadcast."""
        out = np.ones((1, 1, 1), np.float32)
        for axis, line in enumerate(self.frequencies):
            low, high = ranges.get(axis, others)
            if self.shape[axis] < _LEAST and axis not in ranges:
                low, high = 0.0, 1.0
            out = out * along(((line >= low) & (line <= high)).astype(np.float32), axis)
        return out

    def mean_db(self, region: Image) -> float:
        """Mean log power in a region of k-space, in dB."""
        weight = np.broadcast_to(region, self.power_db.shape)
        return float(np.sum(self.power_db * weight) / max(float(np.sum(weight)), 1.0))

    def quiet_level(self, region: Image) -> float:
        """Noise density of flat tissue in a region of k-space: standard deviation of white noise.

        NaN where the region holds too few samples, or there is no flat tissue.
        """
        region = np.broadcast_to(region, self.values.shape)
        share = float(region.mean())
        if share * self.values.size < 32 or self.flat.sum() < 100:
            return float("nan")
        part = fft.irfftn(self.values * region, s=self.shape)
        spread = np.quantile(np.abs(part[self.flat]) / self.fade[self.flat], 0.4) / _HALF_NORMAL
        return float(spread / np.sqrt(share))


def along(line: NDArray[Any], axis: int) -> NDArray[Any]:
    """A line as a (1, n, 1) array along an axis."""
    return line.reshape([-1 if a == axis else 1 for a in range(3)])


def _eroded(mask: Mask) -> Mask:
    inner: Mask = ndimage.binary_erosion(mask, iterations=2)
    return inner if inner.sum() > 0.2 * mask.sum() else mask


def _taper(n: int, length: int) -> NDArray[np.float32]:
    out = np.ones(n, np.float32)
    rise = np.sin(np.pi / 2 * (np.arange(length) + 0.5) / max(length, 1)) ** 2
    out[:length] *= rise
    out[n - length :] *= rise[::-1]
    return out


def _hinted(spectrum: _Spectrum, axis: int, hint: float | None) -> tuple[float, float]:
    """The edge along an axis and its error, with a place that a header names."""
    edge, error = _edge(spectrum, axis)
    if hint is None or hint >= _WHOLE or spectrum.shape[axis] < _LEAST:
        return edge, error
    exact = float(spectrum.frequencies[axis][1]) / 2
    if edge < 1:
        agrees = abs(edge - hint) <= max(_LEAST_APART, 2 * error)
        return (hint, exact) if agrees else (edge, error)
    f, power = spectrum.profile(axis)
    near = np.abs(f - hint - _SHIFT) < _LEAST_APART
    if max((_drop(f, power, float(place)) for place in f[near]), default=0.0) <= 0:
        return edge, error
    fall = _fall(spectrum, axis, hint)
    return (hint, exact) if np.isnan(fall) or fall > _LEAST_FALL else (edge, error)


def _edge(spectrum: _Spectrum, axis: int) -> tuple[float, float]:
    """The edge along an axis and its error; (1, 0) where there is none."""
    if spectrum.shape[axis] < _LEAST:
        return 1.0, 0.0
    f, power = spectrum.profile(axis)
    largest = sorted(drops(f, power), key=lambda found: -found[1])[:_CANDIDATES]
    real = (
        (place - _SHIFT, drop)
        for place, drop in largest
        if place - _SHIFT < _WHOLE and _falls(spectrum, axis, place - _SHIFT)
    )
    best, most = next(real, (1.0, 0.0))
    if best == 1:
        return 1.0, 0.0
    edge, roll = (best, 0.0) if most > _SHARP else _fitted(f, power, best)
    if edge > _WHOLE:
        return 1.0, 0.0
    return edge, float(np.hypot(f[1], 0.015 + 0.04 * roll))


def _fitted(f: Line, power: Line, guess: float) -> tuple[float, float]:
    """The edge, and the share of the band below it over which a cosine rolls it off.

    Within the edge the profile is a parabola in dB, times the roll-off blurred by the fading of
    the body; beyond it there is a floor, a line in dB.
    """
    near = (f >= max(0.15, guess - 0.3)) & (f <= guess + 0.3)
    best = (np.inf, guess, 0.0)
    for edge in np.arange(guess - 0.06, min(1.02, guess + 0.22), 0.01):
        floor = _floor(f, power, edge)
        above = np.maximum(10 ** (power / 10) - floor, 1e-30)
        for roll in _ROLLS:
            window = _rolled_off(f, edge, roll)
            used = near & (f < edge) & (window > 1e-3) & (above > 0.3 * floor)
            if used.sum() < 5:
                continue
            rest = 10 * np.log10(above[used] / window[used])
            shape = np.polynomial.Polynomial.fit(f[used], rest, 2)
            expected = 10 * np.log10(10 ** (shape(f) / 10) * window + floor)
            cost = float(np.mean(np.minimum(np.abs(power - expected)[near], 3)))
            cost += 0.1 * roll + 0.004 * max(0.0, float(shape.deriv()(edge)))
            best = min(best, (cost, float(edge), roll))
    return best[1], best[2]


def _floor(f: Line, power: Line, edge: float) -> Line:
    """Power beyond an edge, continued to all frequencies."""
    beyond = (f > edge + 0.05) & (f <= edge + 0.35)
    if beyond.sum() < 2:
        return np.full_like(f, 10 ** (power[-2:].min() / 10))
    line = np.polyfit(f[beyond] - edge, power[beyond], 1 if beyond.sum() >= 5 else 0)
    level = np.polyval(line, f - edge)
    limit = np.polyval(line, 0.0) + 30 * np.maximum(edge - f, 0)
    return np.asarray(10 ** (np.where(f < edge, np.minimum(level, limit), level) / 10))


@lru_cache(maxsize=1024)
def _roll_off(edge: float, roll: float) -> Line:
    """Power of a cosine roll-off, blurred, at `_GRID`."""
    u = _GRID / edge
    rising = 0.5 + 0.5 * np.cos(np.pi * np.clip((u - 1 + roll) / max(roll, 1e-6), 0, 1))
    return np.convolve(np.where(u <= 1, rising**2, 0), _BLUR, "same")


def _rolled_off(f: Line, edge: float, roll: float) -> Line:
    return np.interp(f, _GRID, _roll_off(round(float(edge), 4), roll))


def _falls(spectrum: _Spectrum, axis: int, edge: float) -> bool:
    """True if flat tissue is far quieter beyond the edge than within it."""
    return _fall(spectrum, axis, edge) > _LEAST_FALL


def _fall(spectrum: _Spectrum, axis: int, edge: float) -> float:
    """DB by which flat tissue is quieter beyond the edge; NaN where it cannot be told."""
    inside = spectrum.band({axis: (0.65 * edge, 0.9 * edge)}, _QUIET)
    start = min(edge + 0.05, 1 - 2 * float(spectrum.frequencies[axis][1]))
    beyond = spectrum.band({axis: (start, min(edge + 0.35, 1.0))}, _QUIET)
    levels = spectrum.quiet_level(inside), spectrum.quiet_level(beyond)
    return fall_db(*levels) if np.isfinite(levels).all() else float("nan")


def fall_db(inside: float, beyond: float) -> float:
    """Ratio of two amplitudes in dB."""
    return 20 * float(np.log10(max(inside, 1e-20) / max(beyond, 1e-20)))


def drops(f: Line, power: Line) -> list[tuple[float, float]]:
    """Frequencies at which a profile drops, each with its drop in dB, the innermost first.

    At each place a parabola on the left and a line on the right are fitted, a gap apart; the drop
    is what is missing across the gap that the slopes do not explain.
    """
    found = [(place, _drop(f, power, place)) for place in f[(f > 0.35) & (f < 0.985)]]
    out = []
    for i, (place, drop) in enumerate(found):
        near = [d for _, d in found[max(0, i - 4) : i + 5]]
        if drop == max(near) and drop > _LEAST_DROP:
            out.append((float(place), drop))
    return out


def _drop(f: Line, power: Line, place: float) -> float:
    left = (f > place - 0.2) & (f < place - 0.02)
    right = (f > place + 0.03) & (f < place + 0.2)
    if right.sum() < 2:
        right = f > place
    if left.sum() < 4 or right.sum() < 1:
        return 0.0
    before = np.polyfit(f[left] - place, power[left], 2 if left.sum() >= 6 else 1)
    after = np.polyfit(f[right] - place, power[right], 1 if right.sum() >= 4 else 0)
    explained = 0.05 * float(np.clip(-before[-2], 0, 60))
    return float(np.polyval(before, -0.02) - np.polyval(after, 0.03)) - explained


def _ellipse(spectrum: _Spectrum, edge: Triple, axes: Sequence[int]) -> tuple[int, ...]:
    """Axes over which the corners of the box are empty."""
    long = [a for a in axes if spectrum.shape[a] >= _LEAST]
    pairs = [p for p in combinations(long, 2) if _lacks_corners(spectrum, p, edge)]
    return tuple(sorted({a for pair in pairs for a in pair}))


def _lacks_corners(spectrum: _Spectrum, pair: tuple[int, int], edge: Triple) -> bool:
    """True if the power drops at the ellipse, and not as steadily as by a filter."""
    lines = [spectrum.frequencies[a] / edge[a] for a in pair]
    radius = np.sqrt(along(lines[0] ** 2, pair[0]) + along(lines[1] ** 2, pair[1]))
    other = ({0, 1, 2} - set(pair)).pop()
    oblique = {a: (0.35 * edge[a], 0.97 * edge[a]) for a in pair}
    box = spectrum.band(oblique | {other: (0.0, 0.35 * edge[other])}, _QUIET)
    rings = [box * ((radius > low) & (radius < high)) for low, high in _RINGS]
    falls = -np.diff([spectrum.mean_db(ring) for ring in rings])
    if falls[1] < _CORNER_DROP or _STEEPER * falls[1] < falls[0] + _LEAST_DROP:
        return False
    levels = [spectrum.quiet_level(rings[0] + rings[1]), spectrum.quiet_level(rings[2] + rings[3])]
    return bool(np.isfinite(levels).all()) and fall_db(*levels) > _CORNER_FALL
