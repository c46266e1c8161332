"""Where the guard draws the line: what good restorations of clean scans showed at each noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medddpm.errors import CheckpointError

Bounds = tuple[tuple[float, ...] | None, tuple[float, ...] | None]


@dataclass(frozen=True)
class GuardLimits:
    """The usual range of each check.

    Attributes:
        sigmas: Noise levels, fractions of the intensity scale, rising.
        bounds: By name of the check: the lowest and the highest usual value at each level; None
            where that side says nothing.
        false_alarms: By name of the check: share of good restorations that it flags.
    """

    sigmas: tuple[float, ...]
    bounds: Mapping[str, Bounds]
    false_alarms: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sides = [side for both in self.bounds.values() for side in both if side is not None]
        rising = bool(np.all(np.diff(self.sigmas) > 0))
        if not self.sigmas or not rising or any(len(s) != len(self.sigmas) for s in sides):
            raise CheckpointError(
                "the guard's limits in the weights are damaged: each needs one number for each of "
                "the rising sigmas; redo them with `medddpm calibrate-guard`"
            )

    def of(self, name: str, level: float) -> tuple[float | None, float | None]:
        """The usual range at a noise level, straight over log sigma; flat beyond the table."""
        low, high = self.bounds.get(name, (None, None))
        at, levels = np.log(max(level, 1e-6)), np.log(self.sigmas)
        return (
            None if low is None else float(np.interp(at, levels, low)),
            None if high is None else float(np.interp(at, levels, high)),
        )


UNCALIBRATED = GuardLimits(
    sigmas=(0.029, 0.03),
    bounds={
        "residual_ratio": ((0.0, 0.3), (1.35, 1.35)),
        "noise_ratio": ((0.45, 0.45), None),
        "whiteness": (None, (0.3, 0.3)),
        "structure": (None, (0.4, 0.4)),
        "peak": (None, (2.5, 2.5)),
    },
)
"""For weights that nobody has calibrated: well outside what good restorations of real scans showed
at sigma 0.005 to 0.2 of the scale."""


def read_limits(found: Mapping[str, Any]) -> GuardLimits:
    """The limits of one mode, as the card of the weights holds them.

    Raises:
        CheckpointError: They are damaged.
    """
    try:
        bounds = {name: (_side(low), _side(high)) for name, (low, high) in found["bounds"].items()}
        return GuardLimits(tuple(found["sigmas"]), bounds, dict(found["false_alarms"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"the guard's limits in the weights are damaged ({error!r}); redo them with `medddpm "
            "calibrate-guard`"
        ) from error


def _side(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(v) for v in values)
