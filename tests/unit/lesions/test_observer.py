"""Observers against their closed forms in white noise, and the identity as a restoration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.signal import fftconvolve

from medddpm.lesions.observer import (
    OBSERVERS,
    area_under_curve,
    detectability,
    make_channels,
    observer_scores,
    read_channels,
    recovered_contrast,
    recovered_volume,
    window_at,
)
from medddpm.lesions.planted import lesion_profile

SPACING = (0.9, 1.0, 1.2)
SHAPE = (120, 120, 110)


def _grid(step: int) -> np.ndarray:
    axes = [np.arange(step, n - step, step) for n in SHAPE]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _scores(
    smooth: float, observer: str, rng: np.random.Generator, diameter: float = 4.0
) -> tuple[float, float]:
    """d' and area of lesions of contrast 0.1 in noise of 0.15, smoothed or not."""
    places = _grid(14)
    lesions = np.zeros(SHAPE)
    lesions[tuple(places[::2].T)] = 1
    ball = lesion_profile((15, 15, 15), (7, 7, 7), diameter, SPACING)
    lesions = fftconvolve(lesions, ball, mode="same")
    noise = rng.normal(0, 0.15, SHAPE)
    without, present = (
        ndimage.gaussian_filter(image, smooth) if smooth else image
        for image in (noise, noise + 0.1 * lesions)
    )
    channels = make_channels(diameter, SPACING)
    seen, unseen = (read_channels(i, places[::2], channels) for i in (present, without))
    free = read_channels(without, places[1::2], channels)
    scores = observer_scores(seen, unseen, np.ones(len(seen)), free, observer)
    return detectability(*scores), area_under_curve(*scores)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_white_noise_has_the_closed_form(observer: str, rng: np.random.Generator) -> None:
    dprime, area = _scores(0, observer, rng)
    channels = make_channels(4.0, SPACING)
    inside = channels.profile[channels.window]
    truth = 0.1 * np.linalg.norm(inside - inside.mean()) / 0.15
    # 196 lesions: a standard deviation is known to 5 %, the area to 0.02
    assert dprime == pytest.approx(truth, rel=0.15)
    assert area == pytest.approx(0.5 * (1 + math.erf(truth / 2)), abs=0.04)


def test_smoothing_costs_the_prewhitening_observer_less() -> None:
    """A smoothed image holds the same information; only one of the two can see it."""
    matched, _ = _scores(1.0, "matched", np.random.default_rng(4), 2.0)
    hotelling, _ = _scores(1.0, "hotelling", np.random.default_rng(4), 2.0)
    noisy, _ = _scores(0, "hotelling", np.random.default_rng(4), 2.0)
    assert matched < 0.8 * noisy
    assert hotelling == pytest.approx(noisy, rel=0.1)


def test_the_level_of_the_tissue_is_not_seen() -> None:
    channels = make_channels(6.0, SPACING)
    flat = np.full(SHAPE, 0.7, np.float32)
    seen = read_channels(flat, np.array([[40, 40, 40]]), channels)
    np.testing.assert_allclose(seen, 0, atol=1e-5)


@pytest.mark.parametrize("diameter", [2.0, 4.0, 10.0])
def test_what_is_untouched_is_kept(diameter: float) -> None:
    """The identity: with the lesion less without it is the lesion, whatever lies below."""
    channels = make_channels(diameter, SPACING)
    lesion = 0.1 * channels.profile + 0.3
    assert recovered_contrast(lesion, channels) == pytest.approx(1 * 0.1)
    assert recovered_volume(0.1 * channels.profile, 0.1, channels) == 1
    assert recovered_volume(0.04 * channels.profile, 0.1, channels) == 0


def test_volume_counts_only_what_hangs_together() -> None:
    channels = make_channels(4.0, SPACING)
    far = channels.profile.copy()
    far[1, channels.reach[1], channels.reach[2]] = 1
    assert recovered_volume(0.1 * far, 0.1, channels) == 1
    wide = lesion_profile(channels.profile.shape, channels.reach, 5.0, SPACING)
    assert recovered_volume(0.1 * wide, 0.1, channels) == pytest.approx(1.95, rel=0.15)


def test_no_volume_where_no_voxel_is_half_full() -> None:
    channels = make_channels(1.0, (1.0, 1.0, 5.0))
    assert recovered_volume(channels.profile, 1.0, channels) is None


def test_window_is_cut_at_the_border() -> None:
    channels = make_channels(4.0, SPACING)
    image = np.ones((20, 20, 20), np.float32)
    box = window_at(image, np.array([0, 10, 10]), channels)
    reach = channels.reach[0]
    assert (box[:reach] == 0).all()
    assert (box[reach:] == 1).all()


def test_area_of_equal_scores_is_a_half() -> None:
    assert area_under_curve(np.ones(3), np.ones(4)) == 0.5
    assert area_under_curve(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert detectability(np.ones(3), np.ones(4)) == 0
    assert detectability(np.ones(3), np.zeros(4)) == math.inf
