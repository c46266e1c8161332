"""What the sidecar says of a frame that was restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.guard import GuardReport
from medddpm.io.frame_facts import (
    ColourFacts,
    FrameFacts,
    GuardFacts,
    QuantileFacts,
    SigmaFacts,
    ValuesFacts,
)
from medddpm.preprocess.frame import Frame


def frame_facts(
    frame: Frame,
    guard: GuardReport,
    ceiling: float,
    num_tiles: int,
    values: Mapping[str, Any],
    is_blank: bool,
    sigma_left: float | None,
) -> FrameFacts:
    """The facts of a frame.

    Args:
        frame: As the networks saw it.
        guard: The verdict.
        ceiling: PSNR of the autoencoder's round trip in dB; NaN if nothing was restored.
        num_tiles: How many were restored.
        values: What is unusual in its values, see `preprocess.values.Looked.summary`.
        is_blank: It holds one value only, and passed through.
        sigma_left: After MPPCA, in scan units; None without it.
    """
    more: dict[str, Any] = {"blank": True} if is_blank else {}
    if sigma_left is not None:
        more["sigma_left"] = sigma_left
    return FrameFacts(
        sigma=SigmaFacts(**asdict(frame.noise)),
        sigma_map=_range(frame.noise_map),
        colour=ColourFacts(**asdict(frame.law.colour)),
        acquired_matrix=list(frame.y.shape),
        intensity_scale=frame.scale,
        values=ValuesFacts(**values),
        vae_ceiling_db=round(ceiling, 2),
        guard=GuardFacts(**asdict(guard)),
        tiles=num_tiles,
        **more,
    )


def _range(noise_map: NDArray[np.float32] | None) -> QuantileFacts | None:
    """Percentiles of a map, in scan units; None where one number holds everywhere."""
    if noise_map is None:
        return None
    return QuantileFacts(**{f"p{q}": float(np.percentile(noise_map, q)) for q in (5, 50, 95)})
