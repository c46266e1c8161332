"""Lesions in a clean scan, noise over it, a restoration: what is left of each of them.

A restoration runs twice on the same noise, with and without the lesions. Their difference is
exactly what it does with the lesions; noise is not in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.benchmark.degradation import added_law, degrade
from medddpm.benchmark.measure import Case, restore_case
from medddpm.benchmark.methods import Method
from medddpm.benchmark.options import BenchmarkOptions, Source
from medddpm.errors import ConfigError
from medddpm.lesions.observer import (
    Channels,
    make_channels,
    read_channels,
    recovered_contrast,
    recovered_volume,
    window_at,
)
from medddpm.lesions.planted import (
    Image,
    Places,
    clear_around,
    even_places,
    lesion_places,
    lesion_profile,
)
from medddpm.metrics.scores import psnr
from medddpm.preprocess.degrade import volume_seed
from medddpm.preprocess.intensity import Mask
from medddpm.restoration.restorer import Restorer

Kind = Literal["synthetic", "real"]
_DARKEST = 0.25
"""Of the scale: fluid and air are darker in T1w and FLAIR, and a dark lesion needs room."""
_FREE_PLACES = 300
_DIGITS = 6


@dataclass(frozen=True)
class LesionOptions:
    """What one run looks at, and what restores it.

    Attributes:
        kind: Lesions are planted ("synthetic"), or are those of the scan ("real"); for real ones
            only `run` and `draws` count.
        run: Methods, noise levels, white noise and crop, as in a benchmark.
        diameters: Of the lesions, in mm.
        contrasts: Fractions of the intensity scale; every second lesion is a dark one.
        count: At most so many lesions of each size in a scan.
        draws: Times that a scan gets new noise, and new places for planted lesions.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    kind: Kind = "synthetic"
    run: BenchmarkOptions = field(default_factory=lambda: BenchmarkOptions(noises=("white",)))
    diameters: tuple[Annotated[float, Gt(0)], ...] = (2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
    contrasts: tuple[Annotated[float, Gt(0)], ...] = (0.05, 0.1)
    count: Annotated[int, Ge(2)] = 12
    draws: Annotated[int, Ge(1)] = 1

    def __post_init__(self) -> None:
        if not self.diameters or not all(0 < d < math.inf for d in self.diameters):
            raise ConfigError(f"diameters are {self.diameters}; give millimetres such as 4")
        if not self.contrasts or not all(0 < c <= _DARKEST for c in self.contrasts):
            raise ConfigError(f"contrasts are {self.contrasts}; give fractions up to {_DARKEST}")
        if self.count < 2 or self.draws < 1:
            raise ConfigError("give 2 lesions of a size or more, and 1 draw or more")
        if self.run.noises != ("white",):
            raise ConfigError("lesions are tested in white noise alone")
        if self.run.noise.gfactor:
            raise ConfigError("lesions are tested in even noise; leave the g-factor out")


@dataclass(frozen=True)
class Trial:
    """One restoration to try.

    Attributes:
        draw: Which of the draws; new noise for each.
        sigma: Noise as a fraction of the scale.
        method: What restores.
        source: Where its sigma comes from.
    """

    draw: int
    sigma: float
    method: Method
    source: Source


@dataclass(frozen=True)
class Planted:
    """The lesions of one size in one scan.

    Attributes:
        diameter: In mm.
        channels: What observes them.
        places: (N, 3) voxels.
        signs: (N,), 1 for bright and -1 for dark.
        free: (F, 3) voxels in the same kind of tissue, of the scan without lesions.
    """

    diameter: float
    channels: Channels
    places: Places
    signs: NDArray[np.float64]
    free: Places


def plant_lesions(case: Case, options: LesionOptions, draw: int) -> list[Planted]:
    """Places for lesions of all sizes, none near another, the largest first.

    Args:
        case: The clean scan.
        options: Sizes and numbers.
        draw: Which of the draws.

    Raises:
        ConfigError: There is no room for two lesions of some size.
    """
    seed = volume_seed(options.run.noise.seed + draw, case.volume.case_id)
    rng, spacing = np.random.default_rng(seed), case.volume.spacing
    image, tissue = case.volume.data / np.float32(case.scale), tissue_mask(case)
    left, planted = tissue, []
    for diameter in sorted(options.diameters, reverse=True):
        places = lesion_places(image, left, diameter, spacing, options.count, rng)
        if len(places) < 2:
            raise ConfigError(
                f"{case.volume.case_id}: no room for two lesions of {diameter:g} mm; "
                "take a larger crop, or leave this size out"
            )
        left = clear_around(left, places, diameter, spacing)
        signs = np.where((np.arange(len(places)) + draw) % 2, -1.0, 1.0)
        free = np.argwhere(even_places(image, tissue, diameter, spacing))
        free = rng.permutation(free)[:_FREE_PLACES]
        planted.append(Planted(diameter, make_channels(diameter, spacing), places, signs, free))
    return planted


def lesion_image(shape: Sequence[int], spacing: Sequence[float], planted: list[Planted]) -> Image:
    """All lesions (X, Y, Z), of contrast 1 or -1."""
    total: Image = np.zeros(tuple(shape), np.float32)
    for group in planted:
        for place, sign in zip(group.places, group.signs, strict=True):
            profile = lesion_profile(shape, place, group.diameter, spacing)
            total += np.float32(sign) * profile
    return total


def measure_lesions(
    case: Case,
    planted: list[Planted],
    trial: Trial,
    options: LesionOptions,
    restorer: Restorer | None,
) -> dict[str, Any]:
    """Restore the scan with and without its lesions; what became of each, ready for JSON.

    "lesions" holds one row a lesion and contrast: contrast and volume as shares of the truth, and
    what the channels read with and without it. "free" is what they read at lesion-free places,
    by diameter. All intensities are fractions of the scale.

    Args:
        case: The clean scan.
        planted: Its lesions.
        trial: What is done.
        options: The run.
        restorer: Our model; only our own methods need it.

    Raises:
        ConfigError: Our model or another package is missing.
    """
    clean, scale = case.volume.data, np.float32(case.scale)
    lesions = lesion_image(clean.shape, case.volume.spacing, planted) * scale
    began = time.perf_counter()
    _, restored = restore_trial(case, clean, trial, options, restorer)
    facts = trial_facts(case, trial, restored, time.perf_counter() - began)
    without = restored - clean / scale
    rows: list[dict[str, Any]] = []
    for contrast in options.contrasts:
        image = np.maximum(clean + np.float32(contrast) * lesions, 0)
        _, restored = restore_trial(case, image, trial, options, restorer)
        for group in planted:
            rows += _rows(group, contrast, restored - clean / scale, without)
    free = {f"{g.diameter:g}": read_channels(without, g.free, g.channels) for g in planted}
    rounded = {size: np.round(values, _DIGITS).tolist() for size, values in free.items()}
    return facts | {"lesions": rows, "free": rounded}


def restore_trial(
    case: Case, image: Image, trial: Trial, options: LesionOptions, restorer: Restorer | None
) -> tuple[Image, Image]:
    """The image with the noise of a trial, and restored, as fractions of the scale.

    Args:
        case: The clean scan.
        image: It, or it with lesions, in scan units.
        trial: What is done.
        options: The run.
        restorer: Our model; only our own methods need it.

    Raises:
        ConfigError: Our model or another package is missing.
    """
    noise = replace(options.run.noise, seed=options.run.noise.seed + trial.draw)
    noisy = degrade(case.volume.with_data(image), trial.sigma * case.scale, noise)
    law, told = added_law(noise, trial.sigma * case.scale), trial.source == "oracle"
    answer = restore_case(noisy, case, law, trial.method, restorer, told=told, seed=noise.seed)
    scale = np.float32(case.scale)
    return noisy.data / scale, answer.image / scale


def trial_facts(case: Case, trial: Trial, restored: Image, seconds: float) -> dict[str, Any]:
    """What each cell says about its restoration, with its PSNR in the foreground."""
    clean = case.volume.data / np.float32(case.scale)
    return {
        "case": case.volume.case_id,
        "draw": trial.draw,
        "sigma": trial.sigma,
        "method": trial.method.label,
        "sigma_source": trial.source,
        "seconds": round(seconds, 3),
        "psnr": psnr(clean, restored, 1.0, case.regions["foreground"]),
    }


def tissue_mask(case: Case) -> Mask:
    """The foreground (X, Y, Z) without fluid and air."""
    smooth = ndimage.gaussian_filter(np.asarray(case.volume.data, np.float32), 1.0)
    tissue: Mask = case.regions["foreground"] & (smooth > _DARKEST * case.scale)
    return tissue


def _rows(group: Planted, contrast: float, present: Image, without: Image) -> list[dict[str, Any]]:
    """One row a lesion of one size."""
    channels, rows = group.channels, []
    seen, unseen = (read_channels(image, group.places, channels) for image in (present, without))
    for index, (place, sign) in enumerate(zip(group.places, group.signs, strict=True)):
        difference = window_at(present - without, place, channels) * np.float32(sign)
        rows.append(
            {
                "diameter": group.diameter,
                "contrast": contrast,
                "sign": int(sign),
                "place": place.tolist(),
                "contrast_kept": recovered_contrast(difference, channels) / contrast,
                "volume_kept": recovered_volume(difference, contrast, channels),
                "present": np.round(seen[index], _DIGITS).tolist(),
                "absent": np.round(unseen[index], _DIGITS).tolist(),
            }
        )
    return rows
