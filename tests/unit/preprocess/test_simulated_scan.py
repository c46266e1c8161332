"""A scan as acquired: which acquisition, its frames, and how it is said."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medddpm.errors import ConfigError
from medddpm.preprocess.acquisition import Acquisition, draw_acquisition
from medddpm.preprocess.acquisition_words import in_words
from medddpm.preprocess.intensity import intensity_scale
from medddpm.preprocess.simulated_scan import (
    ELLIPSE,
    acquire_scan,
    choose_acquisition,
    parse_acquisition,
)
from medddpm.volume import Volume

UNEVEN = Acquisition(0.05, acceleration=2, coils=8, normalised=0.3, matrix=(0.7, 0.8, 1.0))


def test_a_scan_keeps_its_acquisition_at_every_level(phantom: Volume) -> None:
    first, louder = (choose_acquisition("acquired", s, phantom, 3) for s in (0.03, 0.09))
    assert replace(first, sigma=0.09) == louder
    assert choose_acquisition("acquired", 0.03, phantom, 3) == first
    assert choose_acquisition("acquired", 0.03, phantom, 4) != first
    assert choose_acquisition("acquired", 0.03, replace(phantom, case_id="b"), 3) != first
    own = Acquisition(0.0, blur=0.4)
    assert choose_acquisition("acquired", 0.03, phantom, 3, given=own) == replace(own, sigma=0.03)
    assert choose_acquisition("ellipse", 0.03, phantom, 3) == replace(ELLIPSE, sigma=0.03)


def test_parts_can_be_fixed_and_the_rest_stays_as_drawn(phantom: Volume) -> None:
    drawn = choose_acquisition("acquired", 0.03, phantom, 3)
    fixed = choose_acquisition(
        *("acquired", 0.03, phantom, 3), changes={"matrix": "0.6,0.6,0.9", "elliptical": "0,1,2"}
    )
    assert fixed == replace(drawn, matrix=(0.6, 0.6, 0.9), elliptical=(0, 1, 2))


@given(seed=st.integers(0, 2**32), thick=st.sampled_from([1.0, 3.0]))
@settings(max_examples=60, deadline=None)
def test_every_acquisition_is_read_from_its_record_and_said(seed: int, thick: float) -> None:
    drawn = draw_acquisition(0.05, (1.0, 1.0, thick), np.random.default_rng(seed))
    record = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(drawn).items()}
    assert parse_acquisition(record, "it") == drawn
    words = in_words(drawn)
    assert ("accelerated" in words) == (drawn.acceleration > 1)
    assert ("normalised" in words) == (drawn.normalised > 0)
    assert ("bits" in words) == (drawn.bits > 0)
    assert ("background" in words) == drawn.masked
    assert ("partial Fourier" in words) == (drawn.partial_fourier < 1)
    assert ("rotated" in words) == any(drawn.rotation)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"matrx": [1, 1, 1]}, "matrx is no field; known are sigma, kind"),
        ({"matrix": "0.6,0.6"}, "matrix"),
        ({"matrix": [0.6, 0.6, 1.2]}, r"it lies in \(0, 1\]"),
        ({"elliptical": [1]}, "none, two or all three"),
        ({"elliptical": [0, 3]}, "elliptical"),
        ({"filter": "box"}, "filter"),
        ({"filter_strength": 1.5}, "filter_strength"),
        ({"partial_fourier": 0.4}, "partial Fourier is 0.4"),
        ({"partial_axis": 3}, "partial_axis"),
        ({"acceleration": 9}, "acceleration is 9"),
        ({"coils": 0}, "coils"),
        ({"blur": float("nan")}, "blur"),
        ({"rotation": "1,2,inf"}, "rotation"),
        ({"normalised": -1}, "normalised"),
        ({"interpolation": 2}, "interpolation"),
        ({"bits": 40}, "bits"),
        ({"sigma": -0.1}, "sigma is -0.1"),
    ],
)
def test_fields_out_of_range_are_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=f"^mine.json: .*{says}"):
        parse_acquisition(fields, "mine.json")


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
def test_a_level_that_is_none(phantom: Volume, sigma: float) -> None:
    with pytest.raises(ConfigError, match="finite fraction"):
        choose_acquisition("acquired", sigma, phantom, 0)


def test_too_few_coils_are_said(phantom: Volume) -> None:
    with pytest.raises(ConfigError, match="1 coils cannot be accelerated 2 times"):
        acquire_scan(phantom, Acquisition(0.05, acceleration=2), 900.0, 0)


def test_the_noise_is_that_of_the_law_in_scan_units(phantom: Volume) -> None:
    scale = intensity_scale(phantom.data)
    made = acquire_scan(phantom, replace(UNEVEN, kind="gaussian"), scale, 1)
    [law] = made.laws
    error = (made.noisy.data - made.clean.data) / law.sigma
    assert error.std() == pytest.approx(1, rel=0.03)
    assert law.sigma.min() > 0.05 * scale * 0.5
    assert made.noisy.geometry == phantom.geometry
    np.testing.assert_array_equal(
        made.noisy.data, acquire_scan(phantom, made.acquisition, scale, 1).noisy.data
    )


def test_frames_share_the_scanner_and_not_the_noise(phantom: Volume) -> None:
    pair = phantom.with_data(np.stack([phantom.data, phantom.data], axis=-1))
    scale = intensity_scale(phantom.data)
    uneven = replace(UNEVEN, kind="gaussian")  # no bias, which frames would share
    made = acquire_scan(pair, uneven, scale, 1)
    np.testing.assert_array_equal(made.laws[0].sigma, made.laws[1].sigma)
    np.testing.assert_array_equal(made.clean.frame(0), made.clean.frame(1))
    errors = [(made.noisy.frame(i) - made.clean.frame(i)).ravel() for i in range(2)]
    assert abs(np.corrcoef(errors)[0, 1]) < 0.02
    alone = acquire_scan(phantom, uneven, scale, 1)
    np.testing.assert_array_equal(made.noisy.frame(0), alone.noisy.data)


def test_words_of_an_acquisition() -> None:
    assert in_words(Acquisition(0.1)) == "Rician"
    said = in_words(
        Acquisition(
            0.1, "ncchi", 8, (0.6, 0.7, 1.0), (0, 1), "hann", 0.5, (0, 1), partial_fourier=0.75
        )
    )
    assert said == (
        "sum of squares of 8 coils; 60 x 70 x 100 % of the matrix acquired, an ellipse over axes "
        "1 and 2; hann filter of strength 0.50 along axes 1 and 2; partial Fourier 0.75 along the "
        "second axis, filled with zeros"
    )
    assert "sharpened by 0.30 voxels" in in_words(Acquisition(0.1, blur=-0.3))
