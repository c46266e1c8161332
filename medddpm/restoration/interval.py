"""How wide an interval must be to hold what it says, as measured on held-out scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import CheckpointError

Array = NDArray[np.float32]
NOMINAL = 1.6449
"""Half width of a central 90 % interval of a Gaussian, in standard deviations."""


@dataclass(frozen=True)
class IntervalTable:
    """Half widths of the 90 % interval, in standard deviations of the ensemble.

    Split conformal prediction with a scaled score (Lei et al. 2018, JASA 113:1094, section 5.2),
    for each noise level and class of brightness (Mondrian: Vovk et al. 2005, section 4.5).

    Attributes:
        sigmas: Noise levels, fractions of the intensity scale, rising.
        edges: What divides the classes of brightness, fractions of the scale, rising.
        factors: One row a noise level, one number a class.
    """

    sigmas: tuple[float, ...]
    edges: tuple[float, ...]
    factors: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        shape = (len(self.sigmas), len(self.edges) + 1)
        rising = all(np.all(np.diff(values) > 0) for values in (self.sigmas, self.edges))
        if not self.sigmas or not rising or np.shape(self.factors) != shape:
            raise CheckpointError(
                f"the calibration of the weights is damaged: {shape[0]} rising sigmas and "
                f"{shape[1]} classes need as many factors; redo it with `medddpm calibrate`"
            )

    def half_width(self, mean: Array, std: Array, sigma: float | Array) -> Array:
        """Half the width of the interval of each voxel, in the units of `std`.

        Between the levels of the table it goes straight over log sigma; beyond them it is flat.

        Args:
            mean: (X, Y, Z), as a fraction of the intensity scale.
            std: Same shape.
            sigma: Noise as a fraction of the scale: a number, or a map of that shape.
        """
        classes = np.digitize(mean, self.edges)
        levels = np.log(np.asarray(self.sigmas))
        at = np.log(np.maximum(sigma, 1e-6))
        columns = np.asarray(self.factors).T
        factor = np.empty(mean.shape, np.float32)
        for number, column in enumerate(columns):
            inside = classes == number
            factor[inside] = np.interp(at if np.ndim(at) == 0 else at[inside], levels, column)
        out: Array = factor * std
        return out


def interval_table(card: Mapping[str, Any]) -> IntervalTable | None:
    """The table of a weights' card, or None where nobody has calibrated them.

    Raises:
        CheckpointError: It is there, but damaged.
    """
    found = card.get("calibration")
    if found is None:
        return None
    try:
        return IntervalTable(
            tuple(found["sigmas"]),
            tuple(found["edges"]),
            tuple(tuple(row) for row in found["factors"]),
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"the calibration of the weights is damaged ({error!r}); redo it with "
            "`medddpm calibrate`"
        ) from error
