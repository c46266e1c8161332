"""`RawScan` to ISMRMRD HDF5: of simulated data, and of scans that were undersampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.io.files import atomic_path
from medddpm.io.raw_hdf5 import hdf5
from medddpm.io.raw_header import Encoding, header_text
from medddpm.io.raw_ismrmrd import CALIBRATION, FRAME, NOISE
from medddpm.io.raw_scan import RawScan

_INDEX = np.dtype(
    [("kspace_encode_step_1", "<u2"), ("kspace_encode_step_2", "<u2")]
    + [(n, "<u2") for n in ("average", "slice", "contrast", "phase", "repetition", "set")]
    + [("segment", "<u2"), ("user", "<u2", (8,))]
)
HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("scan_counter", "<u4"),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", (3,)),
        ("number_of_samples", "<u2"),
        ("available_channels", "<u2"),
        ("active_channels", "<u2"),
        ("channel_mask", "<u8", (16,)),
        ("discard_pre", "<u2"),
        ("discard_post", "<u2"),
        ("center_sample", "<u2"),
        ("encoding_space_ref", "<u2"),
        ("trajectory_dimensions", "<u2"),
        ("sample_time_us", "<f4"),
        ("position", "<f4", (3,)),
        ("read_dir", "<f4", (3,)),
        ("phase_dir", "<f4", (3,)),
        ("slice_dir", "<f4", (3,)),
        ("patient_table_position", "<f4", (3,)),
        ("idx", _INDEX),
        ("user_int", "<i4", (8,)),
        ("user_float", "<f4", (8,)),
    ]
)
"""AcquisitionHeader of version 1 of the format."""
_NOISE_LENGTH = 4096
_NOWHERE = np.zeros(0, np.float32)
Row = tuple[Any, NDArray[np.float32], NDArray[np.float32]]
"""Header, trajectory and samples of a readout."""


def write_ismrmrd(scan: RawScan, path: str | Path) -> Path:
    """Write the lines that were measured, with noise and calibration as readouts of their own.

    Frames are numbered as contrasts. What readers of the format need is written; the header has
    no patient, study or date.

    Args:
        scan: Any.
        path: A .h5 file, which appears as a whole.

    Raises:
        MissingExtraError: h5py is not installed.
        OutputError: It cannot be written.
    """
    h5py, path = hdf5(), Path(path)
    kind = np.dtype(
        [("head", HEAD), ("traj", h5py.vlen_dtype("<f4")), ("data", h5py.vlen_dtype("<f4"))]
    )
    path_kind = "cartesian" if scan.trajectory is None else scan.trajectory.kind
    encoding = Encoding(
        scan.encoded_matrix, scan.fov_mm, scan.recon_matrix, scan.recon_fov_mm, path_kind
    )
    rows = [*_noise_rows(scan), *_rows(scan, scan.kspace, scan.mask, 0)]
    if scan.calibration is not None:
        rows += _rows(scan, *scan.calibration, CALIBRATION)
    table = np.empty(len(rows), kind)
    for place, (head, trajectory, data) in enumerate(rows):
        head["scan_counter"] = place
        table[place] = (head, trajectory, data)
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        group = file.create_group("dataset")
        text = header_text(encoding, scan.num_coils)
        group.create_dataset("xml", data=[text], dtype=h5py.string_dtype())
        group.create_dataset("data", data=table, maxshape=(None,))
    return path


def _head(scan: RawScan, samples: int, flag: int) -> Any:
    head = np.zeros((), HEAD)
    head["version"] = 1
    head["flags"] = 1 << (flag - 1) if flag else 0
    head["number_of_samples"] = samples
    head["available_channels"] = head["active_channels"] = scan.num_coils
    head["center_sample"] = samples // 2
    return head


def _noise_rows(scan: RawScan) -> list[Row]:
    if scan.noise is None:
        return []
    parts = range(0, scan.noise.shape[1], _NOISE_LENGTH)
    blocks = [np.ascontiguousarray(scan.noise[:, i : i + _NOISE_LENGTH]) for i in parts]
    return [(_head(scan, b.shape[1], NOISE), _NOWHERE, b.view(np.float32).ravel()) for b in blocks]


def _rows(
    scan: RawScan, kspace: NDArray[np.complex64], mask: NDArray[np.bool_], flag: int
) -> list[Row]:
    """One readout a line of which a sample was measured."""
    rows = []
    axes, places = _places(scan)
    for f, s, y, z in np.argwhere(mask.any(axis=2)):
        measured = np.flatnonzero(mask[f, s, :, y, z])
        low, high = int(measured[0]), int(measured[-1]) + 1
        head = _head(scan, high - low, flag)
        head["center_sample"] = kspace.shape[3] // 2 - low
        head["position"] = places[s]
        for name, axis in zip(("read", "phase", "slice"), axes.T, strict=True):
            head[f"{name}_dir"] = axis if scan.placed else 0
        index = head["idx"]
        index["kspace_encode_step_1"], index["kspace_encode_step_2"] = y, z
        index["slice"], index[FRAME[0]] = s, f
        line = np.ascontiguousarray(kspace[f, s, :, low:high, y, z])
        trajectory = _trajectory(scan, (f, s, slice(low, high), y, z))
        head["trajectory_dimensions"] = trajectory.size // (high - low)
        rows.append((head, trajectory, line.view(np.float32).ravel()))
    return rows


def _trajectory(scan: RawScan, index: tuple[Any, ...]) -> NDArray[np.float32]:
    """Flat places of a readout in cycles per voxel, two or three a sample; none on a grid."""
    if scan.trajectory is None:
        return _NOWHERE
    dims = 3 if scan.encoded_matrix[2] > 1 else 2
    frame, part, *rest = index
    known = scan.trajectory.places
    k = known[(min(frame, len(known) - 1), min(part, known.shape[1] - 1), *rest)]
    matrix = np.asarray(scan.encoded_matrix, np.float32)
    return np.ascontiguousarray((k / matrix)[:, :dims], np.float32).ravel()


def _places(scan: RawScan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions of the axes (3, 3), and the middles of the slices (S, 3), in LPS."""
    turned = scan.affine.copy()
    turned[:2] *= -1
    axes = turned[:3, :3] / np.asarray(scan.spacing)
    slices = scan.kspace.shape[1]
    x, y, z = scan.recon_matrix
    middles = [[x // 2, y // 2, s if slices > 1 else z // 2, 1] for s in range(slices)]
    return axes, (np.asarray(middles, np.float64) @ turned.T)[:, :3]
