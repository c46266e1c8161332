"""How good, how various and how like training scans the draws of a method are: one row each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medddpm.benchmark.memory_meter import MemoryMeter
from medddpm.comparison.features import regional_features
from medddpm.comparison.methods import Trained
from medddpm.comparison.scene import Scene
from medddpm.errors import SamplingDivergedError
from medddpm.generation.heads import placed, random_pose
from medddpm.generation.train import Known
from medddpm.likeness.compare import Compared, Likeness, RealSet, compare_sets, real_set
from medddpm.likeness.features import LEAST_EDGE

Images = NDArray[np.float32]
Row = dict[str, Any]
DISTANCES = ("frechet", "kernel", "nearest", "ms_ssim")
_POSE_SEED = 5


@dataclass(frozen=True)
class Draws:
    """What a method drew.

    Attributes:
        images: (N, X, Y, Z) on the intensity scale.
        similarity: (N,) to the nearest training scan.
        seconds: Of one draw.
    """

    images: Images
    similarity: Tensor
    seconds: float


def drawn(
    trained: Trained, scene: Scene, known: Known, seeds: Sequence[int], told: Callable[[int], None]
) -> Draws:
    """One head a seed, each timed by itself; `told` hears how many are done.

    Raises:
        SamplingDivergedError: A head holds what is no number.
    """
    images, near, seconds = [], [], []
    for number, seed in enumerate(seeds, start=1):
        began = time.perf_counter()
        with torch.inference_mode():
            image = trained.draw(seed).cpu()
            images.append(image[0, 0].numpy())
            seconds.append(time.perf_counter() - began)
        if not np.isfinite(images[-1]).all():
            raise SamplingDivergedError(f"the draw of seed {seed} holds NaN or infinity")
        near.append(known.memory.nearest(image, known.mean))
        told(number)
    return Draws(np.stack(images), torch.cat(near), float(np.median(seconds)))


def real_heads(scene: Scene) -> tuple[Images, list[str]]:
    """Each real head in one random pose, as the training sees them, and its name.

    Those that were learned and those held out: a distance needs more than a few.
    """
    rng = np.random.default_rng(_POSE_SEED)
    heads = [*scene.halves.train, *scene.halves.held]
    options = scene.prior
    images = [placed(head, options, random_pose(options, rng))[0, 0].numpy() for head in heads]
    return np.stack(images), [head.name for head in heads]


def round_trip(images: Images, scene: Scene) -> Images:
    """The images through the autoencoder: the best that draws of its latents could reach."""
    trips = [scene.decoded(scene.encoded(x[None])) for x in torch.from_numpy(images)[:, None]]
    out: Images = torch.cat(trips)[:, 0].numpy()
    return out


def known_reals(reals: Images, names: Sequence[str]) -> RealSet:
    """The real heads, as what draws are compared with."""
    return real_set(_cubes(reals), regional_features, scans=names)


def compared(draws: Images, reals: RealSet) -> Likeness:
    """The draws beside the real heads."""
    return compare_sets(_cubes(draws), reals)


def figures(likeness: Likeness, side: str) -> Row:
    """Distances with their intervals: of the "draws", or of the "reals" among themselves."""
    row: Row = {}
    for name in DISTANCES:
        both: Compared = getattr(likeness, name)
        estimate = getattr(both, side)
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    powers = [getattr(shell, side).value for shell in likeness.power]
    half = len(powers) // 2
    return row | {
        "power_coarse": float(np.exp(np.mean(np.log(np.maximum(powers[:half], 1e-12))))),
        "power_fine": float(np.exp(np.mean(np.log(np.maximum(powers[half:], 1e-12))))),
    }


def copies(similarity: Tensor, known: Known) -> Row:
    """Likeness to the nearest training scan, and the share of copies."""
    return {
        "similarity": float(similarity.median()),
        "similarity_most": float(similarity.max()),
        "copies": float((similarity > known.threshold).float().mean()),
    }


def lacks_variety(row: Row, reference: Row) -> bool:
    """Whether its draws are more alike than real heads, beyond both intervals."""
    return bool(row["ms_ssim_low"] > reference["ms_ssim_high"])


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], float]]:
    """The most memory that the block took, in GB; call what it gives after the block."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) / 1e9
        return
    with MemoryMeter() as meter:
        yield lambda: meter.peak_gb


def _cubes(images: Images) -> Images:
    """Each in the middle of a cube of air, (N, P, P, P)."""
    edge = max(LEAST_EDGE, *images.shape[1:])
    room = [((edge - n) // 2, edge - n - (edge - n) // 2) for n in images.shape[1:]]
    return np.pad(images, [(0, 0), *room])
