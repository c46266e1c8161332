"""Repeats of a scan as the truth: what they tell of each method; one row a scan and method.

What is compared is the magnitude that a restoration lets expect, m(x_hat), never x_hat itself: the
mean of a magnitude is m(x), not x, and no function of it has mean x at low SNR (docs/method.md).
Where x > 3 sigma m is all but the identity and the error is that of the signal; in the dark m is
flat, and an error counts for less than it is: the row says how much of the foreground that is. So
no voxel needs to be left out, which by its noisy brightness could not be done without
bias. The sigma inside m is that of the repeats, never the one that a method estimated.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.benchmark.measure import Answer, restore_case
from medddpm.benchmark.methods import Method
from medddpm.benchmark.options import BenchmarkOptions, Source
from medddpm.benchmark.repeat_case import RepeatCase
from medddpm.data.repeats import block_numbers
from medddpm.errors import ConfigError
from medddpm.metrics.pairs import (
    Estimate,
    Repeats,
    Vectors,
    error_ratio,
    noise_power,
    pair_sums,
    removed_share,
    squared_error,
    systematic_error,
)
from medddpm.metrics.regions import CLASSES
from medddpm.preprocess.found_noise import find_noise
from medddpm.preprocess.noise import expected_magnitude
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Volume

Image = NDArray[np.float32]

_BLOCK = 8
"""Voxels an axis of blocks whose noise is independent; a quarter of a small scan."""


@dataclass(frozen=True)
class RepeatOutcome:
    """One row of the table, and the first repeat restored, in scan units."""

    row: dict[str, Any]
    restored: Image


def measure_method(
    case: RepeatCase,
    method: Method,
    source: Source,
    options: BenchmarkOptions,
    restorer: Restorer | None,
) -> RepeatOutcome:
    """Restore each repeat with one method, and hold it against the others.

    Args:
        case: The repeats.
        method: What to run; not the round trip of the VAE, which needs a clean scan.
        source: Where its sigma comes from; "oracle" tells it that of the repeats, with the colour
            that is found in one.
        options: The law and the seed of its white noise count.
        restorer: Our model; only our own methods need it.

    Raises:
        ConfigError: Our model or another package is missing, or the scan is too small.
    """
    began = time.perf_counter()
    done = [
        _restored(repeat, case, case.level * gain, method, source, options, restorer)
        for repeat, gain in zip(case.repeats, case.gains, strict=True)
    ]
    seconds = (time.perf_counter() - began) / len(done)
    restored = [answer.image for answer in done]
    told = [
        answer.sigma / gain
        for answer, gain in zip(done, case.gains, strict=True)
        if answer.sigma is not None
    ]
    row: dict[str, Any] = {"case": case.name, "repeats": len(done)}
    row |= {"method": method.label, "sigma_source": source}
    row |= _scores(case, restored, options.noise.law.dof)
    row |= {"sigma_told": float(np.mean(told)) if told else None}
    row |= {"not_noise": case.not_noise, "low_snr": case.low_snr, "seconds": round(seconds, 3)}
    return RepeatOutcome(row, restored[0])


def _restored(
    repeat: Volume,
    case: RepeatCase,
    level: float,
    method: Method,
    source: Source,
    options: BenchmarkOptions,
    restorer: Restorer | None,
) -> Answer:
    """One repeat restored, in its units."""
    law, told = options.noise.law, source == "oracle"
    if told or (source == "blind" and not method.needs_model):
        try:
            law = find_noise(repeat.data, law=law, spacing=repeat.spacing).law
        except ConfigError:  # too small; the repeats know the level
            if not told:
                raise
    law = replace(law, sigma=level) if told else law
    known = told or not method.needs_model  # peers estimate nothing themselves
    seed = options.noise.seed
    return restore_case(repeat, case.case, law, method, restorer, told=known, seed=seed)


def _scores(case: RepeatCase, restored: Sequence[Image], dof: int) -> dict[str, float | None]:
    """Errors and noise in scan units, gains in dB, biases as fractions of the intensity scale."""
    scale = case.case.scale
    y, x_hat = (
        case.values(images) / scale for images in ([r.data for r in case.repeats], restored)
    )
    sigma = case.sigma / scale
    a, nothing = (_expected(values, sigma, dof) for values in (x_hat, y))
    size = tuple(min(_BLOCK, max(2, n // 4)) for n in case.inside.shape)
    sums = pair_sums(Repeats(y, x_hat, a, nothing, case.law), block_numbers(case.inside, size))
    error, ratio = sums.estimate(squared_error), sums.estimate(error_ratio)
    difference = (a - y).mean(axis=0)
    inside = {name: case.case.regions[name][case.inside] for name in CLASSES}
    return {
        "voxels": y.shape[1],
        **_named("rmse", _root(error, scale)),
        **_named("psnr", _decibels(error)),
        **_named("gain", _decibels(ratio)),
        **_named("removed", sums.estimate(removed_share)),
        "systematic": _root(sums.estimate(systematic_error), scale).value,
        **{f"bias_{n}": float(difference[m].mean()) for n, m in inside.items() if m.any()},
        **_named("sigma_repeats", _root(sums.estimate(noise_power), scale)),
        "scale": scale,
    }


def _expected(signal: Vectors, sigma: Vectors, dof: int) -> Vectors:
    """m(x_hat) at each voxel; a magnitude has no negative signal."""
    known = np.maximum(signal, 0) if dof else signal
    mean = expected_magnitude(known.astype(np.float32), sigma.astype(np.float32), dof)
    return mean.astype(np.float64)


def _root(square: Estimate, scale: float) -> Estimate:
    """The root of a mean square; an estimate below 0 is 0."""
    return Estimate(*(float(scale * max(x, 0.0) ** 0.5) for x in vars(square).values()))


def _decibels(power: Estimate) -> tuple[float | None, ...]:
    """Value, low and high of -10 log10; None stands for more than can be told."""
    ordered = (power.value, power.high, power.low)
    return tuple(-10 * float(np.log10(p)) if p > 0 else None for p in ordered)


def _named(name: str, found: Estimate | tuple[float | None, ...]) -> dict[str, float | None]:
    values = tuple(vars(found).values()) if isinstance(found, Estimate) else found
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
