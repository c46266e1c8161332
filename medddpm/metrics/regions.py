"""Where a benchmark scores: foreground, three classes of brightness, edges and air."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import ConfigError
from medddpm.metrics.scores import HFEN_SIGMA, psnr, ssim_image
from medddpm.metrics.spectrum import power_scores
from medddpm.preprocess.intensity import Mask

Image = NDArray[np.float32]
Box = tuple[slice, ...]

CLASSES = ("dark", "middle", "bright")
"""In a T1w brain about CSF, grey and white matter; in a T2w one the other way round."""
_EDGE_SHARE = 0.1
_SAMPLES = 100_000
_CHUNK = 1_000_000


def find_regions(image: Image, inside: Mask) -> dict[str, Mask]:
    """Masks (X, Y, Z) by name, of a clean image; a region may be empty.

    "foreground" is `inside`; "dark", "middle" and "bright" divide it by a Gaussian mixture;
    "edges" is the tenth of it with the steepest slope; "air" lies two voxels outside of it, where
    the image is not exactly 0.

    Args:
        image: (X, Y, Z) in any unit.
        inside: Its foreground.
    """
    regions = {"foreground": inside, **brightness_classes(image, inside)}
    slope = ndimage.gaussian_gradient_magnitude(image, 1.0)
    regions["edges"] = inside & (slope >= np.quantile(slope[inside], 1 - _EDGE_SHARE))
    regions["air"] = ~ndimage.binary_dilation(inside, iterations=2) & (image != 0)
    return regions


def brightness_classes(image: Image, inside: Mask) -> dict[str, Mask]:
    """Masks (X, Y, Z) of the dark, middle and bright part of the foreground."""
    labels = _classes(image, inside)
    return {name: inside & (labels == i) for i, name in enumerate(CLASSES)}


def central_box(inside: Mask, size: tuple[int, int, int] | None) -> Box:
    """A box of `size` voxels around the median of the mask, moved to lie in the volume.

    Args:
        inside: (X, Y, Z).
        size: Voxels an axis, cut to what there is; None is the whole volume.
    """
    if size is None:
        return tuple(slice(0, n) for n in inside.shape)
    middle = [int(np.median(index)) for index in np.nonzero(inside)]
    box = []
    for centre, wanted, length in zip(middle, size, inside.shape, strict=True):
        width = min(wanted, length)
        start = min(max(centre - width // 2, 0), length - width)
        box.append(slice(start, start + width))
    return tuple(box)


def region_scores(
    clean: Image, found: Image, regions: dict[str, Mask], scale: float
) -> dict[str, float]:
    """PSNR, SSIM, NRMSE, HFEN and bias in each region and over the whole volume.

    The names are those of `metrics.Evaluation.flat`: "psnr" is in the foreground, "psnr_edges" at
    the edges, "psnr_whole" over everything. "bias" is the mean error as a fraction of the scale.
    NRMSE and HFEN are left out where the reference is 0, as are regions without a voxel. The power
    of the foreground's spectrum is that of `spectrum.power_scores`.

    Args:
        clean: (X, Y, Z).
        found: Same shape and units.
        regions: Masks of that shape; one of them is "foreground".
        scale: Data range, in the units of the scans.

    Raises:
        ConfigError: The foreground has no voxel.
    """
    if not regions["foreground"].any():
        raise ConfigError("the foreground has no voxel, so there is nothing to score")
    x, y = (np.asarray(a, np.float32) / np.float32(scale) for a in (clean, found))
    error, similar = y - x, ssim_image(x, y, 1.0)
    detail, detail_error = (ndimage.gaussian_laplace(a, HFEN_SIGMA) for a in (x, error))
    everywhere = np.ones(x.shape, dtype=bool)
    scores: dict[str, float] = {}
    for name, mask in (regions | {"whole": everywhere}).items():
        if mask.any():
            end = "" if name == "foreground" else f"_{name}"
            scores[f"psnr{end}"] = psnr(x, y, 1.0, mask)
            scores[f"ssim{end}"] = float(similar[mask].mean(dtype=np.float64))
            scores[f"bias{end}"] = float(error[mask].mean(dtype=np.float64))
            if x[mask].any():
                scores[f"nrmse{end}"] = _ratio(error[mask], x[mask])
                scores[f"hfen{end}"] = _ratio(detail_error[mask], detail[mask])
    return scores | power_scores(x, y, regions["foreground"])


def _ratio(error: Image, reference: Image) -> float:
    """Norm of the error over the norm of the reference."""
    return float(np.sqrt(_power(error) / _power(reference)))


def _power(image: Image) -> float:
    return float(np.sum(np.square(image), dtype=np.float64))


def _classes(image: Image, inside: Mask) -> NDArray[np.int8]:
    """Three classes of brightness: a Gaussian mixture by expectation maximisation."""
    values = image[inside][:: max(1, int(inside.sum()) // _SAMPLES)].astype(np.float64)
    low, high = np.percentile(values, [2, 98])
    means = low + (high - low) * np.array([1, 3, 5]) / 6
    spreads, shares = np.full(3, (high - low) / 6 + 1e-12), np.full(3, 1 / 3)
    for _ in range(50):
        weights = _responsibilities(values, means, spreads, shares)
        total = weights.sum(axis=1) + 1e-12
        means = weights @ values / total
        spreads = np.sqrt((weights * (values - means[:, None]) ** 2).sum(axis=1) / total) + 1e-12
        shares = total / values.size
    order = np.argsort(means)
    mixture = means[order], spreads[order], shares[order]
    every = image[inside]
    found = np.empty(every.size, np.int8)
    for start in range(0, every.size, _CHUNK):  # in a large scan all at once would take gigabytes
        part = slice(start, start + _CHUNK)
        found[part] = _responsibilities(every[part].astype(np.float64), *mixture).argmax(axis=0)
    labels = np.zeros(image.shape, np.int8)
    labels[inside] = found
    return labels


def _responsibilities(
    values: NDArray[np.float64],
    means: NDArray[np.float64],
    spreads: NDArray[np.float64],
    shares: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(3, N): how much each class accounts for each value."""
    z = (values - means[:, None]) / spreads[:, None]
    logs = np.log(shares / spreads)[:, None] - 0.5 * z**2
    weights = np.exp(logs - logs.max(axis=0))
    out: NDArray[np.float64] = weights / weights.sum(axis=0)
    return out
