"""One frame on its acquired grid, and back."""

from __future__ import annotations

import numpy as np
import pytest

from medddpm.preprocess.found_noise import known_noise
from medddpm.preprocess.frame import acquired_shape, make_frame
from medddpm.preprocess.noise_law import Colour, NoiseLaw
from medddpm.preprocess.resample import resampled

SHAPE = (60, 50, 40)
COLOUR = Colour((0.6, 0.7, 1.0), (0, 1))


@pytest.fixture
def image(head) -> np.ndarray:
    return NoiseLaw(sigma=40.0, colour=COLOUR).added_to(head(SHAPE), np.random.default_rng(0))


def test_the_grid_holds_the_support_and_no_more() -> None:
    assert acquired_shape(SHAPE, COLOUR) == (38, 38, 40)
    assert acquired_shape(SHAPE, Colour()) == SHAPE
    assert acquired_shape(SHAPE, Colour((0.95, 0.95, 0.95))) == SHAPE
    assert acquired_shape((10, 10, 4), Colour((0.5, 0.5, 0.5))) == (10, 10, 4)


def test_what_is_outside_of_the_support_stays(image) -> None:
    found = known_noise(image, NoiseLaw(sigma=40.0, colour=COLOUR))
    frame = make_frame(image, image > 200, found, (1.0, 1.2, 3.0), np.diag([1.0, 1.2, 3.0, 1]))
    assert frame.y.shape == (38, 38, 40)
    np.testing.assert_allclose(frame.spacing, (60 / 38, 1.2 * 50 / 38, 3.0))
    np.testing.assert_allclose(frame.onto_scan(frame.y) * frame.scale, image, atol=0.01)
    changed = frame.onto_scan(np.zeros_like(frame.y)) * frame.scale
    np.testing.assert_allclose(resampled(changed, frame.y.shape), 0, atol=0.01)
    np.testing.assert_allclose(frame.from_scan(image), frame.y, atol=1e-5)
    assert frame.law.sigma == pytest.approx(40 / frame.scale)
    assert max(frame.law.colour.edge[:2]) > 0.9


def test_a_map_of_the_noise_comes_along(image) -> None:
    sigma = np.linspace(20, 60, SHAPE[0], dtype=np.float32)[:, None, None] * np.ones(
        SHAPE, np.float32
    )
    found = known_noise(image, NoiseLaw(sigma=sigma, colour=COLOUR))
    frame = make_frame(image, image > 200, found, (1.0, 1.0, 1.0), np.eye(4))
    assert frame.noise_map is not None
    assert np.shape(frame.law.sigma) == frame.y.shape
    assert np.mean(frame.law.sigma) * frame.scale == pytest.approx(40, rel=0.02)
    assert frame.enlarged(np.asarray(frame.law.sigma)).shape == SHAPE
