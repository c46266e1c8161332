"""Scores of a scan of several frames: of each, of all, and of what users compute from them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.benchmark.peers import package
from medddpm.errors import ConfigError
from medddpm.io.gradients import Gradients
from medddpm.metrics.regions import region_scores
from medddpm.preprocess.intensity import Mask

Image = NDArray[np.float32]
Scores = dict[str, float]

_MOST_VOXELS = 20_000
"""That tensors are fitted to."""
_HIGHEST = 1500.0
"""b-value (s/mm^2) up to which a tensor describes the signal (Jones and Basser 2004)."""
_PARAMETERS = 7
"""Of a tensor with its signal without weighting."""


def frame_scores(
    clean: Image, found: Image, regions: Mapping[str, Mask], scale: float
) -> list[Scores]:
    """`region_scores` of each frame of two scans (X, Y, Z, T)."""
    masks = dict(regions)
    return [
        region_scores(clean[..., index], found[..., index], masks, scale)
        for index in range(clean.shape[3])
    ]


def pooled(frames: Sequence[Scores]) -> Scores:
    """One number for all frames: PSNR of their mean square error, means of the others."""
    names = [name for name in frames[0] if all(name in frame for frame in frames)]
    out = {name: float(np.mean([frame[name] for frame in frames])) for name in names}
    for name in names:
        if name.startswith("psnr"):
            powers = [10 ** (-frame[name] / 10) for frame in frames]
            out[name] = float(-10 * np.log10(np.mean(powers)))
    return out


def derived_scores(clean: Image, found: Image, inside: Mask, gradients: Gradients | None) -> Scores:
    """How well what is computed from the frames is kept, in the foreground.

    "kept" is the share of the true changes from frame to frame that is still there: the slope of
    the restored changes of each voxel over the true ones. With directions, "md_error" and
    "fa_error" are the median absolute errors of mean diffusivity, as a fraction of its median, and
    of fractional anisotropy, by DIPY's tensor: where the signal is 0, as in fluid at a high b, its
    logarithm says nothing, and a mean would be of such voxels alone. Without directions, "tsnr" is
    the median over the voxels of mean over standard deviation in time. What cannot be told is left
    out.

    Args:
        clean: (X, Y, Z, T).
        found: Likewise.
        inside: (X, Y, Z).
        gradients: Of the frames, if they are weighted by diffusion.

    Raises:
        ConfigError: There are directions, and DIPY is not installed.
    """
    x, y = (np.asarray(image[inside], np.float64) for image in (clean, found))
    scores: Scores = {}
    changes = x - x.mean(axis=1, keepdims=True)
    power = float(np.sum(changes**2))
    if power > 0:
        scores["kept"] = float(np.sum(changes * (y - y.mean(axis=1, keepdims=True))) / power)
    if gradients is not None:
        return scores | _tensor_errors(x, y, gradients)
    spread = y.std(axis=1)
    if (spread > 0).any():
        scores["tsnr"] = float(np.median((y.mean(axis=1) / np.maximum(spread, 1e-30))[spread > 0]))
    return scores


def _tensor_errors(x: NDArray[Any], y: NDArray[Any], gradients: Gradients) -> Scores:
    """Errors of what a tensor says, (N, T) voxels each; none where one cannot be fitted."""
    if gradients.bvecs is None:
        return {}
    used = np.nonzero(gradients.bvals <= _HIGHEST)[0]
    if len(used) <= _PARAMETERS or not len(gradients.unweighted):
        return {}
    step = max(1, len(x) // _MOST_VOXELS)
    model = _tensor_model(gradients, used)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # logarithms of what is 0
        true, seen = (model.fit(np.maximum(part[::step][:, used], 0)) for part in (x, y))
    return {
        "md_error": float(np.median(np.abs(seen.md - true.md)) / np.median(true.md)),
        "fa_error": float(np.median(np.abs(seen.fa - true.fa))),
    }


def _tensor_model(gradients: Gradients, used: NDArray[Any]) -> Any:
    if gradients.bvecs is None:
        raise AssertionError("a tensor needs directions")
    bvals, bvecs = gradients.bvals[used], gradients.bvecs[used]
    try:
        table = package("dipy.core.gradients").gradient_table(bvals, bvecs=bvecs)
    except ValueError as error:
        raise ConfigError(f"the .bvec file holds no unit vectors: {error}") from error
    return package("dipy.reconst.dti").TensorModel(table, fit_method="OLS")
