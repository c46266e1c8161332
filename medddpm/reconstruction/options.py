"""What a reconstruction can be told; the defaults live here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, get_args

from annotated_types import Ge, Gt, Interval

from medddpm.errors import ConfigError
from medddpm.reconstruction.plug_and_play import PlugOptions
from medddpm.restoration.options import Mode

Method = Literal["zero-filled", "cg-sense", "tv", "l1-wavelet", "ours"]
_HELD_OUT = 0.05
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
        mode: "mean" is the expected image, "sample" one plausible one, "ensemble" the mean of
            several with their spread; all but "mean" belong to "ours".
        samples: Draws of an ensemble.
        seed: Of draws and of what is held out.
        held_out: Share of the measured lines that is kept out and predicted; None takes 0.05 for
            "sample" and "ensemble", and 0 for "mean".
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    method: Method = "ours"
    weight: Annotated[float, Gt(0)] | None = None
    iterations: Annotated[int, Ge(1)] | None = None
    coils: Annotated[int, Ge(1)] | None = None
    plug: PlugOptions = field(default_factory=PlugOptions)
    mode: Mode = "mean"
    samples: Annotated[int, Ge(2)] = 4
    seed: Annotated[int, Ge(0)] = 0
    held_out: Annotated[float, Interval(ge=0, le=0.5)] | None = None

    @property
    def share_held_out(self) -> float:
        """The share that is kept out, 0 for none."""
        if self.held_out is None:
            return 0.0 if self.mode == "mean" else _HELD_OUT
        return self.held_out

    @property
    def seeds(self) -> list[int]:
        """One a draw; none where nothing is drawn."""
        count = {"mean": 0, "sample": 1, "ensemble": self.samples}[self.mode]
        return [self.seed * self.samples + number for number in range(count)]

    def __post_init__(self) -> None:
        if self.mode != "mean" and self.method != "ours":
            raise ConfigError(
                f"mode {self.mode} draws from the prior of ours, and {self.method} has none; "
                "leave --mode or --method out"
            )
        if self.method not in METHODS:
            raise ConfigError(
                f"method {self.method!r} is unknown; choose one of {', '.join(METHODS)}"
            )
