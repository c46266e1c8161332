"""Where the body is, and how bright it is: the foreground mask and the intensity scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from medddpm.errors import ConfigError, ShapeError

Mask = NDArray[np.bool_]

SCALE_PERCENTILE = 99.5
_NORMAL_QUANTILE = 2.5758
"""The 99.5th percentile of a standard normal variable."""
MASKED_FRACTION = 0.2
_FEW_ZEROS = 0.001
"""With more exact zeros than this, the scan was masked and zeros are background."""
_EVEN_FLOOR = 0.08
"""Of the brightest: noise of 20 % around an air of 0 seems to lower it by less."""


@dataclass(frozen=True)
class Body:
    """Where the body of a scan is, and how bright it is.

    Attributes:
        image: (X, Y, Z) that tells how bright it is.
        mask: Its voxels.
    """

    image: NDArray[np.float32]
    mask: Mask

    @classmethod
    def of(cls, image: NDArray[np.float32]) -> Body:
        """That of an image of which nothing else is known."""
        return cls(image, foreground_mask(image))

    def scale(self, sigma: float = 0.0) -> float:
        """Its intensity scale, see `intensity_scale`."""
        return intensity_scale(self.image, self.mask, sigma=sigma)


def zero_background(image: NDArray[Any]) -> Mask | None:
    """Voxels that are exactly 0, if the scan was masked (over 20 % of it is 0); else None."""
    zeros = np.asarray(image) == 0
    return zeros if zeros.mean() > MASKED_FRACTION else None


def emptied(image: NDArray[Any]) -> Mask | None:
    """Voxels that hold nothing and keep it: those of a masked scan, or solid zeros; None if none.

    A crop out of a masked scan has few zeros, but they lie together: a voxel counts that is in a
    block of 5 x 5 x 5 of them.
    """
    background = zero_background(image)
    if background is not None:
        return background
    zeros = np.asarray(image) == 0
    if zeros.mean() < _FEW_ZEROS:
        return None
    core = ndimage.binary_erosion(zeros, np.ones((3, 3, 3)), iterations=2, border_value=1)
    if not core.any():
        return None
    solid: Mask = zeros & ndimage.binary_dilation(core, np.ones((3, 3, 3)), iterations=2)
    return solid


def above_floor(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """An image whose air is at 0, and what was taken off for it: 0, or negative.

    The values of a standardised or shifted scan start somewhere below 0: at the 0.5th percentile
    of what it is without its noise. In a masked scan, exact zeros are background and become 0
    again. Noise around an air of 0 is no shift. What is taken off need not be exact: a tenth of the
    scale too much costs 0.02 dB, too little 0.1.

    Args:
        image: (X, Y, Z), finite.
    """
    if image.min() >= 0:
        return image, 0.0
    background = zero_background(image)
    if background is None:
        values = ndimage.gaussian_filter(image, 1.0, truncate=3.0)
    else:  # no air, whose noise would seem darker than it
        values = image[~background]
    ends = np.percentile(values, [100 - SCALE_PERCENTILE, SCALE_PERCENTILE])
    floor, top = (float(v) for v in ends)
    if floor > -_EVEN_FLOOR * max(top, -floor):
        return image, 0.0
    lifted: NDArray[np.float32] = image - np.float32(floor)
    if background is not None:
        lifted[background] = 0
    return lifted, floor


def is_blank(image: NDArray[Any]) -> bool:
    """Whether every voxel has one value, as in a frame that was never acquired."""
    return bool(image.min() == image.max())


def foreground_mask(image: NDArray[Any]) -> Mask:
    """Voxels of the body: True inside, holes filled, specks and air left out.

    Otsu's threshold on a smoothed and halved image, so that noise of 15 % of the scale does not
    matter; in a masked scan the voxels that are exactly 0 stay outside.

    Args:
        image: (X, Y, Z) in any unit.
    """
    image, zeros = _checked(image), zero_background(image)
    image, _ = above_floor(image)
    factors = tuple(2 if n >= 64 else 1 for n in image.shape)
    small = _block_mean(image, factors)
    smooth = ndimage.gaussian_filter(small, [0.5 * f for f in factors], truncate=3.0)
    if zeros is None:
        return _grow(_pieces(smooth > _air_threshold(smooth)), factors, image.shape)
    inside = ~zeros
    if not _zeros_touch_air(image, inside):
        kept = _pieces(_block_mean(inside.astype(np.float32), factors) > 0.4)
        return _grow(kept, factors, image.shape) & inside
    threshold = _air_threshold(smooth[_block_mean(inside.astype(np.float32), factors) > 0.99])
    return _grow(_pieces(smooth > threshold), factors, image.shape) & inside


def intensity_scale(
    image: NDArray[Any], mask: NDArray[Any] | None = None, *, sigma: float = 0.0
) -> float:
    """The 99.5th percentile of the foreground above the floor, in the image's own units.

    Noise of 15 % of the scale lifts that percentile by 7 to 20 %. Given its `sigma`, the lift is
    taken off again: the distance from the median is a sum in quadrature of what the clean scan
    has and of the noise's own, 2.576 sigma.

    Args:
        image: (X, Y, Z) in any unit.
        mask: Foreground; found by `foreground_mask` if not given.
        sigma: Standard deviation of the noise in the image, if the clean scale is wanted.
    """
    image, _ = above_floor(_checked(image))
    values = image[foreground_mask(image) if mask is None else np.asarray(mask, dtype=bool)]
    if values.size == 0:
        raise ConfigError("the foreground mask is empty, so the image has no intensity scale")
    middle, scale = (float(v) for v in np.percentile(values, [50.0, SCALE_PERCENTILE]))
    if sigma > 0:
        clean = np.sqrt(max((scale - middle) ** 2 - (_NORMAL_QUANTILE * sigma) ** 2, 0.0))
        scale = middle + float(clean)
    if scale <= 0:
        raise ConfigError(f"the intensity scale is {scale:g}; a magnitude image has a positive one")
    return scale


def _checked(image: NDArray[Any]) -> NDArray[np.float32]:
    image = np.asarray(image)
    if image.ndim != 3:
        raise ShapeError(f"expected one (X, Y, Z) image, got shape {image.shape}")
    image = np.asarray(image, dtype=np.float32)
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ConfigError("the image holds NaN or infinity")
    if low == high:
        raise ConfigError(f"the image is constant ({low:g}): there is nothing in it")
    return image


def _block_mean(image: NDArray[np.float32], factors: tuple[int, ...]) -> NDArray[np.float32]:
    """Mean over blocks of `factors` voxels; an odd last plane is left out."""
    for axis, factor in enumerate(factors):
        if factor == 2:
            even = image.shape[axis] // 2 * 2
            image = np.moveaxis(image, axis, 0)
            image = np.moveaxis((image[0:even:2] + image[1:even:2]) * 0.5, 0, axis)
    return np.ascontiguousarray(image, dtype=np.float32)


def _grow(mask: Mask, factors: tuple[int, ...], shape: tuple[int, ...]) -> Mask:
    """The mask on the full grid again; the odd last plane copies its neighbour."""
    for axis, factor in enumerate(factors):
        mask = mask.repeat(factor, axis=axis)
    pad = [(0, n - m) for n, m in zip(shape, mask.shape, strict=True)]
    return np.pad(mask, pad, mode="edge")


def _air_threshold(smooth: NDArray[np.float32]) -> float:
    """Otsu's threshold between air and tissue.

    Otsu's method runs twice: bright fluid or fat would put grey tissue into the dark class, so
    the second time all that was bright counts as just bright enough.
    """
    values = np.minimum(smooth, np.percentile(smooth, SCALE_PERCENTILE)).ravel()
    if values.min() == values.max():
        return float(values[0]) - 1.0
    for _ in range(2):
        otsu = float(threshold_otsu(values))  # type: ignore[no-untyped-call, unused-ignore]
        values = np.minimum(values, otsu)
    return otsu


def _zeros_touch_air(image: NDArray[np.float32], inside: Mask) -> bool:
    """True if the zeros lie in the air of a head (scanner padding), not around a masked body."""
    shell = inside & ~ndimage.binary_erosion(inside, iterations=2, border_value=1)
    if not shell.any():
        return False
    bright = float(np.percentile(image[inside], SCALE_PERCENTILE))
    if float(np.median(image[shell])) > 0.2 * bright:
        return False
    return float((image[inside] < 0.25 * bright).mean()) > 0.3


def _pieces(mask: Mask) -> Mask:
    """The largest connected piece and all over a twentieth of it, holes filled."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: Mask = ndimage.binary_fill_holes((sizes >= max(1, sizes.max() // 20))[labels])
    return kept
