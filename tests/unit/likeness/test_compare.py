from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from torch import Tensor

from medddpm.errors import ConfigError, ShapeError
from medddpm.likeness import compare
from medddpm.likeness.compare import Likeness, RealSet, _Sets, compare_sets, real_set
from medddpm.likeness.distances import Distance, Items, frechet, kernel_distance
from medddpm.likeness.features import (
    SHELLS,
    encoder_features,
    likeness_of_pairs,
    power_rows,
)
from medddpm.model.model import load_model

Patches = NDArray[np.float32]
EDGE = 64


def moments(patch: Tensor) -> Tensor:
    """Features that a test can follow: mean, deviation, and that of the slope."""
    slope = patch.diff(dim=-1)
    return torch.stack([patch.mean(), patch.std(), slope.std()])


def patches(num: int, seed: int, *, blur: float = 1.0, level: float = 0.5) -> Patches:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num):
        grain = ndimage.gaussian_filter(rng.standard_normal((EDGE,) * 3), blur)
        found.append(level + 0.1 * rng.standard_normal() + 0.05 * grain / grain.std())
    return np.stack(found).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _few() -> Iterator[None]:
    """Few pairs: quick, and enough for what is asserted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "_PAIRS", 8)
        yield


@pytest.fixture(scope="module")
def reals() -> Patches:
    return patches(24, 1)


@pytest.fixture(scope="module")
def known(reals: Patches) -> RealSet:
    return real_set(reals, moments)


@pytest.fixture(scope="module")
def same(known: RealSet) -> Likeness:
    return compare_sets(patches(12, 2), known)


def test_draws_of_the_same_law_lie_as_near_as_halves_of_the_reals(same: Likeness) -> None:
    assert (same.size, same.num_draws, same.num_reals, same.num_scans) == (12, 12, 24, 24)
    for compared in (same.frechet, same.kernel, same.ms_ssim):
        assert compared.draws.low <= compared.reals.high
        assert compared.reals.low <= compared.draws.high
    assert same.kernel.draws.low <= 0 <= same.kernel.draws.high
    assert same.nearest.draws.value == pytest.approx(1, abs=0.6)
    for shell in same.power[2:]:
        assert shell.draws.value == pytest.approx(1, abs=0.2)


def test_blurred_draws_lie_further_and_their_spectrum_says_where(
    known: RealSet, same: Likeness
) -> None:
    found = compare_sets(patches(12, 3, blur=1.6), known)
    assert found.frechet.draws.low > found.frechet.reals.high
    assert found.kernel.draws.low > found.kernel.reals.high
    assert found.frechet.draws.value > 5 * same.frechet.draws.value
    ratio = [shell.draws.value for shell in found.power]
    assert ratio[2] > 1.5
    assert ratio[6] < 0.5
    assert found.power[6].draws.high < found.power[6].reals.low


def test_draws_that_are_all_alike_lack_variety(known: RealSet) -> None:
    one = patches(1, 5)[0]
    rng = np.random.default_rng(0)
    noise = 0.002 * rng.standard_normal((12, *one.shape))
    found = compare_sets((one + noise).astype(np.float32), known)
    assert found.ms_ssim.draws.low > 0.9
    assert found.ms_ssim.draws.low > found.ms_ssim.reals.high


def test_copies_of_the_reals_lie_at_0(reals: Patches, known: RealSet) -> None:
    found = compare_sets(reals[:12].copy(), known)
    assert found.nearest.draws.value == pytest.approx(0, abs=1e-3)
    assert found.nearest.reals.value > 0.3


def test_patches_of_one_scan_do_not_count_as_many_scans(reals: Patches) -> None:
    names = [f"scan {i % 16}" for i in range(24)]
    draws, by_scan = patches(12, 2), real_set(reals, moments, scans=names)
    found = compare_sets(draws, by_scan)
    assert found.num_scans == 16
    assert found.size <= 12
    assert compare_sets(draws, by_scan) == found


def test_what_cannot_be_compared_is_said(reals: Patches, known: RealSet) -> None:
    with pytest.raises(ConfigError, match="3 draws are too few"):
        compare_sets(reals[:3], known)
    with pytest.raises(ConfigError, match="1 scans are too few"):
        real_set(reals, moments, scans=["one"] * 24)
    with pytest.raises(ConfigError, match="24 real patches and 2 names"):
        real_set(reals, moments, scans=["a", "b"])
    with pytest.raises(ShapeError, match="one size"):
        real_set(reals[:, :, :, :60], moments)
    with pytest.raises(ShapeError, match=r"64\^3"):
        real_set(reals[:, :32, :32, :32], moments)
    with pytest.raises(ShapeError, match="draws of shape"):
        compare_sets(np.pad(reals, [(0, 0), *((0, 2),) * 3]), known)
    holes = reals.copy()
    holes[0, 0, 0, 0] = np.nan
    for refused in (lambda: real_set(holes, moments), lambda: compare_sets(holes, known)):
        with pytest.raises(ConfigError, match="NaN"):
            refused()


@pytest.mark.parametrize(
    ("distance", "shift"), [(frechet, 0.0), (frechet, 1.0), (kernel_distance, 1.0)]
)
def test_intervals_hold_their_own_number_and_the_mean_of_such_sets(
    distance: Distance, shift: float, known: RealSet
) -> None:
    """Of sets so small that a bootstrap of the Frechet distance does neither."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(40):
        x, y = rng.standard_normal((10, 4)) + shift, rng.standard_normal((20, 4))
        sets = _Sets(np.arange(10) + 20, replace(known, groups=np.arange(20)))
        both = Items(x, sets.own), Items(y, sets.groups)
        found.append(sets.compare(distance, *both).draws)
    assert all(e.low <= e.value <= e.high for e in found)
    mean = np.mean([e.value for e in found])
    assert np.mean([e.low <= mean <= e.high for e in found]) >= 0.85  # the kernel is cubic: skewed


def test_intervals_of_a_mean_are_those_of_a_t_test(known: RealSet) -> None:
    values = np.random.default_rng(0).standard_normal(10) + 5
    sets = _Sets(np.arange(10) + 24, known)
    all_draws, _ = sets.all
    found = sets.estimate(lambda w, _: float(np.average(values, weights=w)), all_draws, [], 0.0)
    low, high = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_real_patches_are_measured_once(known: RealSet, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(patches: Patches, pairs: NDArray[np.intp]) -> NDArray[np.float64]:
        asked.append(len(patches))
        return likeness_of_pairs(patches, pairs)

    monkeypatch.setattr(compare, "likeness_of_pairs", counted)
    compare_sets(patches(9, 2), known)
    assert asked == [9]


def test_power_is_that_of_white_noise_and_grows_with_the_square() -> None:
    noise = np.random.default_rng(0).standard_normal((4, EDGE, EDGE, EDGE)).astype(np.float32)
    power = power_rows(noise).mean(axis=0)
    assert power.shape == (SHELLS,)
    expected = float((np.hanning(EDGE) ** 2).sum() ** 3)
    np.testing.assert_allclose(power[1:] / expected, 1, atol=0.1)
    np.testing.assert_allclose(power_rows(3 * noise[:1]), 9 * power_rows(noise[:1]), rtol=1e-5)


def test_a_patch_is_like_itself_and_not_like_noise() -> None:
    two = patches(2, 0, level=0.4)
    same, other = likeness_of_pairs(two, np.array([[0, 0], [0, 1]]))
    assert same == pytest.approx(1, abs=1e-5)
    assert other < 0.7


def test_encoder_features_are_moments_of_latents(tiny_weights: object) -> None:
    model = load_model(tiny_weights)  # type: ignore[arg-type]
    patch = torch.from_numpy(patches(1, 0))[None]
    found = encoder_features(model)(patch)
    latent = model.codec.encode(patch)[0].detach()
    assert found.shape == (2 * len(latent),)
    np.testing.assert_allclose(found[: len(latent)], latent.mean(dim=(1, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(
        found[len(latent) :].exp(), latent.std(dim=(1, 2, 3)).clamp_min(1e-6), rtol=1e-4
    )


def test_the_least_that_is_taken_gives_numbers() -> None:
    """Eight draws beside sixteen scans: no resampled set runs empty."""
    found = compare_sets(patches(8, 5), real_set(patches(16, 6), moments))
    for name in ("frechet", "kernel", "nearest"):
        both = getattr(found, name)
        assert all(np.isfinite([e.value, e.low, e.high]).all() for e in (both.draws, both.reals))
