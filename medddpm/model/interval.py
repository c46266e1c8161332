"""How wide an interval must be to hold what it says, as measured on held-out scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medddpm.errors import CheckpointError
from medddpm.guard.card import Number

Array = NDArray[np.float32]
NOMINAL = 1.6449
"""Half width of a central 90 % interval of a Gaussian, in standard deviations."""


_Positive = Annotated[Number, Field(gt=0)]


class IntervalCard(BaseModel):
    """What a card's "calibration" says of the table; see `IntervalTable`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    sigmas: tuple[_Positive, ...]
    edges: tuple[Number, ...]
    factors: tuple[tuple[_Positive, ...], ...]
    slices: tuple[Number, ...] = ()


@dataclass(frozen=True)
class IntervalTable:
    """Half widths of the 90 % interval, in standard deviations of the ensemble.

    Split conformal prediction with a scaled score (Lei et al. 2018, JASA 113:1094, section 5.2),
    for each noise level and class of slices and brightness (Mondrian: Vovk et al. 2005, section
    4.5).

    Attributes:
        sigmas: Noise levels, fractions of the intensity scale, rising.
        edges: What divides the classes of brightness, fractions of the scale, rising.
        factors: One row a noise level; one number a class of brightness for each class of slices,
            the thinnest slices first.
        slices: What divides the classes of slices: largest over smallest voxel edge, rising; none
            is one class.
    """

    sigmas: tuple[float, ...]
    edges: tuple[float, ...]
    factors: tuple[tuple[float, ...], ...]
    slices: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.sigmas), (len(self.edges) + 1) * (len(self.slices) + 1))
        axes = (self.sigmas, self.edges, self.slices)
        rising = all(np.all(np.diff(values) > 0) for values in axes)
        rows = [len(row) for row in self.factors]
        sound = rows == [shape[1]] * shape[0] and np.min(self.factors) > 0
        if not self.sigmas or not rising or not sound:
            raise CheckpointError(
                f"the calibration of the weights is damaged: {shape[0]} rising sigmas and "
                f"{shape[1]} classes need as many positive factors; redo it with "
                "`medddpm calibrate`"
            )

    def half_width(
        self, mean: Array, std: Array, sigma: float | Array, spacing: Sequence[float]
    ) -> Array:
        """Half the width of the interval of each voxel, in the units of `std`.

        Between the levels of the table it goes straight over log sigma; beyond them it is flat.

        Args:
            mean: (X, Y, Z), as a fraction of the intensity scale.
            std: Same shape.
            sigma: Noise as a fraction of the scale: a number, or a map of that shape.
            spacing: Voxel edges in mm.
        """
        classes = self.classes(mean, spacing)
        levels = np.log(np.asarray(self.sigmas))
        at = np.log(np.maximum(sigma, 1e-6))
        columns = np.asarray(self.factors).T
        factor = np.zeros(mean.shape, np.float32)
        for number, column in enumerate(columns):
            inside = classes == number
            factor[inside] = np.interp(at if np.ndim(at) == 0 else at[inside], levels, column)
        out: Array = factor * std
        return out

    def classes(self, mean: Array, spacing: Sequence[float]) -> NDArray[np.intp]:
        """The class of each voxel: its column of `factors`."""
        thick = int(np.digitize(thickness(spacing), self.slices))
        out: NDArray[np.intp] = np.digitize(mean, self.edges) + thick * (len(self.edges) + 1)
        return out


def thickness(spacing: Sequence[float]) -> float:
    """The largest voxel edge over the smallest: 1 for cubes, 2 and more for thick slices."""
    return float(max(spacing) / min(spacing))


def interval_table(card: Mapping[str, Any]) -> IntervalTable | None:
    """The table of a weights' card, or None where nobody has calibrated them.

    A card from before the classes of slices has one class of them.

    Raises:
        CheckpointError: It is there, but damaged.
    """
    found = card.get("calibration")
    if found is None:
        return None
    try:
        given = IntervalCard.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(
            "the calibration of the weights is damaged "
            f"({'.'.join(map(str, first['loc']))}: {first['msg']}); redo it with "
            "`medddpm calibrate`"
        ) from error
    return IntervalTable(given.sigmas, given.edges, given.factors, given.slices)
