"""What a reconstruction can be told; the defaults live here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, get_args

from annotated_types import Ge, Gt

from medddpm.errors import ConfigError
from medddpm.reconstruction.plug_and_play import PlugOptions

Method = Literal["zero-filled", "cg-sense", "tv", "l1-wavelet", "ours"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class ReconstructOptions:
    """Options of one reconstruction.

    Attributes:
        method: "ours" is plug-and-play with the shipped restorer.
        weight: Of the regularisation: Tikhonov's (cg-sense), or that of TV or wavelets in units of
            the noise; each method's own if not given.
        iterations: Of cg-sense, tv and l1-wavelet; each method's own if not given.
        coils: Compress to so many virtual coils before; None keeps all.
        plug: How `ours` runs.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    method: Method = "ours"
    weight: Annotated[float, Gt(0)] | None = None
    iterations: Annotated[int, Ge(1)] | None = None
    coils: Annotated[int, Ge(1)] | None = None
    plug: PlugOptions = field(default_factory=PlugOptions)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(
                f"method {self.method!r} is unknown; choose one of {', '.join(METHODS)}"
            )
