"""The scores have the values that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import ConfigError, GeometryError, ShapeError
from medddpm.metrics.scores import PSNR_CAP, evaluate_arrays, evaluate_images, psnr, ssim_image
from medddpm.preprocess.intensity import foreground_mask, intensity_scale

Head = Callable[..., NDArray[np.float32]]
SHAPE = (32, 30, 28)


@pytest.fixture
def clean(head: Head) -> NDArray[np.float32]:
    return head(SHAPE)


def test_identical_scans_are_perfect(clean: NDArray[np.float32]) -> None:
    scores = evaluate_arrays(clean, clean)
    for suffix in ("", "_whole"):
        assert scores["psnr" + suffix] == PSNR_CAP
        assert scores["ssim" + suffix] == pytest.approx(1.0, abs=1e-5)
        assert scores["nrmse" + suffix] == 0
        assert scores["hfen" + suffix] == 0


def test_a_constant_offset_has_a_known_psnr(clean: NDArray[np.float32]) -> None:
    scores = evaluate_arrays(clean, clean + 50, data_range=1000.0)
    assert scores["psnr"] == pytest.approx(20 * np.log10(1000 / 50), abs=1e-3)
    assert scores["psnr_whole"] == pytest.approx(scores["psnr"], abs=1e-3)
    assert scores["data_range"] == 1000
    assert scores["hfen"] == pytest.approx(0, abs=1e-3)


def test_an_error_in_the_air_counts_for_the_whole_only(clean: NDArray[np.float32]) -> None:
    mask = clean > 0
    wrong = clean + np.where(mask, 0, 100).astype(np.float32)
    scores = evaluate_arrays(clean, wrong, mask=mask, data_range=1000.0)
    assert scores["psnr"] == PSNR_CAP
    share = float((~mask).mean())
    assert scores["psnr_whole"] == pytest.approx(20 - 10 * np.log10(share), abs=1e-3)
    assert scores["num_inside"] == mask.sum()


def test_nrmse_of_a_scaled_scan(clean: NDArray[np.float32]) -> None:
    scores = evaluate_arrays(clean, 1.1 * clean)
    assert scores["nrmse"] == pytest.approx(0.1, rel=1e-4)
    assert scores["nrmse_whole"] == pytest.approx(0.1, rel=1e-4)
    assert scores["hfen"] == pytest.approx(0.1, rel=1e-3)


def test_hfen_is_the_relative_norm_after_a_laplacian(
    clean: NDArray[np.float32], rng: np.random.Generator
) -> None:
    other = clean + rng.normal(0, 30, SHAPE).astype(np.float32)
    a, b = (ndimage.gaussian_laplace(v.astype(float), 1.5) for v in (clean, other))
    expected = np.linalg.norm(b - a) / np.linalg.norm(a)
    assert evaluate_arrays(clean, other)["hfen_whole"] == pytest.approx(expected, rel=1e-3)


def test_hfen_sees_blur_more_than_psnr_does(clean: NDArray[np.float32]) -> None:
    blurred = ndimage.gaussian_filter(clean, 2.0)
    scores = evaluate_arrays(clean, blurred)
    assert scores["hfen"] > 0.3
    assert scores["nrmse"] < 0.25
    assert scores["ssim"] < 0.95


def test_the_default_range_and_mask_are_those_of_the_reference(
    clean: NDArray[np.float32],
) -> None:
    scores = evaluate_arrays(clean, clean * 0.9)
    assert scores["data_range"] == pytest.approx(intensity_scale(clean))
    assert scores["num_inside"] == foreground_mask(clean).sum()


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-6, 1e6))
def test_units_do_not_matter(unit: float) -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 1, (14, 13, 12))
    b = a + rng.normal(0, 0.1, a.shape)
    mask = np.ones(a.shape, dtype=bool)
    one = evaluate_images(a, b, mask, 1.0).flat()
    other = evaluate_images(a * unit, b * unit, mask, unit).flat()
    for name in ("psnr", "ssim", "nrmse", "hfen"):
        assert other[name] == pytest.approx(one[name], rel=1e-3)


def test_frames_are_averaged(clean: NDArray[np.float32]) -> None:
    pair = np.stack([clean, clean], axis=-1)
    wrong = np.stack([clean + 10, clean + 100], axis=-1)
    scores = evaluate_arrays(pair, wrong, data_range=1000.0)
    assert scores["psnr"] == pytest.approx((40 + 20) / 2, abs=1e-3)


def test_ssim_of_a_flat_shift_is_its_luminance_term() -> None:
    """For two constants a and b, SSIM = (2ab + C1) / (a^2 + b^2 + C1)."""
    a, b, c1 = 0.5, 0.7, 0.01**2
    flat = np.ones((15, 15, 15), dtype=np.float32)
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    np.testing.assert_allclose(ssim_image(a * flat, b * flat, 1.0), expected, rtol=1e-4)


def test_ssim_of_thin_scans(clean: NDArray[np.float32]) -> None:
    thin = clean[:, :, 12:17]
    image = ssim_image(thin, thin, 1000.0)
    assert image.shape == thin.shape
    np.testing.assert_allclose(image, 1.0, atol=1e-4)
    assert ssim_image(thin, np.roll(thin, 3, axis=0), 1000.0).mean() < 0.9


def test_psnr_inside_a_mask() -> None:
    a, b = np.zeros((4, 4, 4)), np.zeros((4, 4, 4))
    b[0] = 0.1
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[0] = True
    assert psnr(a, b, 1.0, mask) == pytest.approx(20.0, abs=1e-4)
    assert psnr(a, b, 1.0) == pytest.approx(20.0 + 10 * np.log10(4), abs=1e-4)


def test_a_black_region_has_no_relative_error_but_its_own() -> None:
    black = np.zeros((12, 12, 12))
    mask = np.ones(black.shape, dtype=bool)
    assert evaluate_images(black, black, mask, 1.0).inside.nrmse == 0
    assert evaluate_images(black, black + 1, mask, 1.0).inside.nrmse == float("inf")


def test_scans_that_do_not_match(clean: NDArray[np.float32]) -> None:
    with pytest.raises(GeometryError, match="different grids"):
        evaluate_arrays(clean, clean[:-1])
    with pytest.raises(GeometryError, match="mask"):
        evaluate_arrays(clean, clean, mask=np.ones((3, 3, 3)))
    with pytest.raises(ShapeError, match="got shape"):
        evaluate_arrays(clean[0], clean[0])


def test_impossible_requests(clean: NDArray[np.float32]) -> None:
    with pytest.raises(ConfigError, match="mask is empty"):
        evaluate_arrays(clean, clean, mask=np.zeros(SHAPE), data_range=1.0)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="data range"):
            evaluate_arrays(clean, clean, data_range=bad)


def test_torch_is_not_needed() -> None:
    import subprocess
    import sys

    code = (
        "import sys, medddpm.metrics.scores, medddpm.preprocess.noise;"
        "sys.exit('torch' in sys.modules)"
    )
    found: Any = subprocess.run([sys.executable, "-c", code], check=False)
    assert found.returncode == 0
