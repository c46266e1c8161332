"""Does a reference fit a scan? Borders of both lie in the same places, whatever the contrast.

The normalised gradient fields of two images (Haber and Modersitzki, MICCAI 2006, eq. 5) point along
the same line where a border is in both. A reference in its place agrees better with the scan than
the same reference moved by a few voxels; one of another person, or of another position, does not.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.preprocess.intensity import Mask

Image = NDArray[np.float32]
Triple = tuple[float, float, float]

MOST_MISFIT = 0.89
"""Above this a reference is not used; docs/reference.md says what was measured."""
_NONE = 99.0
"""The misfit of what is not there."""
_MOVES_MM = (3.0, 6.0)
_SMOOTH_MM = 1.0
_LEAST_VOXELS = 1000


def misfit_of(image: Image, reference: Image, inside: Mask, spacing: Triple) -> float:
    """Best agreement of the borders of two images after a move of 3 or 6 mm, over that in place.

    Args:
        image: (X, Y, Z), with little noise.
        reference: Same shape, another contrast; 0 where there is none.
        inside: Same shape, the body.
        spacing: Voxel edges in mm.

    Returns:
        Below 1 where the reference agrees best in its place; 99 where too little of it is there.
    """
    inside = inside & (reference > 0)
    if np.count_nonzero(inside) < _LEAST_VOXELS:
        return _NONE
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    inside = inside[box]
    width = [min(_SMOOTH_MM / s, 1.0) for s in spacing]
    a, b = (_directions(i[box], width, spacing, inside) for i in (image, reference))
    here = _agreement(a, b, inside, (0, 0, 0))
    away = max(_agreement(a, b, inside, move) for move in _moves(spacing))
    return min(away / here, _NONE) if here > 0 else _NONE


def _moves(spacing: Triple) -> list[tuple[int, int, int]]:
    """Moves along each axis, by a voxel at least."""
    found = set()
    for axis, sign, edge in product(range(3), (-1, 1), _MOVES_MM):
        move = [0, 0, 0]
        move[axis] = sign * max(round(edge / spacing[axis]), 1)
        found.add((move[0], move[1], move[2]))
    return sorted(found)


def _directions(image: Image, width: list[float], spacing: Triple, inside: Mask) -> Image:
    """Gradients of a length of about 1 at borders, and about 0 where the image is flat."""
    smooth = ndimage.gaussian_filter(np.asarray(image, np.float32), width)
    steps = zip(range(3), spacing, strict=True)
    gradient = np.stack([np.gradient(smooth, edge, axis=axis) for axis, edge in steps])
    size = np.sqrt(np.square(gradient).sum(axis=0))
    usual = float(np.mean(size[inside]))
    out: Image = (gradient / np.sqrt(size**2 + max(usual, 1e-9) ** 2)).astype(np.float32)
    return out


def _agreement(a: Image, b: Image, inside: Mask, move: tuple[int, int, int]) -> float:
    """Mean square of the inner product where both images are there."""
    here = tuple(slice(max(m, 0), n + min(m, 0)) for m, n in zip(move, inside.shape, strict=True))
    there = tuple(
        slice(max(-m, 0), n + min(-m, 0)) for m, n in zip(move, inside.shape, strict=True)
    )
    both = inside[here] & inside[there]
    if not both.any():
        return 0.0
    product_ = (a[(slice(None), *here)] * b[(slice(None), *there)]).sum(axis=0)
    return float(np.square(product_[both]).mean())
