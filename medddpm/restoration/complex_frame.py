"""One complex frame: its phase taken off, and what is left in its imaginary part."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from medddpm.model.model import Model
from medddpm.operators.phase import object_phase
from medddpm.preprocess.frame import Frame
from medddpm.preprocess.intensity import emptied
from medddpm.preprocess.noise_support import Hint, filled_edges
from medddpm.preprocess.values import Looked
from medddpm.restoration.gaussian import denoise_gaussian
from medddpm.restoration.options import RestoreOptions

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Turned:
    """A complex frame whose object lies in the real part.

    Attributes:
        real: (X, Y, Z).
        imaginary: Noise, and what the phase is wrong by.
        turn: (X, Y, Z) exp(i phase), which was taken off.
        edges: Where k-space ends, see `filled_edges`.
    """

    real: Array
    imaginary: Array
    turn: NDArray[np.complex64]
    edges: Hint

    @classmethod
    def of(cls, image: NDArray[np.complex64]) -> Turned:
        """An image (X, Y, Z) without the smooth phase of its object, see `object_phase`."""
        turn = object_phase(torch.from_numpy(np.ascontiguousarray(image))[None])[0].numpy()
        turned = image * turn.conj()
        real, imaginary = (np.ascontiguousarray(part) for part in (turned.real, turned.imag))
        return cls(real, imaginary, turn, filled_edges(image))


def shrunk_imaginary(
    imaginary: Array, frame: Frame, seen: Looked, model: Model, options: RestoreOptions
) -> Array:
    """The imaginary part without its noise, by the shrinkage that the networks start from.

    Args:
        imaginary: (X, Y, Z) in scan units.
        frame: Of the real part, whose noise and grid it shares.
        seen: What is known of the values; voxels that are kept are kept here too.
        model: Holds the shrinkage.
        options: Tiles and memory.
    """
    if frame.noise.method == "none":
        return imaginary
    here = replace(frame, image=imaginary, y=frame.from_scan(imaginary))
    found = denoise_gaussian(
        model,
        here.y,
        frame.law,
        frame.spacing,
        options=replace(options, mode="mean", shifts=1),
        device=next(model.parameters()).device,
        learned=False,
    )
    out = here.onto_scan(found) * np.float32(frame.scale)
    background = emptied(frame.image)
    if background is not None:
        out[background] = 0
    if seen.kept is not None:
        out[seen.kept] = imaginary[seen.kept]
    return out
