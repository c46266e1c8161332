"""ISMRMRD HDF5 to `RawScan` (Inati et al., Magn Reson Med 77:411, 2017)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.display import printable
from medddpm.errors import GeometryWarning, LeftOutWarning, VolumeReadError
from medddpm.io.raw_hdf5 import opened
from medddpm.io.raw_header import Encoding, parse_header
from medddpm.io.raw_lines import Line, epi_corrected, frame_words, gridded
from medddpm.io.raw_scan import RawScan, Trajectory, affine_of, stack_of, unplaced_affine
from medddpm.io.raw_trajectory import Places, readouts, sample_places

NOISE, CALIBRATION, CALIBRATION_AND_IMAGE, REVERSE = 19, 20, 21, 22
_NAVIGATION, _PHASE_CORRECTION = 23, 24
_OTHER = (_NAVIGATION, 26, 27, 28, 29, 30, 31)
"""Flags of readouts that are no k-space of the image: navigators, feedback, dummies."""
FRAME = ("contrast", "phase", "repetition", "set")


def read_ismrmrd(path: str | Path) -> RawScan:
    """The measurement of a file.

    Args:
        path: HDF5 with a group that holds "xml" and "data".

    Returns:
        Noise scans, calibration lines, averages and the lines of EPI are told apart by the flags
        of the readouts; geometry is that of their positions and directions.

    Raises:
        VolumeReadError: Not readable, without lines, samples are NaN, or lie on no grid and the
            file does not tell where.
        GeometryError: Slices are no stack, or directions not perpendicular.
        MissingExtraError: h5py is not installed.
    """
    path = Path(path)
    with opened(path) as file:
        group = _group(file, path)
        encoding = parse_header(group["xml"][0], str(path))
        table = group["data"][:]
    heads = table["head"]
    _check_spaces(heads, path)
    on_grid = encoding.trajectory in ("cartesian", "epi")
    lines = [_line(row, encoding, path, on_grid) for row in table]
    flags = [int(f) for f in heads["flags"]]
    kinds = [_kind(f) for f in flags]
    noise = [line.data for line, kind in zip(lines, kinds, strict=True) if kind == "noise"]
    navigators = [line for line, kind in zip(lines, kinds, strict=True) if kind == "phase"]
    image = [n for n, kind in enumerate(kinds) if kind == "image"]
    if not any(lines[n].imaging for n in image):
        raise VolumeReadError(f"{path} holds no line of an image, in {len(lines)} readouts")
    if not on_grid:
        image = [n for n in image if lines[n].imaging]
        places = [sample_places(table[n], encoding, str(path)) for n in image]
        return _assembled([lines[n] for n in image], heads[image], encoding, noise, path, places)
    kept = [lines[n] for n in image]
    if navigators:
        kept = epi_corrected(kept, navigators)
    return _assembled(kept, heads[image], encoding, noise, path)


def _assembled(
    lines: Sequence[Line],
    heads: NDArray[Any],
    encoding: Encoding,
    noise: Sequence[NDArray[np.complex64]],
    path: Path,
    places: Sequence[Places] | None = None,
) -> RawScan:
    imaging = [line for line in lines if line.imaging]
    order, affine, placed, fov, recon_fov = _geometry(lines, heads, encoding, path)
    trajectory = None
    if places is None:
        grid = gridded(imaging, encoding.matrix, order, str(path))
    else:
        grid, where = readouts(imaging, places, order, str(path))
        trajectory = Trajectory(where, encoding.matrix, encoding.trajectory)
    apart = [line for line in lines if line.calibrating and places is None]
    calibration = None
    if any(not line.imaging for line in apart):
        found = gridded(apart, encoding.matrix, order, str(path))
        calibration = (found.kspace, found.mask)
    samples = np.concatenate(noise, axis=1) / np.sqrt(grid.averages) if noise else None
    frames = sorted({line.frame for line in imaging})
    return RawScan(
        grid.kspace,
        grid.mask,
        fov,
        encoding.recon_matrix,
        recon_fov,
        affine,
        placed,
        None if samples is None else samples.astype(np.complex64),
        calibration,
        tuple(frame_words(frame, FRAME) for frame in frames),
        "ismrmrd",
        path,
        printable(path.stem) or "scan",
        {**encoding.facts, "averages": grid.averages},
        trajectory,
        encoding.identity,
    )


def _group(file: Any, path: Path) -> Any:
    """The group of the file that holds a measurement."""
    for item in file.values():
        if hasattr(item, "keys") and "data" in item and "xml" in item:
            return item
    raise VolumeReadError(f"{path} holds no ISMRMRD measurement: no group with xml and data")


def _check_spaces(heads: NDArray[Any], path: Path) -> None:
    others = int((heads["encoding_space_ref"] != heads["encoding_space_ref"].min()).sum())
    if others:
        warnings.warn(
            f"{path}: {others} readouts belong to a second encoding and are read as the first",
            LeftOutWarning,
            stacklevel=3,
        )


def _kind(flags: int) -> str:
    """What a readout is for: "noise", "phase", "other" or "image"."""

    def has(bit: int) -> bool:
        return bool(flags >> (bit - 1) & 1)

    if has(NOISE):
        return "noise"
    if has(_PHASE_CORRECTION):
        return "phase"
    return "other" if any(has(bit) for bit in _OTHER) else "image"


def _line(row: Any, encoding: Encoding, path: Path, on_grid: bool) -> Line:
    head, flags = row["head"], int(row["head"]["flags"])
    samples, coils = int(head["number_of_samples"]), int(head["active_channels"])
    data = np.asarray(row["data"], np.float32)
    if data.size != 2 * samples * coils:
        raise VolumeReadError(
            f"{path}: a readout of {coils} coils and {samples} samples holds {data.size // 2} "
            "numbers; the file is cut short, or damaged: get it again"
        )
    values = data.view(np.complex64).reshape(coils, samples)
    before, after = int(head["discard_pre"]), int(head["discard_post"])
    values = values[:, before : samples - after]
    middle, turned = (
        int(head["center_sample"]) - before,
        bool(on_grid and flags >> (REVERSE - 1) & 1),
    )
    if turned:
        values, middle = values[:, ::-1], values.shape[1] - middle
    index = head["idx"]
    steps = int(index["kspace_encode_step_1"]), int(index["kspace_encode_step_2"])
    y, z = (
        step if centre is None else step - centre + length // 2
        for step, centre, length in zip(steps, encoding.centres, encoding.matrix[1:], strict=True)
    )
    calibrating, both = (bool(flags >> (b - 1) & 1) for b in (CALIBRATION, CALIBRATION_AND_IMAGE))
    return Line(
        np.ascontiguousarray(values),
        (y, z),
        middle,
        int(index["slice"]),
        tuple(int(index[name]) for name in FRAME),
        imaging=both or not calibrating,
        calibrating=both or calibrating,
        reversed=turned,
    )


def _geometry(
    lines: Sequence[Line], heads: NDArray[Any], encoding: Encoding, path: Path
) -> tuple[list[int], NDArray[np.float64], bool, Any, Any]:
    """Slices in order, the affine, whether it is known, and the fields of view."""
    numbers = sorted({line.slice for line in lines if line.imaging})
    first = [next(n for n, line in enumerate(lines) if line.slice == s) for s in numbers]
    shape = (*encoding.recon_matrix[:2], encoding.recon_matrix[2] * len(numbers))
    fov, recon_fov = encoding.fov_mm, encoding.recon_fov_mm
    if min(fov) <= 0 or min(recon_fov) <= 0:
        warnings.warn(
            f"{path}: its header tells no field of view; voxels are taken for 1 mm, and the place "
            "of the image for unknown",
            GeometryWarning,
            stacklevel=4,
        )
        one = tuple(map(float, encoding.matrix)), tuple(map(float, encoding.recon_matrix))
        return numbers, unplaced_affine((1, 1, 1), shape), False, *one
    spacing = [f / n for f, n in zip(recon_fov, encoding.recon_matrix, strict=True)]
    head = heads[first[0]]
    axes = [np.asarray(head[f"{name}_dir"], np.float64) for name in ("read", "phase", "slice")]
    if not any(axis.any() for axis in axes):
        warnings.warn(
            f"{path} does not tell how its image lies in space; it is put about the origin",
            GeometryWarning,
            stacklevel=4,
        )
        return numbers, unplaced_affine(spacing, shape), False, fov, recon_fov
    positions = np.asarray(heads["position"][first], np.float64)
    order, step = stack_of(positions, axes[2], spacing[2], str(path))
    if len(numbers) > 1:
        spacing[2] = step
        affine = affine_of(positions[order[0]], axes, spacing, (*shape[:2], 1))
    else:
        affine = affine_of(positions[0], axes, spacing, shape)
    return [numbers[i] for i in order], affine, True, fov, recon_fov
