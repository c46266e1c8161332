"""Readouts whose samples lie on no grid, with the places that a file tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import VolumeReadError
from medddpm.io.raw_header import Encoding
from medddpm.io.raw_lines import Grid, Line

Places = NDArray[np.float32]
_SLACK = 1.02
"""Of the edge of k-space, which some trajectories pass by a sample."""


def sample_places(row: Any, encoding: Encoding, name: str) -> Places:
    """(n, 3) k of the samples of a readout in cycles per encoded field of view.

    ISMRMRD leaves the unit open. Both that are in use are read: cycles per voxel, up to 0.5, and
    cycles per field of view, up to half of the matrix; a readout through the middle, with less
    than 0.5 in all, is one of the former. Of two numbers a sample, those of a 3D matrix lie in a
    plane of kz by their second step (stacks of stars and spirals); a third number of 2D data is a
    weight in some files and is not used.

    Args:
        row: Of the table of readouts.
        encoding: Of the file.
        name: Of the file, for messages.

    Raises:
        VolumeReadError: The file tells no places, or they lie outside of the encoded matrix.
    """
    head = row["head"]
    samples, dims = int(head["number_of_samples"]), int(head["trajectory_dimensions"])
    flat = np.asarray(row["traj"], np.float32)
    if dims < 2 or flat.size != samples * dims:
        raise VolumeReadError(
            f"{name} is {encoding.trajectory} and does not tell where its samples lie: "
            f"{flat.size} numbers for {samples} samples of {dims} dimensions; write the "
            "trajectory into its readouts"
        )
    before, after = int(head["discard_pre"]), int(head["discard_post"])
    told = flat.reshape(samples, dims)[before : samples - after]
    used = 3 if encoding.matrix[2] > 1 and dims > 2 else 2
    matrix = np.asarray(encoding.matrix[:used], np.float32)
    k = told[:, :used] * (matrix if np.abs(told[:, :used]).max() <= 0.5 * _SLACK else 1)
    if not np.isfinite(k).all() or (np.abs(k) > matrix / 2 * _SLACK).any():
        raise VolumeReadError(
            f"{name}: its trajectory reaches {np.abs(told[:, :used]).max():.4g}, and the encoded "
            f"matrix is {' x '.join(map(str, encoding.matrix))}; expected cycles per voxel, up to "
            "0.5, or cycles per field of view, up to half of the matrix"
        )
    out = np.zeros((len(k), 3), np.float32)
    out[:, :used] = k
    if encoding.matrix[2] > 1 and used == 2:
        step, centre = int(head["idx"]["kspace_encode_step_2"]), encoding.centres[1]
        out[:, 2] = step - (encoding.matrix[2] // 2 if centre is None else centre)
    return out


def readouts(
    lines: Sequence[Line], places: Sequence[Places], slices: Sequence[int], name: str
) -> tuple[Grid, Places]:
    """All readouts in one array, and the places of their samples.

    Args:
        lines: One or more.
        places: Of each of them.
        slices: Numbers of the slices in the order wanted.
        name: Of the file, for messages.

    Returns:
        K-space (F, S, C, n, m, 1) with its mask; shorter readouts end in zeros. Places are
        (F or 1, S or 1, n, m, 1, 3), 1 where all frames or slices have the same.

    Raises:
        VolumeReadError: Readouts have other coils than the first.
    """
    frames = sorted({line.frame for line in lines})
    keys = [(frames.index(line.frame), slices.index(line.slice)) for line in lines]
    most = max(keys.count(key) for key in set(keys))
    coils, length = len(lines[0].data), max(line.data.shape[1] for line in lines)
    size = (len(frames), len(slices))
    kspace = np.zeros((*size, coils, length, most, 1), np.complex64)
    mask = np.zeros((*size, length, most, 1), bool)
    where = np.zeros((*mask.shape, 3), np.float32)
    count = np.zeros(size, int)
    for line, k, key in zip(lines, places, keys, strict=True):
        if len(line.data) != coils:
            raise VolumeReadError(
                f"{name}: readouts have {coils} and {len(line.data)} coils; the file is damaged, "
                "or cut short: get it again"
            )
        place, count[key] = count[key], count[key] + 1
        kspace[(*key, slice(None), slice(len(k)), place, 0)] = line.data
        mask[(*key, slice(len(k)), place, 0)] = True
        where[(*key, slice(len(k)), place, 0)] = k
    for axis in (0, 1):
        first = where.take([0], axis=axis)
        if (where == first).all():
            where = first
    return Grid(kspace, mask, 1), where
