"""Is a generated sample a copy of a training scan? A threshold that real scans calibrate.

Latent diffusion models of medical images do memorise (Akbar et al. 2023, "Beware of diffusion
models for synthesizing medical images"; Dar et al. 2023, "Investigating data memorization in 3D
latent diffusion models for medical image synthesis", who take the threshold on a correlation of
embeddings from that of validation to training scans). Here a sample is a copy if it is nearer to a
training scan than held-out real patches of other subjects are, all but a share `alpha`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medddpm.errors import ConfigError
from medddpm.memorisation.nearest import Nearest

METRICS = ("correlation", "embedding")
Image = NDArray[np.float32]


@dataclass(frozen=True)
class Threshold:
    """Above `value` a similarity is that of a copy.

    Attributes:
        value: Similarity that a share of held-out patches reaches.
        share: Chance that a held-out patch lies above, were all patches independent: k / (n + 1).
        low: Lower end of the 95 % interval of the true share.
        high: Upper end.
        num: Held-out patches, n.
    """

    value: float
    share: float
    low: float
    high: float
    num: int


@dataclass(frozen=True)
class Verdict:
    """Thresholds and what lies above them.

    Attributes:
        thresholds: By metric.
        copies: One flag a sample: above either threshold.
        expected: Copies that chance alone would name.
        chance: Probability that chance alone names at least as many.
        held_out_rate: Share of held-out patches that are named when each subject is judged by the
            others; None with too few subjects.
    """

    thresholds: dict[str, Threshold]
    copies: list[bool]
    expected: float
    chance: float
    held_out_rate: float | None


def num_held_out(alpha: float) -> int:
    """Held-out patches that a threshold needs for each of two metrics to take half of alpha."""
    if not 0 < alpha < 0.5:
        raise ConfigError(f"alpha is {alpha}; it lies between 0 and 0.5")
    return math.ceil(len(METRICS) / alpha)


def calibrate(held: Sequence[float], share: float) -> Threshold:
    """The threshold that a new held-out patch exceeds with probability at most `share`.

    The k-th largest of n, k = floor(share (n + 1)), is exceeded with probability k / (n + 1) (Vovk
    et al. 2005, conformal prediction); the share that truly lies above it is Beta(k, n + 1 - k)
    distributed, whatever the distribution. Patches of one scan are alike, so that the interval is
    too narrow where there are few subjects. The share holds over the mix of held-out scans: a
    contrast that training has many alike scans of passes more often, another one less.

    Raises:
        ConfigError: Too few patches for the share.
    """
    n = len(held)
    k = math.floor(share * (n + 1) + 1e-9)
    if k < 1:
        raise ConfigError(f"{n} held-out patches are too few for a share of {share:g}")
    low, high = stats.beta.ppf([0.025, 0.975], k, n + 1 - k)
    value = float(np.sort(np.asarray(held, dtype=np.float64))[-k])
    return Threshold(value, k / (n + 1), float(low), float(high), n)


def judge(
    samples: Sequence[Nearest], held: Sequence[Nearest], subjects: Sequence[str], alpha: float
) -> Verdict:
    """Name the samples that are nearer to training than held-out patches are.

    Each of the two metrics takes half of alpha, so that together they name at most that share of
    patches like the held-out ones.

    Args:
        samples: Nearest training patch of each sample.
        held: That of each held-out patch.
        subjects: Of each held-out patch.
        alpha: Share of held-out patches that may be named by mistake.
    """
    thresholds = _thresholds(held, alpha)
    copies = [_above(sample, thresholds) for sample in samples]
    share = min(sum(threshold.share for threshold in thresholds.values()), 1.0)
    chance = float(stats.binom.sf(sum(copies) - 1, len(copies), share))
    return Verdict(
        thresholds, copies, share * len(copies), chance, _rate_by_subject(held, subjects, alpha)
    )


def _thresholds(held: Sequence[Nearest], alpha: float) -> dict[str, Threshold]:
    share = alpha / len(METRICS)
    return {name: calibrate([getattr(h, name) for h in held], share) for name in METRICS}


def _above(sample: Nearest, thresholds: dict[str, Threshold]) -> bool:
    return any(getattr(sample, name) > found.value for name, found in thresholds.items())


def _rate_by_subject(
    held: Sequence[Nearest], subjects: Sequence[str], alpha: float
) -> float | None:
    """Each subject judged by thresholds from the others, at the smallest share they allow."""
    named = 0
    for subject in sorted(set(subjects)):
        others = [h for h, s in zip(held, subjects, strict=True) if s != subject]
        if not others:
            return None
        least = len(METRICS) / (len(others) + 1)
        thresholds = _thresholds(others, max(alpha, least))
        own = [h for h, s in zip(held, subjects, strict=True) if s == subject]
        named += sum(_above(h, thresholds) for h in own)
    return named / len(held) if held else None
