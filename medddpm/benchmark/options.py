"""What one run of a benchmark compares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt

from medddpm.benchmark.degradation import NoiseModel
from medddpm.benchmark.methods import Method, parse_methods
from medddpm.errors import ConfigError
from medddpm.metrics.bootstrap import choose_reference
from medddpm.preprocess.acquisition import Acquisition
from medddpm.preprocess.simulated_scan import AcquisitionName

Source = Literal["blind", "oracle", "none"]
NoiseName = AcquisitionName | Literal["white"]
_SMALLEST_CROP = 8


@dataclass(frozen=True)
class BenchmarkOptions:
    """What one run compares.

    Attributes:
        sigmas: Noise levels as fractions of the intensity scale of each scan.
        methods: As `parse_method` takes them, with settings if wanted: "mean@fidelity=0.5"; all
            with where their own sigma comes from if wanted: "bm4d@oracle".
        noises: How scans are spoilt: "acquired" as a scanner does, "ellipse" as one that fills
            an ellipse of k-space, "white" by `noise`.
        noise: White noise; its seed is that of all.
        acquisition: What "acquired" is for every scan; each has a random one if not given.
        sigma_source: Methods are told the true noise ("oracle"), or estimate it from the noisy
            scan ("blind"), or run once with each ("both"). If not given, white noise is estimated,
            and of other noise the peers are told, BM4D the spectrum too, where ours estimate it.
        reference: Method that gains are taken over; bm4d, identity or the first if not given.
        crop: Box of so many voxels around the middle of the foreground; None is the whole scan.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    sigmas: tuple[Annotated[float, Gt(0)], ...] = (0.03, 0.05, 0.09)
    methods: tuple[str, ...] = ("identity", "shrinkage", "mean")
    noises: tuple[NoiseName, ...] = ("acquired",)
    noise: NoiseModel = field(default_factory=NoiseModel)
    acquisition: Acquisition | None = None
    sigma_source: Literal["blind", "oracle", "both"] | None = None
    reference: str | None = None
    crop: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        choose_reference(self.labels, self.reference)
        if not self.sigmas or not all(0 < s < float("inf") for s in self.sigmas):
            raise ConfigError(f"sigmas are {self.sigmas}; give positive fractions such as 0.05")
        if self.crop is not None and min(self.crop) < _SMALLEST_CROP:
            raise ConfigError(f"crop is {self.crop}; give {_SMALLEST_CROP} voxels or more an axis")
        if not self.noises or len(set(self.noises)) < len(self.noises):
            raise ConfigError("give each kind of noise once, and one at least")
        if "white" not in self.noises and self.noise != NoiseModel(seed=self.noise.seed):
            raise ConfigError(
                "law, coils, g-factor and correlation are those of white noise: ask for it too, "
                "with --noise white"
            )
        if "acquired" not in self.noises and self.acquisition is not None:
            raise ConfigError("an acquisition was given, but no noise as acquired was asked for")

    @property
    def labels(self) -> list[str]:
        """The methods as rows name them."""
        return [method.label for method in parse_methods(self.methods)]

    def sources(self, method: Method, noise: NoiseName) -> tuple[Source, ...]:
        """Where the method gets its sigma from, once for each time that it runs."""
        if not method.needs_sigma:
            return ("none",)
        if method.source is not None:
            return (method.source,)
        if self.sigma_source == "both":
            return ("oracle", "blind")
        if self.sigma_source is None:
            return ("blind" if noise == "white" or method.needs_model else "oracle",)
        return (self.sigma_source,)
