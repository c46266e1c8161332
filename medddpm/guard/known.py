"""Good restorations that the guard knows, and what it expects of one like them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import CheckpointError

Array = NDArray[np.float32]
Range = tuple[float | None, float | None]
_NEIGHBOURS = 6
_LEVEL_STEP = 0.35
"""A difference of so much in the logarithm of sigma counts like one of `spread` in the latents."""
_NEAREST = 0.15
"""Two restorations of one kind are about so far apart; nearer ones weigh no more."""


@dataclass(frozen=True)
class Known:
    """Restorations of clean scans with added noise.

    What is usual depends on the scan: a thin T1w slice leaves another residual than a thick FLAIR.
    So a number is compared with a mean over the most similar known restorations, and may be the
    further from it the less similar they are.

    Attributes:
        features: (N, 2 C) of their latents; see `latents.latent_features`.
        levels: (N,) noise that was assumed, as fractions of the intensity scale.
        findings: By name of the check, (N,).
        spread: (2 C,) of the features: what counts as a difference of one.
    """

    features: Array = field(repr=False)
    levels: Array = field(repr=False)
    findings: Mapping[str, Array] = field(repr=False)
    spread: Array = field(repr=False)

    def __post_init__(self) -> None:
        count, width = np.shape(self.features) if np.ndim(self.features) == 2 else (0, 0)
        sizes = [np.shape(self.levels), *(np.shape(v) for v in self.findings.values())]
        whole = count and all(s == (count,) for s in sizes) and np.shape(self.spread) == (width,)
        numbers = (self.features, self.levels, self.spread, *self.findings.values())
        # whatever is compared with NaN would pass
        sound = whole and all(np.isfinite(a).all() for a in numbers)
        if not sound or np.min(self.levels) <= 0 or np.min(self.spread) <= 0:
            raise CheckpointError(
                "the guard's known restorations in the weights are damaged; redo them with "
                "`medddpm calibrate-guard`"
            )

    def strangeness(self, features: Array) -> float:
        """Root mean square difference from the most similar known scan, in units of `spread`."""
        return float(np.sqrt(self._squares(features).min()))

    def expect(self, features: Array, level: float) -> tuple[dict[str, float], float]:
        """What each check should show, and how far away the most similar restoration is.

        Args:
            features: (2 C,) of the latents of a restored scan.
            level: Its noise as a fraction of the intensity scale; less than any known level counts
                as the lowest, for with no noise nothing changes any more, and likewise above.
        """
        level = float(np.clip(level, self.levels.min(), self.levels.max()))
        steps = (np.log(self.levels) - np.log(level)) / _LEVEL_STEP
        squares = self._squares(features) + np.square(steps)
        nearest = np.argsort(squares, kind="stable")[:_NEIGHBOURS]
        weight = 1 / (squares[nearest] + _NEAREST**2)
        weight /= weight.sum()
        values = {name: float(weight @ v[nearest]) for name, v in self.findings.items()}
        return values, float(np.sqrt(squares[nearest[0]]))

    def _squares(self, features: Array) -> NDArray[np.float64]:
        difference = (self.features - features) / self.spread
        out: NDArray[np.float64] = np.mean(np.square(difference, dtype=np.float64), axis=1)
        return out


def room(distance: float, name: str) -> float:
    """How far a check may be off, as a multiple of its reach, so far from known restorations."""
    return distance + _ROOM.get(name, 0.1)


_ROOM = {"peak": 1.0, "tissue_shift": 1.0, "structure": 0.5}
"""Checks that depend less on what kind of scan it is."""


FIXED: dict[str, Range] = {"noise_ratio": (0.6, 1.6)}
"""Ranges that hold whatever the scan. The level of coloured noise is itself known to a fifth, in
busy scans to a third: an alarm is for a sigma that is wrong, half or twice of what it should be."""
FAINT = 0.01
"""Noise of this share of the scale: what is left of less harms no reading, and flat tissue of a
nearly clean scan has as much anatomy."""


def fixed(level: float) -> dict[str, Range]:
    """`FIXED` at a noise level: that noise is left is said where more than `FAINT` may be."""
    low, high = FIXED["noise_ratio"]
    assert high is not None
    return FIXED | {"noise_ratio": (low, max(high, float(np.hypot(1, FAINT / max(level, 1e-6)))))}


@dataclass(frozen=True)
class Usual:
    """The usual range of each check.

    Attributes:
        known: What to compare with.
        reach: By name, how far below and above what is expected is usual, in units of `room`;
            None where that side says nothing.
        ranges: By name, fixed ranges, whatever the scan.
    """

    known: Known
    reach: Mapping[str, Range]
    ranges: Mapping[str, Range]

    def of(self, features: Array | None, level: float) -> dict[str, Range]:
        """The lowest and highest usual value of each check.

        Without features (hardly a body in the scan) only the fixed ranges hold.
        """
        found = {**self.ranges, **fixed(level)}
        if features is None:
            return found
        expected, distance = self.known.expect(features, level)
        for name, (below, above) in self.reach.items():
            if name in expected and name not in FIXED:
                middle, far = expected[name], room(distance, name)
                quiet = name == "residual_ratio" and level < FAINT
                low = None if below is None or quiet else middle - below * far
                found[name] = (low, None if above is None else middle + above * far)
        return found


UNCALIBRATED: dict[str, Range] = {
    "residual_ratio": (0.3, 1.35),
    "noise_ratio": (0.45, None),
    "whiteness": (None, 0.3),
    "structure": (None, 0.4),
    "peak": (None, 2.5),
}
"""For weights that nobody has calibrated: well outside what good restorations of real scans showed
at sigma 0.005 to 0.2 of the scale."""
QUIET = 0.03
"""Below this noise little is removed, and that says nothing."""


def uncalibrated(level: float) -> dict[str, Range]:
    """Wide ranges at a noise level."""
    if level > QUIET:
        return dict(UNCALIBRATED)
    return UNCALIBRATED | {"residual_ratio": (None, UNCALIBRATED["residual_ratio"][1])}
