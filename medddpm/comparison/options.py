"""What a comparison can be told; the defaults live here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medddpm.errors import ConfigError
from medddpm.likeness.compare import LEAST_DRAWS

ALL_METHODS = (
    "vae",
    "vae-pca",
    "gan",
    "diffusion-linear",
    "diffusion-cosine",
    "diffusion-sigmoid",
    "flow",
)


@dataclass(frozen=True)
class CompareOptions:
    """How methods are compared.

    Attributes:
        methods: By name, or `package.module:function`.
        prior: A prior that is drawn from as it is, beside them: a shipped one by its contrast, or
            a file; "" for none.
        minutes: Of training for each method, all calls on one folder together.
        steps: Training steps of each method, in place of minutes.
        count: Heads that each method draws.
        draw_steps: Network evaluations a draw, of methods that take several.
        seed: Of the draws.

    Raises:
        ConfigError: A number is too small, or no method is named, or one twice.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    methods: tuple[str, ...] = ALL_METHODS
    prior: str = ""
    minutes: float = 10.0
    steps: int | None = None
    count: int = 16
    draw_steps: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise ConfigError(f"minutes is {self.minutes:g}; give the training some time")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; at least one step is trained")
        if self.count < LEAST_DRAWS:
            raise ConfigError(
                f"count is {self.count}; at least {LEAST_DRAWS} draws can be compared"
            )
        if self.draw_steps < 1:
            raise ConfigError(f"draw steps are {self.draw_steps}; a draw takes at least one")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ConfigError(
                f"methods {list(self.methods)}: name each method once, and one or more"
            )
