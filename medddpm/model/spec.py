"""What rebuilds the networks: their kinds, widths and depths, within bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval, Len
from pydantic import BeforeValidator

from medddpm.diffusion.prediction import Prediction
from medddpm.diffusion.schedule import Schedule
from medddpm.errors import ConfigError
from medddpm.model.imported_spec import VaeSpec

_FORBID: dict[str, str] = {"extra": "forbid"}
_Width = Annotated[int, Interval(ge=1, le=4096)]
_Depth = Annotated[int, Interval(ge=1, le=64)]
_Levels = Annotated[tuple[_Width, ...], Len(1, 6)]
_BLOCK = 2 * 3**3
"""Weights of a residual block, over the square of its width: two convolutions of 3 x 3 x 3."""


def _named_schedule(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class AutoencoderSpec:
    """What rebuilds the autoencoder.

    `kind` "monai" is MONAI's AutoencoderKL behind the stem, "imported" one that others trained;
    `imported`, its factor and channels are then those of its file, not to be set by hand.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    kind: Literal["compact", "monai", "imported"] = "compact"
    latent_channels: _Width = 16
    factor: Literal[2, 4, 8] = 4
    encoder_channels: _Width = 64
    decoder_channels: _Width = 96
    encoder_blocks: _Depth = 3
    decoder_blocks: _Depth = 5
    imported: VaeSpec | None = None


@dataclass(frozen=True)
class DiffusionSpec:
    """What rebuilds the conditional U-Net, its schedule and what it predicts.

    A config may name the kind of the schedule alone: `schedule: cosine`. A `coloured` network has
    filters of unit norm, sees the voxels of the scan itself, and is told the colour of its noise.
    `kind` "monai" is MONAI's DiffusionModelUNet, which has its own embedding of the noise level.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    kind: Literal["unet", "monai"] = "unet"
    channels: _Levels = (96, 96, 96)
    num_blocks: _Depth = 2
    embedding_width: _Width = 128
    coloured: bool = False
    prediction: Prediction = "v"
    schedule: Annotated[Schedule, BeforeValidator(_named_schedule)] = field(
        default_factory=Schedule
    )


@dataclass(frozen=True)
class FidelitySpec:
    """What rebuilds the fidelity decoder; without `prior` it is a plain supervised denoiser."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    channels: _Levels = (64, 96, 128)
    num_blocks: _Depth = 2
    embedding_width: _Width = 128
    prior: bool = True
    coloured: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """The whole model.

    Raises:
        ConfigError: The fidelity decoder has no level on the grid of the latent, or an imported
            autoencoder is not described, or as another one.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    autoencoder: AutoencoderSpec = field(default_factory=AutoencoderSpec)
    diffusion: DiffusionSpec = field(default_factory=DiffusionSpec)
    fidelity: FidelitySpec = field(default_factory=FidelitySpec)

    def __post_init__(self) -> None:
        needed = int(math.log2(self.autoencoder.factor))
        if len(self.fidelity.channels) < needed:
            raise ConfigError(
                f"fidelity.channels lists {len(self.fidelity.channels)} levels; a latent of factor "
                f"{self.autoencoder.factor} needs {needed} or more"
            )
        auto, vae = self.autoencoder, self.autoencoder.imported
        if (auto.kind == "imported") != (vae is not None):
            raise ConfigError("an autoencoder is described as imported, or it is of another kind")
        if vae and (vae.factor, vae.latent_channels) != (auto.factor, auto.latent_channels):
            raise ConfigError("an imported autoencoder has the factor and channels of its file")

    @property
    def least_weights(self) -> int:
        """How many weights the networks have at least: those of their residual blocks."""
        total = _of_autoencoder(self.autoencoder)
        for unet in (self.diffusion, self.fidelity):
            both = (*unet.channels, *unet.channels[:-1])  # the way down, and up again
            total += unet.embedding_width**2
            total += sum(_BLOCK * unet.num_blocks * width**2 for width in both)
        return total


def _of_autoencoder(auto: AutoencoderSpec) -> int:
    """How many weights an autoencoder has at least."""
    if auto.imported is not None:
        return auto.imported.least_weights
    deep = auto.kind == "compact"
    blocks = [
        (auto.encoder_channels, auto.encoder_blocks if deep else 1),
        (auto.decoder_channels, auto.decoder_blocks if deep else int(auto.factor > 2)),
    ]
    return sum(_BLOCK * count * width**2 for width, count in blocks)
