"""In which numbers a phase image holds angles, told from its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import VolumeReadError

_FILLED = 0.9
"""Share of a range that the values of a phase span: in air it is noise, which takes every angle."""
_BINS, _LEAST = 8, 0.002
"""Parts of the range, each of which holds so large a share of the voxels: a magnitude has next to
nothing in its brightest parts."""
_SPAN = 2.5
"""Radians that a phase spans if it does not fill its range, as in a masked head."""
_ROOM = 2e-3
"""Of the range, by which values may lie beyond it, for rounding."""


@dataclass(frozen=True)
class PhaseUnits:
    """Numbers that stand for angles.

    Attributes:
        words: How a person calls them.
        low: The number of -pi.
        period: Numbers of a whole turn.
    """

    words: str
    low: float
    period: float

    def radians(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The angles, about -pi to pi."""
        turns = (np.asarray(values, np.float64) - self.low) / self.period
        return np.asarray((2 * turns - 1) * np.pi, np.float32)


RADIANS = PhaseUnits("radians", -np.pi, 2 * np.pi)
_KNOWN = (
    RADIANS,
    PhaseUnits("radians from 0 to 2 pi", 0.0, 2 * np.pi),
    PhaseUnits("degrees", -180.0, 360.0),
    PhaseUnits("degrees from 0 to 360", 0.0, 360.0),
    PhaseUnits("integers from 0 to 4095", 0.0, 4096.0),
    PhaseUnits("integers from -2048 to 2047", -2048.0, 4096.0),
    PhaseUnits("thousandths of a radian", -1000 * np.pi, 2000 * np.pi),
    PhaseUnits("integers from -4096 to 4095", -4096.0, 8192.0),
    PhaseUnits("integers from 0 to 65535", 0.0, 65536.0),
    PhaseUnits("integers from -32768 to 32767", -32768.0, 65536.0),
)


def phase_units(values: NDArray[Any], name: str) -> PhaseUnits:
    """What the values of a phase image are.

    A range is believed if the values fill it. Radians between -pi and pi alone may also fill less
    of it, as those of a masked head do.

    Args:
        values: Of the image.
        name: What the message calls it.

    Raises:
        VolumeReadError: They are those of no phase.
    """
    shown = values[values != 0]
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)
    for units in _KNOWN:
        room = _ROOM * units.period
        within = low >= units.low - room and high <= units.low + units.period + room
        if within and high - low >= _FILLED * units.period and _is_filled(shown, units):
            return units
    if -np.pi * (1 + _ROOM) <= low < 0 < high <= np.pi * (1 + _ROOM) and high - low > _SPAN:
        return RADIANS
    raise VolumeReadError(
        f"{name} is no phase that is known: its values go from {low:.4g} to {high:.4g}, and those "
        "of a phase fill -pi to pi, 0 to 2 pi, degrees, -4096 to 4095, 0 to 4095 or the like; "
        "rescale it to radians, and wrap it to -pi to pi"
    )


def _is_filled(values: NDArray[Any], units: PhaseUnits) -> bool:
    ends = (units.low, units.low + units.period)
    counts, _ = np.histogram(np.clip(values, *ends), bins=_BINS, range=ends)
    return bool(counts.min() >= _LEAST * values.size)
