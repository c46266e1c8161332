"""The guard is silent for good restorations and speaks for each way to spoil one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.restoration import denoise_nl_means

from medddpm.errors import CheckpointError, ConfigError, GeometryError
from medddpm.guard import Guard, GuardReport, guard_of, inspect
from medddpm.preprocess.frame import Frame
from medddpm.preprocess.noise import NoiseEstimate
from medddpm.preprocess.noise_law import WHITE, Colour, NoiseKind, NoiseLaw
from medddpm.restoration.options import RestoreOptions

Head = Callable[..., NDArray[np.float32]]
Array = NDArray[np.float32]
SHAPE = (56, 58, 54)
SIGMAS = [0.005, 0.01, 0.03, 0.05, 0.1, 0.2]


def check_residual(
    y: Array,
    x_hat: Array,
    sigma: float | Array,
    mask: NDArray[np.bool_],
    *,
    kind: NoiseKind = "rician",
    coils: int = 1,
    colour: Colour = WHITE,
    **others: Any,
) -> GuardReport:
    law, found = NoiseLaw(kind, coils, sigma, colour), NoiseEstimate(0.0, 0.0, "given", 0.0, 0, 1.0)
    affine: Any = others.pop("affine", None)
    frame = Frame(y, 1.0, found, law, None, y, mask, (1.0, 1.0, 1.0), affine)
    return inspect(frame, x_hat, **{"guard": Guard(), **others})


@pytest.fixture
def clean(head: Head) -> Array:
    """A head of scale about 1, with texture so that blur costs something everywhere."""
    image = head(SHAPE) / 1000
    x, y, z = np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")
    texture = 1 + 0.25 * np.sin(x / 2.0) * np.sin(y / 2.5) * np.sin(z / 2.2)
    return (image * texture).astype(np.float32)


def rician(image: Array, sigma: float, coils: int = 1) -> Array:
    parts = np.random.default_rng(1).normal(0, sigma, (2 * coils, *image.shape))
    parts[0] += image
    return np.sqrt(np.square(parts).sum(axis=0)).astype(np.float32)


def nlm(y: Array, sigma: float) -> Array:
    found = denoise_nl_means(
        y, patch_size=3, patch_distance=2, h=0.7 * sigma, sigma=sigma, fast_mode=True
    )
    return np.sqrt(np.maximum(found**2 - sigma**2, 0)).astype(np.float32)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_truth_passes_with_the_moments_of_noise(clean: Array, sigma: float) -> None:
    report = check_residual(rician(clean, sigma), clean, sigma, clean > 0)
    assert report.passed, report.messages
    assert report.messages == ()
    assert report.value("residual_ratio") == pytest.approx(1.0, abs=0.02)
    assert report.value("whiteness") == pytest.approx(0.0, abs=0.02)
    assert report.value("structure") == pytest.approx(0.0, abs=0.1)
    assert report.value("peak") < 0.6


@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_fair_restoration_passes(clean: Array, sigma: float) -> None:
    y = rician(clean, sigma)
    good = nlm(y, sigma)
    for x_hat in (good, 0.5 * (good + y)):
        report = check_residual(y, x_hat, sigma, clean > 0)
        assert report.passed, report.messages


@pytest.mark.parametrize("sigma", [0.005, 0.02])
def test_the_input_itself_passes_at_low_noise_only(clean: Array, sigma: float) -> None:
    y = rician(clean, sigma)
    assert check_residual(y, y, sigma, clean > 0).passed
    loud = rician(clean, 0.1)
    report = check_residual(loud, loud, 0.1, clean > 0, kind="gaussian")
    assert "less noise was removed" in report.messages[0]


@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.05, 0.1])
def test_heavy_blur_is_flagged(clean: Array, sigma: float) -> None:
    y = rician(clean, sigma)
    report = check_residual(y, ndimage.gaussian_filter(y, 2.0), sigma, clean > 0)
    assert not report.passed
    assert report.value("residual_ratio") > 1.02
    assert report.value("whiteness") > 0.1


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_pasted_structure_of_five_sigma_is_flagged(clean: Array, sigma: float, sign: int) -> None:
    y = rician(clean, sigma)
    x_hat = clean.copy()
    x_hat[25:32, 26:33, 24:31] += sign * 5 * sigma
    report = check_residual(y, x_hat, sigma, clean > 0)
    assert any("structure was added or removed" in m for m in report.messages)


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1])
def test_a_wrong_sigma_is_flagged_either_way(head: Head, sigma: float) -> None:
    clean = head(SHAPE) / 1000
    y = rician(clean, sigma)
    x_hat = nlm(y, sigma)
    high = check_residual(y, x_hat, 3 * sigma, clean > 0)
    assert any("give a smaller --sigma" in m for m in high.messages)
    low = check_residual(y, x_hat, sigma / 3, clean > 0)
    assert any("sigma is too small" in m for m in low.messages)


def test_rician_bias_is_no_anatomy(clean: Array) -> None:
    """At low signal the magnitude is lifted; a guard that thinks Gaussian would see that."""
    dim = 0.1 * clean
    y = rician(dim, 0.1)
    aware = check_residual(y, dim, 0.1, clean > 0)
    naive = check_residual(y, dim, 0.1, clean > 0, kind="gaussian")
    assert aware.passed
    assert naive.value("peak") > 2 * aware.value("peak")
    assert naive.value("whiteness") > aware.value("whiteness") + 0.01


def test_many_coils(clean: Array) -> None:
    y = rician(clean, 0.1, coils=4)
    report = check_residual(y, clean, 0.1, clean > 0, kind="ncchi", coils=4)
    assert report.passed
    assert report.value("residual_ratio") == pytest.approx(1.0, abs=0.02)
    assert not check_residual(y, clean, 0.1, clean > 0).passed


def test_a_map_of_sigma(clean: Array) -> None:
    sigma = np.full(SHAPE, 0.03)
    sigma[:28] = 0.09
    noise = np.random.default_rng(0).normal(0, 1, SHAPE) * sigma
    report = check_residual(clean + noise, clean, sigma, clean > 0, kind="gaussian")
    assert report.passed
    assert report.value("residual_ratio") == pytest.approx(1.0, abs=0.02)
    assert not check_residual(clean + noise, clean, 0.03, clean > 0, kind="gaussian").passed


def test_units_do_not_matter(clean: Array) -> None:
    y = rician(clean, 0.05)
    one = check_residual(y, nlm(y, 0.05), 0.05, clean > 0)
    many = check_residual(1000 * y, 1000 * nlm(y, 0.05), 50.0, clean > 0)
    assert many.value("residual_ratio") == pytest.approx(one.value("residual_ratio"), rel=1e-3)
    assert many.value("structure") == pytest.approx(one.value("structure"), abs=1e-2)


def test_one_slice_and_a_flat_scan(clean: Array) -> None:
    flat = np.ones((40, 40, 1), dtype=np.float32)
    report: GuardReport = check_residual(rician(flat, 0.05), flat, 0.05, flat > 0)
    assert np.isfinite(report.value("whiteness"))
    assert report.value("structure") == 0
    single: Any = np.ones((1, 1, 1), dtype=np.float32)
    assert check_residual(single, single, 0.05, single > 0).value("whiteness") == 0


def test_bad_requests(clean: Array) -> None:
    mask = clean > 0
    with pytest.raises(GeometryError, match="one grid"):
        check_residual(clean, clean[:-1], 0.1, mask)
    with pytest.raises(GeometryError, match="one grid"):
        check_residual(clean, clean, np.ones(3), mask)
    with pytest.raises(ConfigError, match="empty"):
        check_residual(clean, clean, 0.1, np.zeros_like(mask))
    for sigma in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="sigma"):
            check_residual(clean, clean, sigma, mask)


def test_without_noise_nothing_may_change(clean: Array) -> None:
    assert check_residual(clean, clean, 0.0, clean > 0).passed
    report = check_residual(clean, 1.01 * clean, 0.0, clean > 0)
    assert "sigma is 0" in report.messages[0]


def test_a_structure_is_found_where_it_is(clean: Array) -> None:
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = -50, -60, 10
    x_hat = clean.copy()
    x_hat[25:32, 26:33, 24:31] += 0.5
    report = check_residual(rician(clean, 0.05), x_hat, 0.05, clean > 0, affine=affine)
    found = {check.name: check for check in report.checks}["peak"]
    assert found.where == pytest.approx((-50 + 2 * 28, -60 + 2 * 29, 10 + 3 * 27), abs=6)
    assert not found.passed
    assert "mm" in found.words
    assert found.words in report.messages


def test_noise_that_varies_is_uneven_where_it_is_loud(clean: Array) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, SHAPE)
    even = check_residual(clean + noise, clean, 0.05, clean > 0, kind="gaussian")
    noise[28:, :29, :27] *= 2
    report = check_residual(clean + noise, clean, 0.05, clean > 0, kind="gaussian")
    assert even.value("unevenness") < 0.05
    assert report.value("unevenness") > 0.3
    where = {c.name: c for c in report.checks}["unevenness"].where
    assert where is None  # nobody gave an affine


def test_interpolated_noise_is_red(clean: Array) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, SHAPE), 0.8)
    noise *= 0.05 / noise.std()
    white = np.random.default_rng(1).normal(0, 0.05, SHAPE)
    found = [
        check_residual(clean + n, clean, 0.05, clean > 0, kind="gaussian") for n in (white, noise)
    ]
    assert found[0].value("redness") == pytest.approx(1.0, abs=0.25)
    assert found[1].value("redness") > 2
    assert found[1].value("whiteness") > 0.3


def test_fine_anatomy_in_the_residual(clean: Array) -> None:
    y = rician(clean, 0.02)
    blurred = ndimage.gaussian_filter(clean, 0.7)
    sharpened = clean + 0.5 * (clean - blurred)
    values = [
        check_residual(y, x, 0.02, clean > 0).value("anatomy") for x in (blurred, clean, sharpened)
    ]
    assert values[0] > 0.3
    assert abs(values[1]) < 0.05
    assert values[2] < -0.2


CALIBRATED = {
    "options": {"fidelity": 1.0},
    "checks": ["peak", "residual_ratio"],
    "reach": {"peak": [None, 0.1], "residual_ratio": [0.2, 0.2]},
    "ranges": {"strangeness": [None, 1.0], "disagreement": [0.01, 0.5]},
    "false_alarms": {"peak": 0.01},
}
ARRAYS = {
    "guard.mean.features": np.array([[0.0, 0.0], [4.0, 4.0]], np.float32),
    "guard.mean.levels": np.array([0.05, 0.05], np.float32),
    "guard.mean.findings": np.array([[0.2, 0.9], [0.4, 0.8]], np.float32),
    "guard.mean.spread": np.array([1.0, 2.0], np.float32),
}
MEAN = RestoreOptions(seed=3)


def guard_for(card: dict[str, Any], arrays: dict[str, Array], options: RestoreOptions) -> Guard:
    return guard_of(card, arrays, options.mode, options.other_than)


def test_ranges_of_the_weights_hold_for_their_options_alone(clean: Array) -> None:
    card = {"guard": {"mean": CALIBRATED}}
    guard = guard_for(card, ARRAYS, MEAN)
    assert guard.usual is not None
    near = np.zeros(2, np.float32)
    report = check_residual(rician(clean, 0.05), clean, 0.05, clean > 0, guard=guard, features=near)
    peak = {check.name: check for check in report.checks}["peak"]
    assert peak.high == pytest.approx(0.2 + 0.1 * 1.0, abs=0.01)
    assert peak.false_alarms == 0.01
    bare = check_residual(rician(clean, 0.05), clean, 0.05, clean > 0, guard=guard)
    assert {check.name: check for check in bare.checks}["peak"].high is None
    others = ({"mode": "sample"}, {"fidelity": 0.5}, {"guidance_scale": 1.0}, {"cfg_weight": 2.0})
    for other in others:
        assert guard_for(card, ARRAYS, replace(MEAN, **other)).usual is None
    assert guard_for({}, {}, MEAN).usual is None


def test_a_damaged_guard_is_refused() -> None:
    for change in ({"reach": "x"}, {"checks": ["a", "b", "c"]}, {"ranges": {"peak": [1]}}):
        with pytest.raises(CheckpointError, match="calibrate-guard"):
            guard_for({"guard": {"mean": CALIBRATED | change}}, ARRAYS, MEAN)
    for name in ("features", "levels", "findings", "spread"):
        for wrong in (None, np.zeros((3, 5), np.float32)):
            arrays = dict(ARRAYS)
            if wrong is None:
                del arrays[f"guard.mean.{name}"]
            else:
                arrays[f"guard.mean.{name}"] = wrong
            with pytest.raises(CheckpointError, match="damaged"):
                guard_for({"guard": {"mean": CALIBRATED}}, arrays, MEAN)


def test_strange_latents_and_samples_that_disagree(clean: Array) -> None:
    guard = guard_for({"guard": {"mean": CALIBRATED | {"reach": {}}}}, ARRAYS, MEAN)
    y = rician(clean, 0.05)

    def flags(features: list[float], spread: float) -> set[str]:
        std = np.full(SHAPE, spread * 0.05, np.float32)
        given = np.asarray(features, np.float32)
        report = check_residual(y, clean, 0.05, clean > 0, guard=guard, features=given, std=std)
        return {check.name for check in report.checks if not check.passed}

    assert flags([3.9, 4.2], 0.3) == set()
    assert flags([9.0, 4.0], 0.3) == {"strangeness"}
    assert flags([0.0, 0.0], 0.8) == {"disagreement"}
    assert flags([0.0, 0.0], 0.001) == {"disagreement"}


def test_coloured_noise_passes_where_its_colour_is_known(clean: Array) -> None:
    colour = Colour((0.7, 0.7, 0.9), (0, 1, 2), ((1.0, 0.6), (1.0, 0.6), (1.0,)))
    y = NoiseLaw(sigma=0.05, colour=colour).added_to(clean, np.random.default_rng(3))
    known = check_residual(y, clean, 0.05, clean > 0, colour=colour)
    assert known.passed, known.messages
    assert known.value("whiteness") == pytest.approx(0, abs=0.03)
    assert known.value("peak") < 1
    taken_for_white = check_residual(y, clean, 0.05, clean > 0)
    assert taken_for_white.value("whiteness") > 0.25
    assert not taken_for_white.passed
