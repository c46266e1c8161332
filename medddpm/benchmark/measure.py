"""Ours and the peers on the same noise, scored alike: one row a scan, noise and method."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medddpm.benchmark.degradation import (
    added_law,
    degrade,
    rms_sigma,
    simulated_gfactor,
)
from medddpm.benchmark.memory_meter import MemoryMeter
from medddpm.benchmark.methods import CEILING, OURS, Method, round_trip
from medddpm.benchmark.options import BenchmarkOptions, NoiseName, Source
from medddpm.benchmark.peers import peer_of
from medddpm.benchmark.row import Row
from medddpm.benchmark.series import derived_scores, frame_scores, pooled
from medddpm.benchmark.series_peers import SERIES_PEERS
from medddpm.errors import ConfigError
from medddpm.io import read_volume
from medddpm.io.gradients import Gradients, read_gradients
from medddpm.metrics.regions import Box, central_box, find_regions, region_scores
from medddpm.preprocess.acquisition import Acquisition
from medddpm.preprocess.found_noise import find_noise, white_noise
from medddpm.preprocess.intensity import Mask, foreground_mask, intensity_scale
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.preprocess.rotation import rotated
from medddpm.preprocess.simulated_scan import (
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


@dataclass(frozen=True)
class Case:
    """A clean scan with the regions that it is scored in.

    Attributes:
        volume: The scan, cropped; of several frames all, or the first.
        scale: Its intensity scale, in scan units.
        regions: Masks (X, Y, Z) by name; "foreground" is the one to quote.
        gain: (X, Y, Z) that multiplies sigma, or None.
        gradients: Of a diffusion scan of several frames.
    """

    volume: Volume
    scale: float
    regions: dict[str, Mask]
    gain: Image | None = None
    gradients: Gradients | None = None

    def frame(self, index: int) -> Case:
        """One frame, in the same regions and of the same scale."""
        return replace(self, volume=self.volume.with_data(self.volume.frame(index)))

    def scores(self, image: Image) -> tuple[dict[str, float], tuple[dict[str, float], ...]]:
        """Those of a restoration in scan units; and of each of several frames."""
        clean = self.volume.data
        if clean.ndim == 3:
            return region_scores(clean, image, self.regions, self.scale), ()
        frames = frame_scores(clean, image, self.regions, self.scale)
        inside = self.regions["foreground"]
        more = derived_scores(clean, image, inside, self.gradients)
        return pooled(frames) | more, tuple(frames)


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
            return find_noise(clean.frame(0), law=self.law, spacing=clean.spacing).sigma
        except ConfigError:  # too few voxels to tell
            return 0.0


@dataclass(frozen=True)
class Answer:
    """What a method makes of a noisy scan.

    Attributes:
        image: (X, Y, Z) restored, or (X, Y, Z, T), in scan units.
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
    """One row of the table, with the images behind it, (X, Y, Z) in scan units.

    Of several frames they are the last: in diffusion scans the first has no weighting.
    """

    row: Row
    clean: Image
    noisy: Image
    restored: Image


def prepare_case(
    volume: Volume,
    options: BenchmarkOptions,
    gmap: Volume | None = None,
    *,
    all_frames: bool = False,
) -> Case:
    """The first frame of a scan, or all, cropped, with its regions and its map of the noise.

    The regions and the scale are found on the whole of the first frame. A given map is cropped
    with it; the simulated one varies over what the crop leaves.

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
    is_series = all_frames and volume.num_frames > 1
    part = cropped(volume if is_series else volume.with_data(image), box)
    gain = simulated_gfactor(part.geometry.shape) if options.noise.gfactor else None
    if gmap is not None:
        gain = _given_gain(volume, gmap)[box]
    return Case(part, scale, regions, gain, read_gradients(volume) if is_series else None)


def cropped(volume: Volume, box: Box) -> Volume:
    """The box of a scan, where it lies in space; without header."""
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ [*(s.start for s in box), 1])[:3]
    part = np.ascontiguousarray(volume.data[box], dtype=np.float32)
    x, y, z = part.shape[:3]
    return Volume(part, Geometry((x, y, z), affine), case_id=volume.case_id)


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
    scores, frames = case.scores(answer.image)
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
        frames=frames,
        **scores,
    )
    last = case.volume.num_frames - 1
    restored = case.volume.with_data(answer.image).frame(last)
    return Outcome(row, case.volume.frame(last), spoilt.noisy.frame(last), restored)


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
    num_frames = noisy.num_frames
    if method.is_of_series and num_frames == 1:
        raise ConfigError(
            f"method {method.label} takes all frames of a scan, and {noisy.case_id} has one"
        )
    if num_frames > 1 and method.name not in (*OURS, *SERIES_PEERS):
        each = [
            restore_case(
                noisy.with_data(noisy.frame(index)),
                case.frame(index),
                law,
                method,
                restorer,
                told=told,
                seed=seed,
            )
            for index in range(num_frames)
        ]
        return replace(each[0], image=np.stack([answer.image for answer in each], axis=-1))
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
        found = find(noisy.frame(0), law=law, spacing=noisy.spacing)
        law = replace(found.law, sigma=found.sigma)
        error, edge = found.error, law.colour.edge
    y = np.ascontiguousarray(noisy.data / scale, dtype=np.float32)
    law_here = law_times(law, 1 / case.scale)
    with torch.inference_mode():
        if method.name in SERIES_PEERS:
            x_hat = SERIES_PEERS[method.name](y, law_here, case.gradients)
        else:
            x_hat = peer_of(method.name)(y, law_here)
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
