"""What a sidecar says of one frame: its noise, its values and the verdict of the guard."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""JSON has no NaN: on disk it is null."""


class Part(BaseModel):
    """A part of a sidecar: frozen, and without other fields than those it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SigmaFacts(Part):
    """The level of the noise.

    Attributes:
        sigma: Standard deviation of one real component, in scan units.
        fraction: The same over `scale`.
        method: "air", "foreground", "given" or "none".
        error: Relative error that holds the truth in 9 of 10 scans.
        num_voxels: Voxels that were used; 0 if given.
        scale: Intensity scale of the scan without its noise, in scan units.
    """

    sigma: Number
    fraction: Number
    method: str
    error: Number = math.nan
    num_voxels: int = 0
    scale: Number = math.nan


class QuantileFacts(Part):
    """The 5th, 50th and 95th percentile of a map of sigma, in scan units."""

    p5: Number
    p50: Number
    p95: Number


class ColourFacts(Part):
    """The spectrum of the noise on the acquired grid; see `preprocess.noise_law.Colour`."""

    edge: tuple[float, float, float]
    elliptical: tuple[int, ...]
    window: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]


class ValuesFacts(Part):
    """What is unusual in the values of the frame.

    Attributes:
        negative_share: Share of the voxels below 0.
        spikes: Voxels that are far too bright.
        background: Value of an even background, in scan units.
        floor: What was taken off every voxel, in scan units.
        notices: The same in words.
    """

    negative_share: Number = math.nan
    spikes: int | None = None
    background: Number | None = None
    floor: Number | None = None
    notices: tuple[str, ...] = ()


class CheckFacts(Part):
    """One number of the guard; see `guard.checks.Check`."""

    name: str
    words: str = ""
    value: Number
    low: float | None = None
    high: float | None = None
    passed: bool | None = None
    false_alarms: float | None = None
    where: tuple[Number, Number, Number] | None = None
    tier: str = "alarm"


class GuardFacts(Part):
    """The verdict on the frame; see `guard.checks.GuardReport`."""

    passed: bool | None = None
    messages: tuple[str, ...]
    checks: tuple[CheckFacts, ...] = ()
    notices: tuple[str, ...] = ()


class FrameFacts(Part):
    """What is known of one frame.

    Attributes:
        sigma: Level of its noise.
        sigma_map: Spread of that level over the frame; None where one number holds everywhere.
        colour: Spectrum of the noise.
        acquired_matrix: Voxels along each axis that were measured.
        intensity_scale: What the frame was divided by, in scan units.
        values: What is unusual in its values.
        vae_ceiling_db: PSNR of the autoencoder's round trip; NaN where nothing was restored.
        guard: The verdict.
        tiles: How many were restored.
        blank: It holds one value only, and passed through.
        sigma_left: Noise that was left after the frames were told apart together, in scan units;
            None if this one took no part.
    """

    sigma: SigmaFacts
    sigma_map: QuantileFacts | None = None
    colour: ColourFacts | None = Field(default=None, repr=False)
    acquired_matrix: list[int] = []
    intensity_scale: Number = math.nan
    values: ValuesFacts = ValuesFacts()
    vae_ceiling_db: Number
    guard: GuardFacts = Field(repr=False)
    tiles: int = 0
    blank: bool = False
    sigma_left: Number | None = None
