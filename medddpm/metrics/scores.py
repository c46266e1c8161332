"""How close a restored scan is to its clean reference: PSNR, SSIM, NRMSE and HFEN.

Every number is given twice: inside the foreground mask, which is the one to quote, and over the
whole volume, where a large empty background flatters all of them. The data range is explicit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity

from medddpm.errors import ConfigError, GeometryError, ShapeError
from medddpm.preprocess.intensity import Mask, foreground_mask, intensity_scale

Image = NDArray[np.float32]

SSIM_SIGMA = 1.5
SSIM_TRUNCATE = 3.5
SSIM_K1, SSIM_K2 = 0.01, 0.03
SSIM_RADIUS = int(SSIM_TRUNCATE * SSIM_SIGMA + 0.5)
HFEN_SIGMA = 1.5
PSNR_CAP = 200.0
"""PSNR of identical scans, in dB, so that every score is a finite number."""


@dataclass(frozen=True)
class Scores:
    """Closeness of two scans over one region.

    Attributes:
        psnr: 10 log10(data_range^2 / mean squared error), dB; at most 200.
        ssim: Mean structural similarity; 3D Gaussian window of sigma 1.5 voxels.
        nrmse: Norm of the error over the norm of the reference.
        hfen: The same after a Laplacian of Gaussian of sigma 1.5 voxels (Ravishankar and
            Bresler, IEEE Trans Med Imaging 30:1028, 2011).
    """

    psnr: float
    ssim: float
    nrmse: float
    hfen: float


@dataclass(frozen=True)
class Evaluation:
    """Scores inside the mask and over the whole volume, at one data range."""

    inside: Scores
    whole: Scores
    data_range: float
    num_inside: int

    def flat(self) -> dict[str, float]:
        """All numbers by name: "psnr" is inside the mask, "psnr_whole" over the whole volume."""
        scores = {f"{k}": float(v) for k, v in vars(self.inside).items()}
        scores |= {f"{k}_whole": float(v) for k, v in vars(self.whole).items()}
        return scores | {"data_range": self.data_range, "num_inside": self.num_inside}


def evaluate_arrays(
    reference: NDArray[Any],
    restored: NDArray[Any],
    *,
    mask: NDArray[Any] | None = None,
    data_range: float | None = None,
) -> dict[str, float]:
    """The numbers of `evaluate_images` by name; frames of a 4D scan are averaged.

    Args:
        reference: (X, Y, Z) or (X, Y, Z, T), clean.
        restored: Same shape and units.
        mask: (X, Y, Z) region to score; the foreground of the (first) reference if not given.
        data_range: Peak of PSNR and SSIM, in the units of the scans; the intensity scale of the
            (first) reference if not given.
    """
    _check_shapes(reference, restored, mask)
    first = reference if reference.ndim == 3 else reference[..., 0]
    region = foreground_mask(first) if mask is None else np.asarray(mask, dtype=bool)
    span = intensity_scale(first, region) if data_range is None else data_range
    if reference.ndim == 3:
        return evaluate_images(reference, restored, region, span).flat()
    frames = [
        evaluate_images(reference[..., t], restored[..., t], region, span).flat()
        for t in range(reference.shape[3])
    ]
    return {name: float(np.mean([frame[name] for frame in frames])) for name in frames[0]}


def evaluate_images(
    reference: NDArray[Any], restored: NDArray[Any], mask: NDArray[Any], data_range: float
) -> Evaluation:
    """Scores of one (X, Y, Z) image inside a mask and over the whole volume."""
    _check_shapes(reference, restored, mask)
    if not (np.isfinite(data_range) and data_range > 0):
        raise ConfigError(f"the data range is {data_range}; it must be positive")
    inside = np.asarray(mask, dtype=bool)
    if not inside.any():
        raise ConfigError("the mask is empty, so there is nothing to score")
    # In units of the data range, float32 holds the error of scans in any unit.
    clean = np.asarray(reference, dtype=np.float32) / np.float32(data_range)
    found = np.asarray(restored, dtype=np.float32) / np.float32(data_range)
    ssim_map = ssim_image(clean, found, 1.0)
    error = found - clean
    edges, edge_error = _log_filter(clean), _log_filter(error)

    def scores(region: Mask | slice) -> Scores:
        return Scores(
            psnr=_psnr(error[region]),
            ssim=float(ssim_map[region].mean(dtype=np.float64)),
            nrmse=_ratio(error[region], clean[region]),
            hfen=_ratio(edge_error[region], edges[region]),
        )

    return Evaluation(scores(inside), scores(slice(None)), float(data_range), int(inside.sum()))


def psnr(
    reference: NDArray[Any],
    restored: NDArray[Any],
    data_range: float,
    mask: NDArray[Any] | None = None,
) -> float:
    """Peak signal to noise ratio in dB, inside the mask if one is given."""
    _check_shapes(reference, restored, mask)
    error = (np.asarray(restored, np.float32) - np.asarray(reference, np.float32)) / data_range
    return _psnr(error if mask is None else error[np.asarray(mask, dtype=bool)])


def ssim_image(reference: Image, restored: Image, data_range: float) -> Image:
    """Structural similarity at each voxel (Wang et al., IEEE Trans Image Process 13:600, 2004).

    Gaussian window of sigma 1.5 voxels cut at 3.5 sigma in all three axes, K1 0.01, K2 0.03,
    population covariance: skimage's own. Scans thinner than the window of 11 voxels along an
    axis are mirrored there first.
    """
    size = 2 * SSIM_RADIUS + 1
    pad = [(0, 0) if n >= size else (SSIM_RADIUS, SSIM_RADIUS) for n in reference.shape]
    padded = [np.pad(a, pad, mode="symmetric") for a in (reference, restored)]
    _, image = structural_similarity(  # type: ignore[no-untyped-call, unused-ignore]
        *padded,
        data_range=data_range,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        truncate=SSIM_TRUNCATE,
        use_sample_covariance=False,
        K1=SSIM_K1,
        K2=SSIM_K2,
        full=True,
    )
    crop = tuple(slice(p[0], p[0] + n) for p, n in zip(pad, reference.shape, strict=True))
    cropped: Image = image[crop]
    return cropped


def _check_shapes(
    reference: NDArray[Any], restored: NDArray[Any], mask: NDArray[Any] | None
) -> None:
    if reference.ndim not in (3, 4):
        raise ShapeError(f"expected (X, Y, Z) or (X, Y, Z, T), got shape {reference.shape}")
    if reference.shape != restored.shape:
        raise GeometryError(
            f"the scans lie on different grids: {reference.shape} and {restored.shape}; "
            "resample one of them first"
        )
    if mask is not None and mask.shape != reference.shape[:3]:
        raise GeometryError(f"the mask has shape {mask.shape}, the scans {reference.shape[:3]}")


def _psnr(error: Image) -> float:
    square = float(np.mean(np.square(error), dtype=np.float64))
    return PSNR_CAP if square == 0 else min(PSNR_CAP, -10.0 * float(np.log10(square)))


def _log_filter(image: Image) -> Image:
    filtered: Image = ndimage.gaussian_laplace(image, HFEN_SIGMA)
    return filtered


def _ratio(error: Image, reference: Image) -> float:
    """Norm of the error over the norm of the reference."""
    power = float(np.sum(np.square(reference), dtype=np.float64))
    wrong = float(np.sum(np.square(error), dtype=np.float64))
    if power == 0:
        return 0.0 if wrong == 0 else float("inf")
    return float(np.sqrt(wrong / power))
