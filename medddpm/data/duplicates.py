"""Scans with the same pixels, also after a flip or a change of number type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

SAME_RMS = 0.001
"""Root mean square difference of two signatures, on the intensity scale, of the same image.

Rounding to 8 bits gives 0.0002; the nearest two people of 52 public scans are 0.021 apart. One
anatomy with another draw of noise counts as the same, which is right for a split."""


def find_twins(signatures: Mapping[str, Sequence[float]]) -> list[tuple[str, str]]:
    """Pairs of names whose images are the same, the first of each pair earlier in the alphabet.

    Args:
        signatures: 512 numbers a scan, from `quality.signature`.
    """
    names = sorted(signatures)
    if not names:
        return []
    all_parts = np.array([signatures[name] for name in names], np.float32)
    flipped = _all_flips(all_parts)
    pairs = []
    for number, name in enumerate(names):
        rest = all_parts[number + 1 :]
        near = [_rms(rest, flip) < SAME_RMS for flip in flipped[:, number]]
        same = np.any(near, axis=0)
        pairs += [(name, names[number + 1 + int(i)]) for i in np.nonzero(same)[0]]
    return pairs


def _all_flips(parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """(8, N, 512): the signatures of all flips."""
    cube = parts.reshape(-1, 8, 8, 8)
    flips = [
        cube[:, ::a, ::b, ::c].reshape(len(cube), -1) for a, b, c in product((1, -1), repeat=3)
    ]
    return np.stack(flips)


def _rms(rest: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.float32]:
    difference: NDArray[np.float32] = np.sqrt(np.square(rest - one).mean(axis=1))
    return difference
