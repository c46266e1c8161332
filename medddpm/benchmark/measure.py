"""Ours and the peers on the same noise, scored alike: one row a scan, noise and method."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Gt
from numpy.typing import NDArray

from medddpm.benchmark.degradation import (
    NoiseModel,
    added_law,
    degrade,
    rms_sigma,
    simulated_gfactor,
)
from medddpm.benchmark.memory_meter import MemoryMeter
from medddpm.benchmark.methods import CEILING, Method, parse_methods, round_trip
from medddpm.benchmark.peers import peer_of
from medddpm.benchmark.row import Row
from medddpm.errors import ConfigError
from medddpm.io import read_volume
from medddpm.metrics.bootstrap import choose_reference
from medddpm.metrics.regions import Box, central_box, find_regions, region_scores
from medddpm.preprocess.acquisition import Acquisition
from medddpm.preprocess.found_noise import find_noise, white_noise
from medddpm.preprocess.intensity import Mask, foreground_mask, intensity_scale
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.preprocess.rotation import rotated
from medddpm.preprocess.simulated_scan import (
    AcquisitionName,
    acquire_scan,
    choose_acquisition,
    law_times,
)
from medddpm.preprocess.values import require_sign
from medddpm.reference.weights import SHIPPED
from medddpm.restoration.referenced import Reference
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Geometry, Volume

Image = NDArray[np.float32]
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


@dataclass(frozen=True)
class Spoilt:
    """A case with noise.

    Attributes:
        case: What a perfect method would give, with its regions.
        noisy: What methods are given.
        law: The noise that was added, in scan units.
        noise: Its kind.
        sigma: As asked for, a fraction of the intensity scale.
        acquisition: Where it comes from; None for white noise.
    """

    case: Case
    noisy: Volume
    law: NoiseLaw
    noise: NoiseName
    sigma: float
    acquisition: Acquisition | None = None

    @cached_property
    def own(self) -> float:
        """Sigma of the noise that the clean scan has of its own, in scan units; 0 if none shows."""
        clean = self.case.volume
        try:
            return find_noise(clean.data, law=self.law, spacing=clean.spacing).sigma
        except ConfigError:  # too few voxels to tell
            return 0.0


@dataclass(frozen=True)
class Answer:
    """What a method makes of a noisy scan.

    Attributes:
        image: (X, Y, Z) restored, in scan units.
        sigma: It was told or found, in scan units; None if it takes none.
        error: Relative error of a sigma that it found.
        edge: Where it found the end of k-space along each axis, as a fraction of Nyquist.
    """

    image: Image
    sigma: float | None = None
    error: float | None = None
    edge: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Outcome:
    """One row of the table, with the images behind it, in scan units."""

    row: Row
    clean: Image
    noisy: Image
    restored: Image


def prepare_case(volume: Volume, options: BenchmarkOptions, gmap: Volume | None = None) -> Case:
    """The first frame of a scan, cropped, with its regions and its map of the noise.

    The regions and the scale are found on the whole scan. A given map is cropped with it; the
    simulated one varies over what the crop leaves.

    Raises:
        GeometryError: The map lies on another grid.
        ConfigError: The map holds negative or non-finite values.
        VolumeReadError: The scan has values that its noise would cut off.
    """
    image = np.asarray(volume.frame(0), np.float32)
    require_sign(image, options.noise.kind if options.noises == ("white",) else "rician")
    inside = foreground_mask(image)
    scale = intensity_scale(image, inside)
    box = central_box(inside, options.crop)
    regions = {name: mask[box] for name, mask in find_regions(image, inside).items()}
    part = cropped(volume, box)
    gain = simulated_gfactor(part.data.shape) if options.noise.gfactor else None
    if gmap is not None:
        gain = _given_gain(volume, gmap)[box]
    return Case(part, scale, regions, gain)


def cropped(volume: Volume, box: Box) -> Volume:
    """The box of the first frame, where it lies in space; without header."""
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ [*(s.start for s in box), 1])[:3]
    part = np.ascontiguousarray(volume.frame(0)[box], dtype=np.float32)
    return Volume(part, Geometry(part.shape, affine), case_id=volume.case_id)


def spoil(case: Case, sigma: float, noise: NoiseName, options: BenchmarkOptions) -> Spoilt:
    """The case with noise; the same for every method.

    Args:
        case: The clean scan.
        sigma: Noise as a fraction of its intensity scale.
        noise: Which kind.
        options: The run.
    """
    if noise == "white":
        level = sigma * case.scale
        noisy = degrade(case.volume, level, options.noise, case.gain)
        return Spoilt(case, noisy, added_law(options.noise, level, case.gain), noise, sigma)
    seed = options.noise.seed
    chosen = choose_acquisition(noise, sigma, case.volume, seed, given=options.acquisition)
    made = acquire_scan(case.volume, chosen, case.scale, seed)
    regions = case.regions
    if any(chosen.rotation):
        regions = {n: rotated(m, chosen.rotation, 0) > 0 for n, m in regions.items()}
    seen = replace(case, volume=made.clean, regions=regions)
    return Spoilt(seen, made.noisy, made.laws[0], noise, sigma, chosen)


def run_method(
    spoilt: Spoilt, method: Method, source: Source, restorer: Restorer | None, seed: int = 0
) -> Outcome:
    """Restore a noisy case with one method, and score it.

    The seconds hold the estimate of the noise, where there is one.

    Args:
        spoilt: The case, clean and noisy.
        method: What to run.
        source: Where its sigma comes from.
        restorer: Our model; only our own methods need it.
        seed: Of methods that draw.

    Raises:
        ConfigError: Our model or another package is missing.
    """
    case, law = spoilt.case, spoilt.law
    with MemoryMeter() as memory:
        began = time.perf_counter()
        told = source == "oracle"
        answer = restore_case(spoilt.noisy, case, law, method, restorer, told=told, seed=seed)
        seconds = time.perf_counter() - began
    row = Row(
        case=case.volume.case_id,
        noise=spoilt.noise,
        law=law.kind,
        coils=law.coils,
        acquisition=None if spoilt.acquisition is None else asdict(spoilt.acquisition),
        sigma=spoilt.sigma,
        method=method.label,
        sigma_source=source,
        sigma_true=rms_sigma(law, case.regions["foreground"]) / case.scale,
        sigma_own=spoilt.own / case.scale,
        sigma_told=None if answer.sigma is None else answer.sigma / case.scale,
        sigma_error=answer.error,
        edge_apart=_apart(answer.edge, law.colour.edge),
        seconds=round(seconds, 3),
        peak_gb=round(memory.peak_gb, 3),
        **region_scores(case.volume.data, answer.image, case.regions, case.scale),
    )
    return Outcome(row, case.volume.data, spoilt.noisy.data, answer.image)


def _apart(found: tuple[float, ...] | None, true: tuple[float, ...]) -> float | None:
    return None if found is None else max(abs(f - t) for f, t in zip(found, true, strict=True))


def restore_case(
    noisy: Volume,
    case: Case,
    law: NoiseLaw,
    method: Method,
    restorer: Restorer | None,
    *,
    told: bool,
    seed: int,
) -> Answer:
    """What a method makes of a noisy scan.

    Args:
        noisy: What is restored.
        case: The clean scan; only its scale and foreground count, and for the VAE round trip its
            image.
        law: The noise, in scan units.
        method: What to run.
        restorer: Our model; only our own methods need it.
        told: The method is told the law; otherwise its kind and coils, and peers if it is white.
        seed: Of methods that draw.

    Raises:
        ConfigError: Our model or another package is missing.
    """
    scale = np.float32(case.scale)
    if method.needs_model:
        if restorer is None:
            raise ConfigError(f"method {method.label} needs a model; give weights")
        if method.name == CEILING:
            return Answer(round_trip(restorer, case.volume.data / scale) * scale)
        return _ours(noisy, law, method, restorer, told=told, seed=seed)
    error = edge = None
    if not method.needs_sigma:
        law = replace(law, sigma=0.0)
    elif told:
        law = replace(law, sigma=rms_sigma(law, case.regions["foreground"]))
    else:
        find = white_noise if law.colour.is_white else find_noise
        found = find(noisy.data, law=law, spacing=noisy.spacing)
        law = replace(found.law, sigma=found.sigma)
        error, edge = found.error, law.colour.edge
    y = np.ascontiguousarray(noisy.data / scale, dtype=np.float32)
    with torch.inference_mode():
        x_hat = peer_of(method.name)(y, law_times(law, 1 / case.scale))
    return Answer(x_hat * scale, float(law.sigma) if method.needs_sigma else None, error, edge)


def _ours(
    noisy: Volume, law: NoiseLaw, method: Method, restorer: Restorer, *, told: bool, seed: int
) -> Answer:
    given: dict[str, Any] = {"mode": method.name, "seed": seed, "noise": law.kind}
    if law.kind == "ncchi":
        given["coils"] = law.coils
    if method.reference is not None:
        given["reference"] = _reference(method.reference, method.reference_weights or SHIPPED)
    done = restorer.restore(noisy, law=law if told else None, **given, **method.changes)
    image, frame = done.volume.data, done.facts.frames[0]
    if told or frame.colour is None:
        return Answer(image, frame.sigma.sigma)
    grid = zip(frame.colour.edge, frame.acquired_matrix, image.shape, strict=True)
    x, y, z = (edge * acquired / shape for edge, acquired, shape in grid)
    return Answer(image, frame.sigma.sigma, frame.sigma.error, (x, y, z))


@lru_cache(maxsize=4)
def _reference(path: str, weights: str) -> Reference:
    """A scan of another contrast, read once."""
    return Reference.of(read_volume(path), weights)


def _given_gain(volume: Volume, gmap: Volume) -> Image:
    volume.geometry.require_match(gmap.geometry, "the g-map")
    gain = np.asarray(gmap.frame(0), np.float32)
    if not np.isfinite(gain).all() or gain.min() < 0:
        raise ConfigError("the g-map holds negative or non-finite values")
    return gain
