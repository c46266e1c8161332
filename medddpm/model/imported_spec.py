"""What rebuilds a network of others: its layout and sizes, within bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval, Len

from medddpm.errors import ConfigError

_FORBID: dict[str, str] = {"extra": "forbid"}
_Width = Annotated[int, Interval(ge=1, le=4096)]
_Depth = Annotated[int, Interval(ge=1, le=16)]
_Small = Annotated[float, Interval(gt=0, le=1)]
_KERNEL = 3**3


@dataclass(frozen=True)
class VaeSpec:
    """An AutoencoderKL (Rombach et al. 2022) of one image channel, as somebody else trained it.

    Names are those of MONAI's arguments. Layout "maisi" is AutoencoderKlMaisi (Guo et al. 2025),
    "generative" is AutoencoderKL of MONAI and of MONAI GenerativeModels, "medvae" is the 3D network
    of MedVAE (Varma et al. 2025), whose decoder has one residual block a level more.

    Attributes:
        channels: Width of each level, finest first; the latent is that of the coarsest.
        inner_channels: MedVAE's `z_channels`; the channels of the latent in other layouts.
        low: What stands for 0 of the intensity scale where the network was trained.
        high: What stands for 1.

    Raises:
        ConfigError: Sizes contradict each other.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    layout: Literal["maisi", "generative", "medvae"]
    channels: Annotated[tuple[_Width, ...], Len(2, 4)]
    num_res_blocks: Annotated[tuple[_Depth, ...], Len(2, 4)]
    attention_levels: Annotated[tuple[bool, ...], Len(2, 4)]
    latent_channels: _Width
    inner_channels: _Width
    norm_num_groups: _Width
    norm_eps: _Small
    with_encoder_nonlocal_attn: bool
    with_decoder_nonlocal_attn: bool
    use_convtranspose: bool
    include_fc: bool
    use_combined_linear: bool
    low: Annotated[float, Interval(ge=-1e6, le=1e6)]
    high: Annotated[float, Interval(ge=-1e6, le=1e6)]

    def __post_init__(self) -> None:
        _check_levels(self.channels, self.num_res_blocks, self.attention_levels)
        _check_groups(self.channels, self.norm_num_groups)
        if not self.low < self.high:
            raise ConfigError(
                f"the range of an autoencoder goes up, not from {self.low} to {self.high}"
            )

    @property
    def factor(self) -> Literal[2, 4, 8]:
        """Voxels a latent voxel along one axis."""
        factors: tuple[Literal[2, 4, 8], ...] = (2, 4, 8)
        return factors[len(self.channels) - 2]

    @property
    def least_weights(self) -> int:
        """How many weights it has at least: those of its residual blocks."""
        blocks = zip(self.channels, self.num_res_blocks, strict=True)
        return sum(2 * _KERNEL * (2 * count - 1) * width**2 for width, count in blocks)


@dataclass(frozen=True)
class UNetSpec:
    """A DiffusionModelUNet (Rombach et al. 2022) in 3D, as somebody else trained it.

    Names are those of MONAI's arguments; layout "maisi" is DiffusionModelUNetMaisi.

    Raises:
        ConfigError: Sizes contradict each other.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    layout: Literal["maisi", "generative"]
    in_channels: _Width
    out_channels: _Width
    channels: Annotated[tuple[_Width, ...], Len(1, 6)]
    num_res_blocks: Annotated[tuple[_Depth, ...], Len(1, 6)]
    attention_levels: Annotated[tuple[bool, ...], Len(1, 6)]
    num_head_channels: Annotated[tuple[Annotated[int, Interval(ge=0, le=4096)], ...], Len(1, 6)]
    norm_num_groups: _Width
    norm_eps: _Small
    resblock_updown: bool
    with_conditioning: bool
    transformer_num_layers: _Depth
    cross_attention_dim: _Width | None
    num_class_embeds: Annotated[int, Interval(ge=1, le=100_000)] | None
    include_fc: bool
    use_combined_linear: bool
    include_top_region_index_input: bool = False
    include_bottom_region_index_input: bool = False
    include_spacing_input: bool = False

    def __post_init__(self) -> None:
        levels = (self.num_res_blocks, self.attention_levels, self.num_head_channels)
        _check_levels(self.channels, *levels)
        _check_groups(self.channels, self.norm_num_groups)

    @property
    def least_weights(self) -> int:
        """How many weights it has at least: those of its residual blocks."""
        blocks = zip(self.channels, self.num_res_blocks, strict=True)
        return sum(2 * _KERNEL * (2 * count - 1) * width**2 for width, count in blocks)


def _check_levels(channels: tuple[int, ...], *others: tuple[int, ...]) -> None:
    if any(len(other) != len(channels) for other in others):
        raise ConfigError(
            f"a network of {len(channels)} levels needs {len(channels)} values of each list, got "
            f"{', '.join(str(len(other)) for other in others)}"
        )


def _check_groups(channels: tuple[int, ...], groups: int) -> None:
    wrong = [width for width in channels if width % groups]
    if wrong:
        raise ConfigError(f"{wrong[0]} channels do not divide into {groups} groups")
