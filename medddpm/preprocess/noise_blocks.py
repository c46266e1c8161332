"""Noise in small blocks of flat tissue: its level and its colour.

The cosine transform of a block of flat tissue has its anatomy in the first coefficients and noise
in the last. Each coefficient of noise has a standard deviation that follows from the spectrum
(`Colour.block_std`), so level and window are fitted to those of all blocks together, while
anatomy, which only adds, is allowed to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from medddpm.preprocess.intensity import Mask
from medddpm.preprocess.noise_law import Colour, Image

_KNOTS = 24
_HALF_NORMAL = 0.5244
"""Quantile 0.4 of |n| for a standard normal n."""
_FLAT_SHARE = 0.5


@dataclass(frozen=True)
class Blocks:
    """Blocks of flat tissue.

    Attributes:
        size: Voxels of a block an axis.
        coefficients: (N, K) cosine coefficients, K = product of `size`.
        means: (N,) mean intensity of each block.
    """

    size: tuple[int, int, int]
    coefficients: NDArray[np.float32]
    means: NDArray[np.float32]


def flat_blocks(image: Image, flat: Mask, axes: tuple[int, ...]) -> Blocks:
    """Blocks of 4x4x4 voxels, or 8x8 across thick slices, of which half is flat tissue.

    Args:
        image: (X, Y, Z).
        flat: Voxels of flat tissue.
        axes: Those that are not across thick slices.
    """
    x, y, z = ((4 if len(axes) == 3 else 8) if a in axes else 1 for a in range(3))
    size = (x, y, z)
    coefficients, means = [], []
    bases = [dct_basis(n) for n in size]
    for start in {(0, 0, 0), (x // 2, y // 2, z // 2)}:
        share = _blocks(flat.astype(np.float32), size, start).mean(axis=(1, 2, 3))
        blocks = _blocks(image, size, start)[share >= _FLAT_SHARE]
        found = np.einsum("nxyz,ax,by,cz->nabc", blocks, *bases, optimize=True)
        coefficients.append(found.reshape(len(found), -1).astype(np.float32))
        means.append(blocks.mean(axis=(1, 2, 3)))
    return Blocks(size, np.concatenate(coefficients), np.concatenate(means))


def _blocks(image: Image, size: tuple[int, int, int], start: tuple[int, int, int]) -> Image:
    """(N, x, y, z), whole blocks from a corner on."""
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
    return basis.astype(np.float32)


class Response:
    """Standard deviation of the coefficients of blocks in noise of a colour."""

    def __init__(self, size: tuple[int, int, int]) -> None:
        self.f = (np.arange(_KNOTS) + 0.5) / _KNOTS
        self._bands = [
            np.abs(
                dct_basis(n).astype(np.float64)
                @ np.exp(-1j * np.pi * np.arange(n)[:, None] * self.f)
            )
            ** 2
            for n in size
        ]

    def std(self, colour: Colour) -> NDArray[np.float64]:
        """(K,), relative to white noise of the same power."""
        power = colour.power([self.f] * 3).astype(np.float64)
        mean = np.einsum("xyz,ax,by,cz->abc", power, *self._bands, optimize=True)
        return np.sqrt(mean / power.sum()).ravel()


@dataclass(frozen=True)
class BlockFit:
    """Level and window that explain the blocks.

    Attributes:
        sigma: Standard deviation of the noise a voxel.
        colour: With its windows.
        error: Relative standard error of sigma.
    """

    sigma: float
    colour: Colour
    error: float


def fit_blocks(blocks: Blocks, support: Colour, axes: tuple[int, ...]) -> BlockFit:
    """Sigma and the window along each axis of noise with a known support.

    Args:
        blocks: Of flat tissue.
        support: Colour of white noise on the support, on the grid of the blocks.
        axes: Those along which there may be a window.
    """
    spread = np.quantile(np.abs(blocks.coefficients), 0.4, axis=0) / _HALF_NORMAL
    spread = np.maximum(spread, 1e-12)
    orders = np.stack(np.meshgrid(*[np.arange(n) for n in blocks.size], indexing="ij"))
    size = np.maximum(np.array(blocks.size) - 1, 1).reshape(3, 1, 1, 1)
    radius = np.sqrt(np.sum((orders / size) ** 2, axis=0) / max(len(axes), 1)).ravel()
    response = Response(blocks.size)
    used = radius > 0.25
    logs = np.log(spread[used])
    top = float(np.median(logs[radius[used] > 0.6]))

    def model(p: NDArray[np.float64]) -> tuple[Colour, NDArray[np.float64]]:
        colour = _windowed(support, axes, p[1 : 1 + len(axes)])
        noise = np.square(response.std(colour)[used]) * np.exp(2 * (p[0] + top))
        anatomy = (
            np.exp(2 * (p[-1] + top)) * radius[used] ** -4.0 * np.square(response.std(colour)[used])
        )
        return colour, noise + anatomy + np.exp(2 * top) * 1e-4

    def residual(p: NDArray[np.float64]) -> NDArray[np.float64]:
        prior = 0.15 * p[1 : 1 + len(axes)]
        return np.concatenate([logs - 0.5 * np.log(model(p)[1]), prior])

    start = np.concatenate([[0.0], np.full(len(axes), 0.2), [-3.0]])
    low = np.concatenate([[-5.0], np.full(len(axes), -0.5), [-12.0]])
    high = np.concatenate([[3.0], np.full(len(axes), 4.0), [2.0]])
    fit = optimize.least_squares(
        residual, start, bounds=(low, high), loss="soft_l1", f_scale=0.05, max_nfev=40
    )
    colour = model(fit.x)[0]
    sigma = float(np.exp(fit.x[0] + top))
    scatter = float(np.median(np.abs(fit.fun[: logs.size]))) * 1.4826
    return BlockFit(sigma, colour, float(np.hypot(0.03, scatter / np.sqrt(logs.size / 4))))


def _windowed(support: Colour, axes: tuple[int, ...], strength: NDArray[np.float64]) -> Colour:
    """The support with a raised cosine of log amplitude -strength at the edge of each axis."""
    f = np.linspace(0, 1, 9)
    windows: list[tuple[float, ...]] = [(1.0,)] * 3
    for axis, s in zip(axes, strength, strict=True):
        windows[axis] = tuple(float(v) for v in np.exp(-s * (0.5 - 0.5 * np.cos(np.pi * f))))
    return Colour(support.edge, support.elliptical, (windows[0], windows[1], windows[2]))


def flat_tissue(image: Image, mask: Mask, axes: tuple[int, ...], scale: float) -> Mask:
    """The flattest quarter of the body, away from its border and not dark."""
    smooth = ndimage.gaussian_filter(image, [2.0 if a in axes else 0.0 for a in range(3)])
    slope = np.zeros_like(image)
    for axis in axes:
        slope += np.gradient(smooth, axis=axis) ** 2
    cross = ndimage.generate_binary_structure(3, 1)
    for axis in set(range(3)) - set(axes):
        cross = cross & (np.arange(3) == 1).reshape([-1 if a == axis else 1 for a in range(3)])
    inner: Mask = ndimage.binary_erosion(mask, cross, iterations=3)
    if inner.sum() < 1000:
        inner = mask.copy()
    inner &= smooth > min(0.35 * scale, float(np.median(smooth[inner])))
    flat: Mask = inner & (slope <= np.quantile(slope[inner], 0.25))
    return flat
