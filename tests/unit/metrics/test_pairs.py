from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.data.repeats import block_numbers
from medddpm.errors import ConfigError
from medddpm.metrics.pairs import (
    Estimate,
    Means,
    PairSums,
    Repeats,
    error_ratio,
    noise_power,
    pair_sums,
    removed_share,
    squared_error,
    systematic_error,
)
from medddpm.preprocess.noise import expected_magnitude
from medddpm.preprocess.noise_law import WHITE, Colour, NoiseLaw

Array = NDArray[np.float64]
SHAPE = (34, 36, 30)
COLOURED = Colour((0.6, 0.6, 0.9), (0, 1, 2))
COLOURS = {"white": WHITE, "coloured": COLOURED}


@pytest.fixture(scope="module")
def x(head: Callable[..., NDArray[np.float32]]) -> NDArray[np.float32]:
    return head(SHAPE) / 1000


def smoothed(y: NDArray[np.float32], sigma: float, width: float = 0.6) -> NDArray[np.float32]:
    """A restoration without the bias of the noise, from E[y^2] = x^2 + 2 sigma^2."""
    power = ndimage.gaussian_filter(y.astype(np.float64) ** 2, width) - 2 * sigma**2
    return np.sqrt(np.maximum(power, 0)).astype(np.float32)


class Trial:
    """Repeats of the phantom, each restored, and the errors that nobody could know."""

    def __init__(
        self, x: NDArray[np.float32], num: int, colour: Colour, sigma: float, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        gain = 1 + np.linspace(0, 1, SHAPE[0], dtype=np.float32)[:, None, None]
        self.sigma = (sigma * gain * np.ones_like(x)).astype(np.float32)
        inside = x > 0
        law = NoiseLaw(sigma=self.sigma, colour=colour)
        scans = [law.added_to(x, rng) for _ in range(num)]
        found = [smoothed(y, float(sigma * 1.5)) for y in scans]
        self.y, self.x_hat = (np.stack([i[inside] for i in some]) for some in (scans, found))
        self.level = self.sigma[inside]
        self.truth = self.expected(x[inside][None])[0]
        self.blocks = block_numbers(inside, (8, 8, 8))
        weight = np.ones(self.y.shape[1])
        a, nothing = self.expected(self.x_hat), self.expected(self.y)
        self.repeats = Repeats(self.y.astype(float), self.x_hat.astype(float), a, nothing, weight)

    def expected(self, signal: NDArray[np.float32]) -> Array:
        return np.stack([expected_magnitude(s, self.level, 2) for s in signal]).astype(float)

    @property
    def error(self) -> float:
        return float(np.mean((self.repeats.expected - self.truth) ** 2))

    @property
    def error_of_nothing(self) -> float:
        return float(np.mean((self.repeats.nothing - self.truth) ** 2))


def right(trial: Trial) -> Estimate:
    return pair_sums(trial.repeats, trial.blocks).estimate(squared_error)


def off_by(trial: Trial, wrong: float) -> Estimate:
    """The right interval around a wrong number."""
    known = right(trial)
    reach = known.high - known.value
    return Estimate(wrong, wrong - reach, wrong + reach)


def with_its_own_repeat(trial: Trial) -> Estimate:
    own = np.mean((trial.repeats.expected - trial.repeats.y) ** 2)
    return off_by(trial, own - pair_sums(trial.repeats, trial.blocks).means().noise)


def without_the_noise_taken_off(trial: Trial) -> Estimate:
    return off_by(trial, pair_sums(trial.repeats, trial.blocks).means().error)


def with_the_noise_of_fine_differences(trial: Trial) -> Estimate:
    """What a blind estimate sees of coloured noise."""
    means = pair_sums(trial.repeats, trial.blocks).means()
    return off_by(trial, means.error - 0.5 * means.noise)


def with_the_signal_itself(trial: Trial) -> Estimate:
    return pair_sums(
        replace(trial.repeats, expected=trial.repeats.restored), trial.blocks
    ).estimate(squared_error)


def holds(estimate: Callable[[Trial], Estimate], trials: list[Trial]) -> bool:
    """Nearly all intervals hold the expected error, and the mean over the trials is not off.

    The intervals of two repeats are far too wide for one anatomy, hence the second.
    """
    found = [estimate(trial) for trial in trials]
    errors = np.array([trial.error for trial in trials])
    inside = [f.low <= errors.mean() <= f.high for f in found]
    gap = np.array([f.value for f in found]) - errors
    return bool(np.mean(inside) > 0.84 and abs(gap.mean()) < 4 * gap.std(ddof=1) / len(gap) ** 0.5)


@pytest.fixture(scope="module")
def trials_of(x: NDArray[np.float32]) -> Callable[..., list[Trial]]:
    """Twenty trials: trials_of(num, colour, sigma); the last two are kept."""

    @lru_cache(maxsize=2)
    def make(num: int, colour: str, sigma: float) -> list[Trial]:
        return [Trial(x, num, COLOURS[colour], sigma, 100 * num + seed) for seed in range(20)]

    return make


EACH_TIME = {(2, "white", 0.15), (2, "coloured", 0.03), (3, "white", 0.15), (6, "coloured", 0.15)}
"""Of all settings, those that are tried each time; 3, coloured, 0.05 stands below."""


@pytest.mark.parametrize(
    ("num", "colour", "sigma"),
    [
        pytest.param(*setting, marks=() if setting in EACH_TIME else pytest.mark.slow)
        for setting in product((2, 3, 6), COLOURS, (0.03, 0.15))
    ],
)
def test_the_error_is_found_without_a_truth(
    trials_of: Callable[..., list[Trial]], num: int, colour: str, sigma: float
) -> None:
    """Uneven noise, from SNR over 10 down to below 2 in the dark and loud parts."""
    assert holds(right, trials_of(num, colour, sigma))


@pytest.mark.parametrize(
    "wrong",
    [with_its_own_repeat, without_the_noise_taken_off, with_the_noise_of_fine_differences],
)
def test_a_biased_estimate_would_be_seen(
    trials_of: Callable[..., list[Trial]], wrong: Callable[[Trial], Estimate]
) -> None:
    trials = trials_of(3, "coloured", 0.05)
    assert holds(right, trials)
    assert not holds(wrong, trials)


def test_at_low_snr_the_signal_is_not_what_a_magnitude_shows(
    trials_of: Callable[..., list[Trial]],
) -> None:
    assert not holds(with_the_signal_itself, trials_of(3, "white", 0.15))


@pytest.mark.parametrize("num", [3, 6])
def test_intervals_of_three_repeats_are_no_wider_than_they_say(
    trials_of: Callable[..., list[Trial]], num: int
) -> None:
    """Twice too wide at most, with one factor for the quantiles: see the module."""
    found = [right(trial) for trial in trials_of(num, "white", 0.05)]
    spread = np.std([f.value for f in found], ddof=1)
    assert 1.6 < np.mean([f.high - f.value for f in found]) / spread < 4.5


def test_what_a_whole_repeat_shares_widens_the_interval(x: NDArray[np.float32]) -> None:
    """Each repeat is restored with a strength of its own, as by its own estimate of sigma."""

    def uneven(seed: int) -> tuple[Estimate, Estimate]:
        trial = Trial(x, 8, WHITE, 0.05, seed)
        strength = np.exp(0.2 * np.random.default_rng(seed).standard_normal((8, 1)))
        mixed = trial.y + strength * (trial.x_hat - trial.y)
        other = replace(trial.repeats, expected=trial.expected(mixed.astype(np.float32)))
        return right(trial), pair_sums(other, trial.blocks).estimate(squared_error)

    pairs = [uneven(seed) for seed in range(30)]
    even, shared = (
        np.mean([e.high - e.value for e in column]) for column in zip(*pairs, strict=True)
    )
    assert shared > 3 * even
    values = [e.value for _, e in pairs]
    truth = np.mean(values)
    assert np.mean([e.low <= truth <= e.high for _, e in pairs]) >= 0.8


def test_the_parts_add_up(x: NDArray[np.float32]) -> None:
    trial = Trial(x, 4, COLOURED, 0.05, 1)
    sums = pair_sums(trial.repeats, trial.blocks)
    means = sums.means()
    y, a = trial.repeats.y, trial.repeats.expected
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    assert means.noise == pytest.approx(np.mean(np.var(y, axis=0, ddof=1)))
    assert means.error == pytest.approx(np.mean([(a[i] - y[j]) ** 2 for i, j in pairs]))
    removed = y - a
    both = np.mean([removed[i] * removed[j] for i, j in pairs])
    assert squared_error(means) == pytest.approx(means.spread + both)
    assert systematic_error(means) == pytest.approx(both)
    assert noise_power(means) == pytest.approx(means.noise)
    assert removed_share(means) == pytest.approx(
        1 - np.mean(np.var(trial.x_hat, axis=0, ddof=1)) / means.noise, rel=1e-5
    )
    known = trial.error / trial.error_of_nothing
    ratio = sums.estimate(error_ratio)
    assert ratio.low < known < ratio.high


def test_doing_nothing_gains_nothing_and_is_sure_of_it(x: NDArray[np.float32]) -> None:
    for num in (2, 3):
        trial = Trial(x, num, WHITE, 0.05, 2)
        idle = replace(trial.repeats, restored=trial.repeats.y, expected=trial.repeats.nothing)
        sums = pair_sums(idle, trial.blocks)
        assert vars(sums.estimate(error_ratio)) == pytest.approx(
            {"value": 1, "low": 1, "high": 1}, abs=1e-6
        )
        assert sums.estimate(removed_share).value == pytest.approx(0, abs=1e-9)


def test_a_far_offset_does_not_hurt() -> None:
    """Differences are taken before squares, so a scan of 1e6 loses no digits."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal((3, 4000))
    blocks = np.arange(4000) // 400
    near, far = (pair_sums(Repeats(z, z / 2, z / 2, z, np.ones(4000)), blocks).sums for z in (y, y))
    np.testing.assert_array_equal(near, far)
    moved = Repeats(y + 1e6, y / 2 + 1e6, y / 2 + 1e6, y + 1e6, np.ones(4000))
    sums = pair_sums(moved, blocks)
    assert sums.means().error == pytest.approx(
        PairSums(near, np.full(10, 400.0)).means().error, rel=1e-6
    )


@pytest.mark.parametrize(("num", "blocks"), [(1, 4), (2, 1)])
def test_too_little_is_said(num: int, blocks: int) -> None:
    y = np.zeros((num, 40))
    with pytest.raises(ConfigError, match="too small"):
        pair_sums(Repeats(y, y, y, y, np.ones(40)), np.arange(40) % blocks)


def test_a_mean_of_nothing_is_a_mean() -> None:
    assert squared_error(Means(3.0, 2.0, 1.0, 0.5, 0.4, 1.0)) == 2.0
