"""What was found of a scan's noise, as figures and in words that a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from medddpm.preprocess.found_noise import FoundNoise
from medddpm.preprocess.noise_law import Colour
from medddpm.preprocess.noise_support import crop_shape

Triple = tuple[float, float, float]
_AXES = "XYZ"


def correlation_lengths(colour: Colour, spacing: Sequence[float]) -> Triple:
    """How far noise is shared along each axis, in mm: the voxel edge where it is white.

    The sum of the squared autocorrelation over all distances, which is the mean of S^2 over the
    square of the mean of S along that axis: of a box that ends at e of Nyquist, the edge of the
    acquired voxel, 1 / e of the voxel's.
    """
    f = (np.arange(64) + 0.5) / 64
    power = colour.power([f] * 3).astype(np.float64)
    out = []
    for axis in range(3):
        line = power.sum(axis=tuple(a for a in range(3) if a != axis))
        out.append(float(spacing[axis] * np.mean(line**2) / np.mean(line) ** 2))
    return out[0], out[1], out[2]


def noise_facts(
    found: FoundNoise, shape: Sequence[int], spacing: Sequence[float]
) -> dict[str, Any]:
    """What a JSON file holds: the level, the range of a map, the colour and the matrix."""
    colour = found.law.colour
    sigma = found.law.sigma
    quantiles = None
    if isinstance(sigma, np.ndarray):
        quantiles = {f"p{q}": float(np.percentile(sigma, q)) for q in (5, 50, 95)}
    return {
        **asdict(found.estimate),
        "sigma_map": quantiles,
        "colour": asdict(colour),
        "edge_error": list(found.edge_error),
        "correlation_mm": [round(v, 3) for v in correlation_lengths(colour, spacing)],
        "acquired_matrix": list(crop_shape(shape, colour.edge)),
        "matrix": [int(n) for n in shape],
    }


def noise_words(found: FoundNoise, shape: Sequence[int], spacing: Sequence[float]) -> list[str]:
    """One line for the level, one for its map and one for the colour."""
    if found.method == "none":
        return ["no noise to be seen"]
    place = {"air": "the air", "foreground": "the body", "given": "the user"}[found.method]
    lines = [
        f"sigma {found.sigma:.5g} in scan units, {found.fraction:.4f} of the intensity scale, "
        f"+- {100 * found.error:.0f} % (holds in 9 of 10 scans), from {place}"
    ]
    if isinstance(found.law.sigma, np.ndarray):
        low, high = (float(v) for v in np.percentile(found.law.sigma, [5, 95]))
        lines.append(f"sigma varies over the scan, from {low:.4g} to {high:.4g}")
    else:
        lines.append("sigma is the same everywhere, as far as can be told")
    return [*lines, _colour_words(found, shape, spacing)]


def _colour_words(found: FoundNoise, shape: Sequence[int], spacing: Sequence[float]) -> str:
    colour = found.law.colour
    if colour.is_white:
        return "the noise is white: every voxel has its own, and all of k-space was measured"
    lengths = correlation_lengths(colour, spacing)
    shared = " x ".join(f"{v:.2g}" for v in lengths)
    voxel = " x ".join(f"{v:.2g}" for v in spacing)
    words = f"neighbours share noise over {shared} mm (voxels {voxel} mm)"
    acquired = crop_shape(shape, colour.edge)
    if tuple(acquired) != tuple(shape):
        small, full = (" x ".join(str(n) for n in m) for m in (acquired, shape))
        ends = ", ".join(
            f"{e:.2f} +- {d:.2f} along {name}"
            for e, d, name in zip(colour.edge, found.edge_error, _AXES, strict=True)
            if e < 1
        )
        words += f"; about {small} of {full} voxels were measured (k-space ends at {ends})"
    if colour.elliptical:
        words += f"; its corners over {', '.join(_AXES[a] for a in colour.elliptical)} are empty"
    return words
