"""What a prior over whole heads can be told; the defaults live here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval, Len

_FORBID: dict[str, str] = {"extra": "forbid"}
_Width = Annotated[int, Interval(ge=1, le=1024)]


@dataclass(frozen=True)
class PriorSpec:
    """What rebuilds the network, and the field of view that it draws.

    Attributes:
        shape: Voxels along R, A, S; multiples of 2^levels.
        spacing: Edge of a voxel in mm.
        channels: Width of each level, finest first, of the network for fine structure.
        coarse_channels: The same of the network for the head at twice the spacing.
        num_blocks: Residual blocks a level and direction.
        embedding_width: Width of the embedded noise level.
        finer: A third network draws at half the spacing.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    shape: Annotated[tuple[int, ...], Len(3, 3)] = (40, 48, 40)
    spacing: Annotated[float, Interval(ge=0.5, le=8)] = 4.0
    channels: Annotated[tuple[_Width, ...], Len(1, 5)] = (64, 128)
    coarse_channels: Annotated[tuple[_Width, ...], Len(1, 5)] = (128, 256)
    num_blocks: Annotated[int, Interval(ge=1, le=16)] = 1
    embedding_width: Annotated[int, Interval(ge=8, le=1024)] = 128
    finer: bool = False


@dataclass(frozen=True)
class PriorOptions(PriorSpec):
    """The prior and its training.

    Attributes:
        contrast: Of the scans that it learns, such as "T1w"; others in the folder are left out.
        steps: Of the head at twice the spacing.
        detail_steps: Of its fine structure.
        finer_steps: Of what half the spacing shows more.
        batch: Samples a step.
        learning_rate: Of each.
        turn: Standard deviation of each random rotation, in degrees.
        stretch: Standard deviation of the log of the random scale of each axis.
        warp: Standard deviation of the random smooth displacement, in mm.
        faces: "refuse" trains on no scan that shows a face, "keep" learns faces too.
    """

    contrast: str = "T1w"
    steps: Annotated[int, Ge(1)] = 20_000
    detail_steps: Annotated[int, Ge(1)] = 8_000
    finer: bool = True
    finer_steps: Annotated[int, Ge(1)] = 8_000
    batch: Annotated[int, Ge(1)] = 8
    learning_rate: Annotated[float, Gt(0)] = 5e-3
    turn: Annotated[float, Ge(0)] = 1.0
    stretch: Annotated[float, Ge(0)] = 0.03
    warp: Annotated[float, Ge(0)] = 2.0
    faces: Literal["refuse", "keep"] = "refuse"
