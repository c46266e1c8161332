"""What came of each frame, and all of them as one scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.guard import GuardReport
from medddpm.io.sidecar import Facts
from medddpm.preprocess.frame import Frame
from medddpm.preprocess.values import Looked
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restored import Restored
from medddpm.volume import Volume

Array = NDArray[np.float32]


@dataclass(frozen=True)
class RestoredFrame:
    """One frame in the units of the scan, and what is known of it.

    Attributes:
        mean: (X, Y, Z).
        std: Its standard deviation over the samples of an ensemble, or None.
        half_width: Of the interval, or None.
        frame: As it was, with its noise.
        ceiling: PSNR of the autoencoder's round trip in dB; NaN if nothing was restored.
        guard: The verdict.
        num_tiles: How many were restored.
        values: What is unusual in its values.
        is_blank: It holds one value only, and passed through.
        sigma_left: Noise that was left by the other frames, in scan units; None without them.
    """

    mean: Array
    std: Array | None
    half_width: Array | None
    frame: Frame
    ceiling: float
    guard: GuardReport
    num_tiles: int
    values: dict[str, Any] = field(default_factory=dict)
    is_blank: bool = False
    sigma_left: float | None = None


def untouched(seen: Looked, frame: Frame, options: RestoreOptions) -> RestoredFrame:
    """A frame without noise, as it is: there is nothing to remove, and nothing is uncertain."""
    mean = seen.original.copy()
    std, width = (np.zeros_like(mean) if options.mode == "ensemble" else None for _ in range(2))
    passed = GuardReport(True, (), ())
    return RestoredFrame(mean, std, width, frame, math.nan, passed, 0, seen.summary, seen.is_blank)


def as_scan(
    volume: Volume, frames: Sequence[RestoredFrame], facts: Facts, least: float
) -> Restored:
    """All frames as one scan; no interval begins below `least`."""
    data = [f.mean for f in frames]
    if any(f.std is None for f in frames):
        return Restored(assemble(volume, data), None, None, None, facts)
    std = [f.std for f in frames if f.std is not None]
    width = [f.half_width for f in frames if f.half_width is not None]
    lower = [np.minimum(np.maximum(m - w, least), m) for m, w in zip(data, width, strict=True)]
    upper = [m + w for m, w in zip(data, width, strict=True)]
    mean, spread, low, high = (assemble(volume, p) for p in (data, std, lower, upper))
    return Restored(mean, spread, low, high, facts)


def assemble(volume: Volume, frames: Sequence[Array]) -> Volume:
    """The frames (X, Y, Z) as one scan in the place of another."""
    return volume.with_data(frames[0] if volume.data.ndim == 3 else np.stack(frames, axis=-1))
