"""Faults made on purpose are what they are called."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.benchmark.degradation import NoiseModel
from medddpm.calibration.faults import CONTRAST, FAULTS, lesion_in, moved
from medddpm.preprocess.noise import estimate_noise
from medddpm.volume import Geometry, Volume

SHAPE = (56, 58, 54)


@pytest.fixture
def clean(head: Callable[..., NDArray[np.float32]]) -> Volume:
    return Volume(head(SHAPE) / 1000, Geometry(SHAPE, np.diag([1.0, 1.0, 1.0, 1.0])), case_id="one")


def test_motion_smears_but_keeps_the_mean_and_repeats_itself(clean: Volume) -> None:
    one, two = moved(clean).data, moved(clean).data
    assert np.array_equal(one, two)
    change = float(np.sqrt(np.mean(np.square(one - clean.data))))
    assert 0.01 < change < 0.2
    assert one.mean() == pytest.approx(float(clean.data.mean()), rel=0.05)
    assert np.isfinite(one).all()


def test_what_was_denoised_before_holds_less_noise(clean: Volume) -> None:
    noisy = FAULTS["none"].spoil(clean, 0.1, NoiseModel()).data
    before = FAULTS["denoised before"].spoil(clean, 0.1, NoiseModel()).data
    inside = clean.data > 0.4  # in air both hold the Rician mean
    errors = [np.std((a - clean.data)[inside]) for a in (before, noisy)]
    assert errors[0] < 0.75 * errors[1]


def test_correlated_noise_has_the_same_power(clean: Volume) -> None:
    spoilt = [FAULTS[n].spoil(clean, 0.05, NoiseModel()).data for n in ("none", "correlated noise")]
    inside = clean.data > 0.3
    powers = [float(np.std((s - clean.data)[inside])) for s in spoilt]
    assert powers[1] == pytest.approx(powers[0], rel=0.1)
    assert estimate_noise(spoilt[0]).sigma == pytest.approx(0.05, rel=0.15)


def test_a_lesion_is_dark_and_of_its_size(clean: Volume) -> None:
    lesion = lesion_in(clean, 1.0, 6.0)
    assert lesion is not None
    assert lesion.min() == pytest.approx(-CONTRAST)
    assert -lesion.sum() / CONTRAST == pytest.approx(4 / 3 * np.pi * 27, rel=0.05)
    assert clean.data[lesion < 0].min() > 0.3
    assert lesion_in(clean, 1.0, 60.0) is None
