"""Trajectories of simulated scans: radial and spiral."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import ConfigError
from medddpm.io.raw_scan import Trajectory

TrajectoryKind = Literal["radial", "spiral"]
_STEP = 0.7
"""Cycles per field of view between samples of a spiral."""
_MIDDLE, _DENSER = 12.0, 4
"""Cycles per field of view within which a spiral is denser, and how much."""
_FINE = 65536


def simulated_trajectory(
    kind: TrajectoryKind, shape: tuple[int, int], readouts: int | None = None
) -> Trajectory:
    """Readouts through a plane of k-space, the same for each slice.

    Args:
        kind: "radial" are spokes through the middle, evenly over half a turn and read twice as
            densely as the field of view asks for; "spiral" are arms from the middle on with even
            steps along them, whose turns lie four times as dense in the middle (Kim et al., Magn
            Reson Med 50:214, 2003), so that a quarter of the arms still calibrate the coils.
        shape: Voxels along x and y; k reaches half of the larger, and half of each along its axis.
        readouts: Spokes or arms; as many as measure the plane fully if not given.

    Raises:
        ConfigError: The kind is unknown, or there is no readout.
    """
    if kind not in get_args(TrajectoryKind):
        known = ", ".join(get_args(TrajectoryKind))
        raise ConfigError(f"trajectory {kind!r} is unknown; choose one of {known}")
    length = max(shape)
    full = round(length * np.pi / 2) if kind == "radial" else max(1, round(length / 8))
    count = full if readouts is None else readouts
    if count < 1:
        raise ConfigError(f"{count} readouts measure nothing; give 1 or more")
    if kind == "radial":
        along = (np.arange(2 * length) - length) / 2 + 0j
        turns = np.exp(1j * np.pi * np.arange(count) / count)
    else:
        along = _arm(length / 2, full)
        turns = np.exp(2j * np.pi * np.arange(count) / count)
    k = along[:, None] * turns / length
    places = np.zeros((1, 1, *k.shape, 1, 3), np.float32)
    places[0, 0, :, :, 0, 0], places[0, 0, :, :, 0, 1] = k.real * shape[0], k.imag * shape[1]
    return Trajectory(places, (*shape, 1), kind)


def _arm(reach: float, pitch: float) -> NDArray[np.complex128]:
    """Places of a spiral arm from 0 to `reach`, which moves out by `pitch` a turn, or a fourth."""
    inner = min(_MIDDLE, reach / 2)
    turns = np.cumsum([0, inner / (pitch / _DENSER), (reach - inner) / pitch])
    t = np.linspace(0, turns[-1], _FINE)
    k = np.interp(t, turns, [0, inner, reach]) * np.exp(2j * np.pi * t)
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(k)))])
    t = np.interp(np.linspace(0, length[-1], int(length[-1] / _STEP) + 1), length, t)
    return np.asarray(np.interp(t, turns, [0, inner, reach]) * np.exp(2j * np.pi * t))
