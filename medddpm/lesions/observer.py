"""Two observers who know what a lesion looks like and where it may be.

The first is the matched filter without prewhitening: it correlates the image with the lesion's
profile. In white noise that is the best linear observer, and d' = contrast * |profile| / sigma;
in a restored image, whose noise is correlated, it is not, and a comparison with the noisy scan
would punish smoothing that does no harm. The second is the channelized Hotelling observer
(Barrett et al. 1993, Myers and Barrett 1987): it sees the image through a few channels and weighs
them by the inverse covariance of what the channels read where there is no lesion. It prewhitens
within its channels and allows for a lesion that the restoration has blurred. With the profile
among the channels it is the matched filter in white noise, so both agree on the noisy scan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.lesions.planted import lesion_profile

Image = NDArray[np.float32]
Values = NDArray[np.float64]

OBSERVERS = ("matched", "hotelling")
_STEPS = (0.0, -2.0, 2.0)
"""Voxels that further channels are wider than the lesion."""
_FACTORS = (0.5, 1.5)
_MARGIN_VOXELS = 3.0


@dataclass(frozen=True)
class Channels:
    """Templates of one size of lesion on one grid.

    Attributes:
        profile: (A, B, C), odd: the lesion in the middle of its window.
        window: (A, B, C), boolean: the ball that is looked at, twice the lesion's radius or three
            voxels more than it.
        templates: (K, A, B, C), each of mean 0 over the window, so that the level of the tissue
            does not matter, and of norm 1; the first is the profile.
        gain: What the first template reads from a lesion of contrast 1.
    """

    profile: Image
    window: NDArray[np.bool_]
    templates: Values
    gain: float

    @property
    def reach(self) -> tuple[int, ...]:
        """Voxels from the centre to the edge of the window."""
        return tuple(n // 2 for n in self.profile.shape)


def make_channels(diameter_mm: float, spacing: Sequence[float]) -> Channels:
    """Concentric balls: the lesion, half and one and a half of it, two voxels less and more.

    Args:
        diameter_mm: Of the lesion.
        spacing: Millimetres a voxel, for each axis.
    """
    voxel = float(np.prod(spacing)) ** (1 / 3)
    radius = diameter_mm / 2 + max(diameter_mm / 2, _MARGIN_VOXELS * voxel)
    shape = tuple(2 * math.ceil(radius / step) + 1 for step in spacing)
    middle = tuple(n // 2 for n in shape)
    sizes = [diameter_mm + step * voxel for step in _STEPS]
    sizes += [diameter_mm * factor for factor in _FACTORS]
    window = lesion_profile(shape, middle, 2 * radius, spacing) > 0
    balls = [
        lesion_profile(shape, middle, max(size, voxel / 2), spacing).astype(np.float64)
        for size in sizes
    ]
    templates = np.stack([_centred(ball, window) for ball in balls])
    gain = float(np.linalg.norm(templates[0]))
    templates /= np.sqrt(np.sum(templates**2, axis=(1, 2, 3), keepdims=True))
    profile = lesion_profile(shape, middle, diameter_mm, spacing)
    return Channels(profile, window, templates, gain)


def read_channels(image: Image, places: NDArray[np.int64], channels: Channels) -> Values:
    """What each channel reads at each place: (N, K).

    Outside of the image there is 0: give the error of a scan, not the scan.

    Args:
        image: (X, Y, Z).
        places: (N, 3) voxels.
        channels: Of the lesion's size.
    """
    flat = channels.templates.reshape(len(channels.templates), -1)
    boxes = [window_at(image, place, channels).ravel() for place in places]
    return np.asarray(boxes, np.float64).reshape(len(places), -1) @ flat.T


def window_at(image: Image, place: NDArray[np.int64], channels: Channels) -> Image:
    """The window around a voxel (A, B, C); 0 where it sticks out of the image."""
    box: Image = np.zeros(channels.profile.shape, np.float32)
    here, there = [], []
    for centre, reach, length in zip(place, channels.reach, image.shape, strict=True):
        start, stop = max(int(centre) - reach, 0), min(int(centre) + reach + 1, length)
        there.append(slice(start, stop))
        here.append(slice(start - int(centre) + reach, stop - int(centre) + reach))
    box[tuple(here)] = image[tuple(there)]
    return box


def observer_scores(
    present: Values, absent: Values, signs: Values, free: Values, observer: str
) -> tuple[Values, Values]:
    """What the observer says with a lesion (N,) and without (F,), in units of its own noise.

    The mean of the lesion-free places is taken off first: the observer knows the bias of what it
    looks at. The noise is its standard deviation over these places.

    Args:
        present: (N, K): what the channels read at the lesions.
        absent: (N, K): the same without the lesions, in the same noise.
        signs: (N,), 1 for a bright lesion and -1 for a dark one.
        free: (F, K), at lesion-free places; they get both signs in turn.
        observer: One of `OBSERVERS`.
    """
    bias = free.mean(axis=0)
    weights = np.zeros(free.shape[1])
    weights[0] = 1
    if observer == "hotelling":
        signal = (signs[:, None] * (present - absent)).mean(axis=0)
        weights = np.linalg.pinv(np.cov(free, rowvar=False), rcond=1e-6, hermitian=True) @ signal
    turns = np.where(np.arange(len(free)) % 2, -1.0, 1.0)
    with_lesion, without = signs * ((present - bias) @ weights), turns * ((free - bias) @ weights)
    noise = without.std() or 1.0
    return with_lesion / noise, without / noise


def detectability(with_lesion: Values, without: Values) -> float:
    """d': the difference of the means over the pooled standard deviation.

    Args:
        with_lesion: (N,) scores, two or more.
        without: (F,) scores, two or more.
    """
    spread = math.sqrt((with_lesion.var(ddof=1) + without.var(ddof=1)) / 2)
    gap = float(with_lesion.mean() - without.mean())
    return gap / spread if spread > 0 else math.copysign(math.inf, gap) if gap else 0.0


def area_under_curve(with_lesion: Values, without: Values) -> float:
    """Chance that a place with a lesion scores higher than one without; ties count half."""
    ordered = np.sort(without)
    below = np.searchsorted(ordered, with_lesion, side="left")
    up_to = np.searchsorted(ordered, with_lesion, side="right")
    return float((below + up_to).mean() / (2 * len(ordered)))


def recovered_contrast(difference: Image, channels: Channels) -> float:
    """The contrast that a window holds: its projection on the profile.

    1 for the profile itself, in a window of any other constant level.

    Args:
        difference: (A, B, C): with the lesion less without it.
        channels: Of the lesion's size.
    """
    return float(np.sum(difference * channels.templates[0])) / channels.gain


def recovered_volume(difference: Image, contrast: float, channels: Channels) -> float | None:
    """Voxels over half of the true contrast, as a share of those of the true lesion.

    Only voxels that hang together with the middle of the window count. None where no voxel of the
    true lesion is that bright: it is much thinner than a slice.

    Args:
        difference: (A, B, C): with the lesion less without it, its sign taken off.
        contrast: Of the true lesion.
        channels: Of its size.
    """
    truth = int(np.sum(channels.profile >= 0.5))
    labels, _ = ndimage.label((difference >= 0.5 * contrast) & channels.window)
    middle = labels[tuple(n // 2 for n in labels.shape)]
    found = int(np.sum(labels == middle)) if middle else 0
    return found / truth if truth else None


def _centred(ball: Values, window: NDArray[np.bool_]) -> Values:
    centred: Values = np.where(window, ball - ball[window].mean(), 0.0)
    return centred
