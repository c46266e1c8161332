"""Noise in small blocks of the body: its level and its colour.

The cosine transform of a block has anatomy in its first coefficients and noise in all of them.
The power of each coefficient is compared between the flattest blocks and busy ones: their
difference is the shape of anatomy, of which the flat blocks hold a small share t,

    flat_k = sigma^2 s_k^2 + t (busy_k - flat_k),

where s_k is the standard deviation that a colour gives to coefficient k (`Colour.block_std`).
Sigma, the windows of the colour and t are fitted to all coefficients together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from medddpm.preprocess.intensity import Mask
from medddpm.preprocess.noise import chi_moments
from medddpm.preprocess.noise_law import Colour, Image

Line = NDArray[np.float64]

_LEAST = 12
"""Voxels along an axis for blocks to extend along it."""
_F = (np.arange(16) + 0.5) / 16
"""Frequencies an axis at which the power of the coefficients is summed."""
_PLACES = (0.0, 1 / 3, 2 / 3, 1.0)
"""Of the window's free amplitudes, as fractions of the edge; the first is 1."""
_FEW, _MANY = 250, 3000
"""Flat blocks: a fifth of all, but at least and at most so many."""
_HALF_NORMAL = 0.5244
"""Quantile 0.4 of |n| for a standard normal n: lower than the median, as anatomy only adds."""
_HALF_NORMAL_TAIL = 1.6449
"""Quantile 0.9 of the same."""
_LOUD = 0.15
"""Share of the loudest variance: coefficients with less noise show anatomy alone."""
_DARK = 0.3
"""Blocks darker than this fraction of the scale are fluid, bone or air."""
_LEAST_ERROR, _MODEL_ERROR = 0.035, 2.5
"""Relative error of sigma at best, and times what the fit says of itself: in simulated
acquisitions of 11 scans two of three are then within one error."""
_NOTHING = 1e-7
"""Of the scale: less is the rounding of float32."""
_FIXED = 1e-6
"""Freedom of the log amplitudes of windows that are known."""
_ACCURACY = 0.03
"""Relative accuracy of a coefficient's spread, however many blocks there are."""


@dataclass(frozen=True)
class Blocks:
    """Blocks within the body.

    Attributes:
        size: Voxels of a block along each axis.
        coefficients: (N, K) cosine coefficients, K = product of `size`.
        means: (N,) mean intensity.
        slopes: (N,) mean square gradient of the smoothed image.
        centres: (N, 3) their centres, as fractions of the image along each axis.
    """

    size: tuple[int, int, int]
    coefficients: NDArray[np.float32]
    means: NDArray[np.float32]
    slopes: NDArray[np.float32]
    centres: NDArray[np.float32]

    def kept(self, which: NDArray[Any]) -> Blocks:
        """Those blocks alone, by a mask or by their numbers."""
        return Blocks(
            self.size,
            self.coefficients[which],
            self.means[which],
            self.slopes[which],
            self.centres[which],
        )


@dataclass(frozen=True)
class BlockFit:
    """Level and windows that explain the blocks.

    Attributes:
        sigma: Standard deviation of one real component of the noise.
        windows: Amplitudes along each axis, from the centre to the edge.
        error: Relative standard error of sigma.
        num_blocks: Flat blocks that were used.
        tail: Quantile 0.9 of their coefficients over quantile 0.4, relative to a Gaussian's: 1 in
            noise; anatomy, which is in some blocks and not in others, makes it larger.
    """

    sigma: float
    windows: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    error: float
    num_blocks: int
    tail: float = 1.0


def body_blocks(image: Image, mask: Mask, axes: Sequence[int], scale: float) -> Blocks | None:
    """Blocks of 4x4x4 voxels, or 8x8 where an axis is left out; None if there are too few.

    Args:
        image: (X, Y, Z).
        mask: The body.
        axes: Those along which blocks extend, if there are voxels enough.
        scale: Intensity scale; dark blocks are left out.
    """
    long = [a for a in axes if image.shape[a] >= _LEAST]
    if len(long) < 2:
        return None
    x, y, z = ((4 if len(long) == 3 else 8) if a in long else 1 for a in range(3))
    size, shape = (x, y, z), image.shape
    box = body_box(mask)
    image, mask = image[box], mask[box]
    slope = slope_of(image, long)[1]
    bases = [dct_basis(n) for n in size]
    parts = []
    for start in ((0, 0, 0), (x // 2, y // 2, z // 2)):
        whole = _cut(mask.astype(np.float32), size, start).mean(axis=(1, 2, 3)) > 0.999
        blocks = _cut(image, size, start)[whole]
        found = np.einsum("nxyz,ax,by,cz->nabc", blocks, *bases, optimize=True)
        parts.append(
            (
                found.reshape(len(found), int(np.prod(size))).astype(np.float32),
                blocks.mean(axis=(1, 2, 3)),
                _cut(slope, size, start)[whole].mean(axis=(1, 2, 3)),
                _centres(image.shape, size, start, box, shape)[whole],
            )
        )
    found_all = Blocks(size, *(np.concatenate(part) for part in zip(*parts, strict=True)))
    spread = np.median(np.abs(found_all.coefficients[:, -1])) if len(found_all.means) else 0.0
    if len(found_all.means) < 40 or spread < _NOTHING * scale:
        return None
    bright = min(_DARK * scale, float(np.median(found_all.means)))
    return found_all.kept(found_all.means >= bright)


def body_box(mask: Mask) -> tuple[slice, slice, slice]:
    """The box around the body, with a margin of 4 voxels."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    box = found[0] if found else [slice(0, n) for n in mask.shape]
    x, y, z = (
        slice(max(0, b.start - 4), min(n, b.stop + 4)) for b, n in zip(box, mask.shape, strict=True)
    )
    return x, y, z


def _centres(
    part: tuple[int, ...],
    size: tuple[int, int, int],
    start: tuple[int, int, int],
    box: tuple[slice, slice, slice],
    shape: tuple[int, ...],
) -> NDArray[np.float32]:
    """(N, 3) centres of whole blocks from a corner of a box on, as fractions of the image."""
    lines = [
        (place.start + s + b * (np.arange((m - s) // b) + 0.5)) / n
        for m, b, s, place, n in zip(part, size, start, box, shape, strict=True)
    ]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
    return grid.reshape(-1, 3).astype(np.float32)


def slope_of(image: Image, axes: Sequence[int]) -> tuple[Image, Image]:
    """The image smoothed over two voxels along `axes`, and the square of its gradient."""
    smooth = ndimage.gaussian_filter(image, [2.0 if a in axes else 0.0 for a in range(3)])
    slope = np.zeros_like(smooth)
    for axis in axes:
        lines, out = np.moveaxis(smooth, axis, 0), np.moveaxis(slope, axis, 0)
        if len(lines) > 2:
            out[1:-1] += np.square(0.5 * (lines[2:] - lines[:-2]))
            out[0] += np.square(lines[1] - lines[0])
            out[-1] += np.square(lines[-1] - lines[-2])
    return smooth, slope


def _cut(image: Image, size: tuple[int, int, int], start: tuple[int, int, int]) -> Image:
    """(N, x, y, z): whole blocks from a corner on."""
    part = image[
        tuple(
            slice(s, s + (n - s) // b * b) for s, n, b in zip(start, image.shape, size, strict=True)
        )
    ]
    x, y, z = (n // b for n, b in zip(part.shape, size, strict=True))
    cut = part.reshape(x, size[0], y, size[1], z, size[2]).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(-1, *size)


def dct_basis(n: int) -> NDArray[np.float32]:
    """(n, n) rows of the orthonormal DCT-II."""
    i = np.arange(n)
    basis = np.cos(np.pi / n * (i + 0.5) * i[:, None]) * np.sqrt(2 / n)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, np.float32)


def fit_blocks(
    blocks: Blocks,
    support: Colour,
    dof: int,
    sigma: float | None = None,
    *,
    windows_known: bool = False,
) -> BlockFit:
    """Sigma and the windows of noise with a known support.

    Args:
        blocks: Of the body.
        support: Colour of white noise on the support, on the grid of the blocks.
        dof: Real components 2 L of the magnitude; 0 is Gaussian noise.
        sigma: Where the air told the level: the windows alone are then fitted.
        windows_known: `support` has them: the level alone is fitted.
    """
    order = np.argsort(blocks.slopes)
    total = len(order)
    num_flat = int(np.clip(total // 5, min(total, _FEW), _MANY))
    flat = order[:num_flat]
    busy = order[int(0.4 * total) : int(0.85 * total)]
    model = _Model(blocks.size, support, _FIXED if windows_known else 4.0)
    level, fit = sigma, None
    for _ in range(2):
        unit = law_spread(blocks.means, level, dof)
        powers = [_power(blocks.coefficients[i], unit[i])[1:] for i in (flat, busy)]
        fit = model.fit(powers[0], powers[1], num_flat, sigma)
        level = fit.sigma
    assert fit is not None
    fit = replace(fit, windows=support.window) if windows_known else fit
    seen = noise_variance(blocks.size, replace(support, window=fit.windows))[1:]
    loud = seen > _LOUD * np.partition(seen, -2)[-2]
    return replace(fit, tail=_tail(blocks.coefficients[flat, 1:][:, loud] / unit[flat, None]))


def law_spread(means: NDArray[np.float32], sigma: float | None, dof: int) -> Line:
    """Standard deviation of the magnitude in units of sigma, at the mean of each block."""
    if sigma is None or dof == 0 or sigma <= 0:
        return np.ones(len(means))
    theta = np.linspace(0, 30, 601)
    mean, variance = chi_moments(theta, dof)
    return np.asarray(np.sqrt(np.interp(means / sigma, mean, variance)))


def _power(coefficients: NDArray[np.float32], unit: Line) -> Line:
    scaled = np.abs(coefficients) / unit[:, None].astype(np.float32)
    spread = np.quantile(scaled, 0.4, axis=0) / _HALF_NORMAL
    return np.square(spread.astype(np.float64))


def _tail(coefficients: NDArray[np.float64]) -> float:
    low, high = np.quantile(np.abs(coefficients), [0.4, 0.9], axis=0)
    return float(np.median(high / np.maximum(low, 1e-30))) * _HALF_NORMAL / _HALF_NORMAL_TAIL


def noise_variance(size: tuple[int, int, int], colour: Colour) -> Line:
    """(K,) variance of each coefficient in noise of a colour and of unit variance a voxel."""
    power = colour.power([_F] * 3).astype(np.float64)
    return _block_variance(power, [_bands(n, _F) for n in size])


def _block_variance(power: Line, bands: list[Line]) -> Line:
    out = power / power.sum()
    for band in bands:  # each step takes the first axis and puts it last
        out = np.tensordot(out, band, (0, 1))
    return np.asarray(out.ravel())


class _Model:
    """The power of each coefficient but the first, as a function of sigma, windows and anatomy."""

    def __init__(self, size: tuple[int, int, int], support: Colour, freedom: float) -> None:
        self.freedom = freedom
        self.axes = [a for a in range(3) if size[a] > 1]
        self.support = support
        self._base = support.power([_F] * 3).astype(np.float64)
        self._bands = [_bands(n, _F) for n in size]
        orders = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"))
        order = orders.reshape(3, -1) / np.maximum(np.array(size) - 1, 1)[:, None]
        self._fine = (np.sqrt(np.sum(order**2, axis=0) / len(self.axes)) > 0.6)[1:]

    def noise(self, logs: Line) -> Line:
        """Variances of the coefficients for windows of these log amplitudes."""
        power = self._base
        for axis, line in zip(self.axes, logs.reshape(-1, 3), strict=True):
            f = np.minimum(_F / self.support.edge[axis], 1)
            window = np.exp(2 * np.interp(f, _PLACES, [0.0, *line]))
            power = power * window.reshape([-1 if a == axis else 1 for a in range(3)])
        return _block_variance(power, self._bands)[1:]

    def fit(self, flat: Line, busy: Line, count: int, sigma: float | None) -> BlockFit:
        top = float(np.median(flat[self._fine])) + 1e-30
        flat, anatomy = flat / top, np.maximum(busy - flat, 0) / top
        accuracy = np.hypot(1.3 / np.sqrt(count), _ACCURACY)
        num = 3 * len(self.axes)

        def residual(p: Line) -> Line:
            noise = np.exp(2 * p[0]) * self.noise(p[1:-1])
            expected = noise + np.exp(p[-1]) * anatomy + 1e-3
            parts = [0.5 * np.log((flat + 1e-6) / expected) / accuracy, _prior(p[1:-1])]
            if sigma is not None:
                parts.append(np.array([(p[0] - np.log(sigma / np.sqrt(top))) / 0.02]))
            return np.concatenate(parts)

        start = np.concatenate([[0.0], np.zeros(num), [-4.0]])
        low = np.concatenate([[-4.0], np.full(num, -self.freedom), [-14.0]])
        high = np.concatenate([[3.0], np.full(num, min(0.45, self.freedom)), [1.0]])
        found = optimize.least_squares(
            residual, start, bounds=(low, high), loss="soft_l1", max_nfev=40
        )
        share = np.exp(found.x[-1]) * anatomy[self._fine] / np.maximum(flat[self._fine], 1e-6)
        covariance = np.linalg.pinv(found.jac.T @ found.jac)
        spread = np.hypot(np.sqrt(float(covariance[0, 0])), 0.7 * float(np.median(share)))
        error = np.hypot(_LEAST_ERROR, _MODEL_ERROR * spread)
        level = float(np.exp(found.x[0]) * np.sqrt(top))
        return BlockFit(level, self._windows(found.x[1:-1]), float(error), count)

    def _windows(
        self, logs: Line
    ) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        windows: list[tuple[float, ...]] = [(1.0,)] * 3
        for axis, line in zip(self.axes, logs.reshape(-1, 3), strict=True):
            f = np.linspace(0, 1, 7)
            windows[axis] = tuple(
                round(float(v), 4) for v in np.exp(np.interp(f, _PLACES, [0.0, *line]))
            )
        return windows[0], windows[1], windows[2]


def _bands(n: int, f: Line) -> Line:
    """Power response of each row of the DCT at frequencies f of Nyquist."""
    phase = np.exp(-1j * np.pi * np.arange(n)[:, None] * f)
    return np.asarray(np.abs(dct_basis(n).astype(np.float64) @ phase) ** 2)


def _prior(logs: Line) -> Line:
    """Windows are more likely flat than not, and smooth."""
    line = logs.reshape(-1, 3)
    parts = [line / 0.4, (line[:, 1:2] - 2 * line[:, :1]) / 0.3]
    parts.append((line[:, 2:] - 2 * line[:, 1:2] + line[:, :1]) / 0.5)
    return np.concatenate([p.ravel() for p in parts])


def flat_tissue(image: Image, mask: Mask, axes: Sequence[int], scale: float) -> Mask:
    """The flattest quarter of the body, away from its border and not dark."""
    box, out = body_box(mask), np.zeros(mask.shape, bool)
    image, mask = image[box], mask[box]
    smooth, slope = slope_of(image, axes)
    cross = ndimage.generate_binary_structure(3, 1)
    for axis in set(range(3)) - set(axes):
        cross = cross & (np.arange(3) == 1).reshape([-1 if a == axis else 1 for a in range(3)])
    inner: Mask = ndimage.binary_erosion(mask, cross, iterations=3)
    if inner.sum() < 1000:
        inner = mask.copy()
    inner &= smooth > min(0.35 * scale, float(np.median(smooth[inner])))
    out[box] = inner & (slope <= np.quantile(slope[inner], 0.25))
    return out
