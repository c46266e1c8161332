"""Ours and the peers on the same noise, scored alike: one row a scan, noise level and method."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Gt
from numpy.typing import NDArray

from medddpm.errors import ConfigError
from medddpm.evaluation.bootstrap import choose_reference
from medddpm.evaluation.degradation import NoiseModel, degrade, simulated_gfactor
from medddpm.evaluation.memory_meter import MemoryMeter
from medddpm.evaluation.methods import CEILING, Method, parse_methods, round_trip
from medddpm.evaluation.peers import PEERS
from medddpm.evaluation.regions import central_box, find_regions, region_scores
from medddpm.preprocess.intensity import Mask, foreground_mask, intensity_scale
from medddpm.preprocess.noise import estimate_noise
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Geometry, Volume

Image = NDArray[np.float32]
Source = Literal["blind", "oracle", "none"]
_SMALLEST_CROP = 8


@dataclass(frozen=True)
class BenchmarkOptions:
    """What one run compares.

    Attributes:
        sigmas: Noise levels as fractions of the intensity scale of each scan.
        methods: Names of `methods.NAMES`, ours with settings if wanted: "mean@fidelity=0.5"; all
            with where their own sigma comes from if wanted: "bm4d@oracle".
        noise: How scans are spoilt.
        sigma_source: Methods are told the true sigma ("oracle"), or an estimate from the noisy
            scan ("blind"), or run once with each ("both").
        reference: Method that gains are taken over; bm4d, identity or the first if not given.
        crop: Box of so many voxels around the middle of the foreground; None is the whole scan.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    sigmas: tuple[Annotated[float, Gt(0)], ...] = (0.03, 0.05, 0.09)
    methods: tuple[str, ...] = ("identity", "shrinkage", "mean")
    noise: NoiseModel = field(default_factory=NoiseModel)
    sigma_source: Literal["blind", "oracle", "both"] = "blind"
    reference: str | None = None
    crop: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        choose_reference(self.labels, self.reference)
        if not self.sigmas or not all(0 < s < float("inf") for s in self.sigmas):
            raise ConfigError(f"sigmas are {self.sigmas}; give positive fractions such as 0.05")
        if self.crop is not None and min(self.crop) < _SMALLEST_CROP:
            raise ConfigError(f"crop is {self.crop}; give {_SMALLEST_CROP} voxels or more an axis")

    @property
    def labels(self) -> list[str]:
        """The methods as rows name them."""
        return [method.label for method in parse_methods(self.methods)]

    def sources(self, method: Method) -> tuple[Source, ...]:
        """Where the method gets its sigma from, once for each time that it runs."""
        if not method.needs_sigma:
            return ("none",)
        if method.source is not None:
            return (method.source,)
        if self.sigma_source == "both":
            return ("oracle", "blind")
        return (self.sigma_source,)


@dataclass(frozen=True)
class Case:
    """A clean scan with the regions that it is scored in.

    Attributes:
        volume: The scan, cropped.
        scale: Its intensity scale, in scan units.
        regions: Masks (X, Y, Z) by name; "foreground" is the one to quote.
        gain: (X, Y, Z) that multiplies sigma, or None.
    """

    volume: Volume
    scale: float
    regions: dict[str, Mask]
    gain: Image | None = None

    def level(self, sigma: float) -> float:
        """Sigma in scan units: the root mean square over the foreground, where it varies."""
        if self.gain is None:
            return sigma * self.scale
        inside = self.gain[self.regions["foreground"]]
        return sigma * self.scale * float(np.sqrt(np.mean(np.square(inside), dtype=np.float64)))


@dataclass(frozen=True)
class Outcome:
    """One row of the table, with the images behind it, in scan units."""

    row: dict[str, Any]
    noisy: Image
    restored: Image


def prepare_case(volume: Volume, options: BenchmarkOptions, gmap: Volume | None = None) -> Case:
    """The first frame of a scan, cropped, with its regions and its map of the noise.

    The regions and the scale are found on the whole scan. A given map is cropped with it; the
    simulated one varies over what the crop leaves.

    Raises:
        GeometryError: The map lies on another grid.
        ConfigError: The map holds negative or non-finite values.
    """
    image = np.asarray(volume.frame(0), np.float32)
    inside = foreground_mask(image)
    scale = intensity_scale(image, inside)
    box = central_box(inside, options.crop)
    regions = {name: mask[box] for name, mask in find_regions(image, inside).items()}
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ [*(s.start for s in box), 1])[:3]
    part = np.ascontiguousarray(image[box])
    gain = simulated_gfactor(part.shape) if options.noise.gfactor else None
    if gmap is not None:
        gain = _given_gain(volume, gmap)[box]
    return Case(
        Volume(part, Geometry(part.shape, affine), case_id=volume.case_id), scale, regions, gain
    )


def run_method(
    case: Case,
    sigma: float,
    method: Method,
    source: Source,
    options: BenchmarkOptions,
    restorer: Restorer | None,
) -> Outcome:
    """Restore the noisy case with one method, and score it.

    The seconds hold the estimate of sigma, where there is one.

    Args:
        case: The clean scan.
        sigma: Noise as a fraction of the case's intensity scale.
        method: What to run.
        source: Where its sigma comes from.
        options: The run.
        restorer: Our model; only our own methods need it.

    Raises:
        ConfigError: Our model or another package is missing.
    """
    noisy = degrade(case.volume, sigma * case.scale, options.noise, case.gain)
    known = case.level(sigma) if source == "oracle" else None
    with MemoryMeter() as memory:
        began = time.perf_counter()
        restored, told = restore_case(noisy, case, known, method, options.noise, restorer)
        seconds = time.perf_counter() - began
    row: dict[str, Any] = {"case": case.volume.case_id, "noise": options.noise.kind}
    row |= {"sigma": sigma, "method": method.label, "sigma_source": source}
    row |= {"sigma_told": None if told is None else told / case.scale}
    row |= {"seconds": round(seconds, 3), "peak_gb": round(memory.peak_gb, 3)}
    row |= region_scores(case.volume.data, restored, case.regions, case.scale)
    return Outcome(row, noisy.data, restored)


def restore_case(
    noisy: Volume,
    case: Case,
    known: float | None,
    method: Method,
    noise: NoiseModel,
    restorer: Restorer | None,
) -> tuple[Image, float | None]:
    """The restored scan, and the sigma that the method was told, both in scan units.

    Args:
        noisy: What is restored.
        case: The clean scan; only its scale counts, and for the VAE round trip its image.
        known: The true sigma in scan units; None lets the method estimate it.
        method: What to run.
        noise: Its law.
        restorer: Our model; only our own methods need it.

    Raises:
        ConfigError: Our model or another package is missing.
    """
    scale = np.float32(case.scale)
    if method.needs_model:
        if restorer is None:
            raise ConfigError(f"method {method.label} needs a model; give weights")
        if method.name == CEILING:
            return round_trip(restorer, case.volume.data / scale) * scale, None
        return _ours(noisy, known, method, noise, restorer)
    level = known
    if level is None and method.needs_sigma:
        estimate = estimate_noise(
            noisy.data, kind=noise.kind, coils=noise.coils, spacing=noisy.spacing
        )
        level = estimate.sigma
    y = np.ascontiguousarray(noisy.data / scale, dtype=np.float32)
    with torch.inference_mode():
        told = (level or 0.0) / case.scale
        x_hat = PEERS[method.name](y, told, NoiseLaw(noise.kind, noise.coils).num_coils)
    return x_hat * scale, level


def _ours(
    noisy: Volume, known: float | None, method: Method, noise: NoiseModel, restorer: Restorer
) -> tuple[Image, float]:
    given: dict[str, Any] = {"mode": method.name, "sigma": known, "seed": noise.seed}
    given |= {"noise": noise.kind, "coils": noise.coils}
    done = restorer.restore(noisy, **given, **method.changes)
    return done.volume.data, float(done.facts["frames"][0]["sigma"]["sigma"])


def _given_gain(volume: Volume, gmap: Volume) -> Image:
    volume.geometry.require_match(gmap.geometry, "the g-map")
    gain = np.asarray(gmap.frame(0), np.float32)
    if not np.isfinite(gain).all() or gain.min() < 0:
        raise ConfigError("the g-map holds negative or non-finite values")
    return gain
