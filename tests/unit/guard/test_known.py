"""What the guard expects of a restoration, from those that are like it."""

from __future__ import annotations

import numpy as np
import pytest

from medddpm.errors import CheckpointError
from medddpm.guard import CHECKS, Finding, Known, Usual, judge, room
from medddpm.guard.known import uncalibrated


@pytest.fixture
def known() -> Known:
    """Two kinds of scan, each at many noise levels; the peak is the level, plus one in kind two."""
    levels = np.tile(np.geomspace(0.01, 0.2, 30), 2).astype(np.float32)
    kind = np.repeat([0.0, 1.0], 30).astype(np.float32)
    features = np.stack([4 * kind, np.zeros(60)], axis=1).astype(np.float32)
    return Known(features, levels, {"peak": levels + kind}, np.array([1.0, 2.0], np.float32))


def test_scans_of_the_same_kind_and_noise_are_expected(known: Known) -> None:
    for kind in (0, 1):
        for level in (0.02, 0.05, 0.15):
            values, distance = known.expect(np.array([4 * kind, 0.0], np.float32), level)
            assert values["peak"] == pytest.approx(kind + level, rel=0.05)
            assert distance < 0.2


def test_distance_is_the_root_mean_square_to_the_nearest(known: Known) -> None:
    assert known.strangeness(np.array([4.0, 0.0], np.float32)) == 0
    assert known.strangeness(np.array([5.0, 2.0], np.float32)) == pytest.approx(1.0)


def test_ranges_widen_with_the_distance(known: Known) -> None:
    usual = Usual(known, {"peak": (0.1, 0.2)}, {"noise_level": (None, 0.3)})
    near, far = (usual.of(np.array([x, 0.0], np.float32), 0.05) for x in (0.0, -3.0))
    for found, distance in ((near, 0.0), (far, 3 / np.sqrt(2))):
        low, high = found["peak"]
        assert low is not None
        assert high is not None
        assert high - low == pytest.approx(0.3 * room(distance, "peak"), rel=0.15)
        assert found["noise_level"] == (None, 0.3)
    assert usual.of(None, 0.05) == {"noise_level": (None, 0.3)}


def test_every_check_has_words_that_can_be_filled() -> None:
    for name, meaning in CHECKS.items():
        high = judge({name: Finding(3.0)}, {name: (1.0, 2.0)})
        low = judge({name: Finding(0.5)}, {name: (1.0, 2.0)})
        assert "{" not in high.messages[0]
        assert bool(low.messages) is bool(meaning.too_low)
        assert judge({name: Finding(1.5)}, {name: (1.0, 2.0)}).passed
        assert judge({name: Finding(99)}, {}).passed


def test_a_check_that_was_not_made_has_no_value() -> None:
    report = judge({"peak": Finding(0.1)}, uncalibrated(0.05))
    assert report.value("peak") == 0.1
    with pytest.raises(KeyError):
        report.value("strangeness")


def test_where_there_is_little_noise_little_is_removed() -> None:
    assert uncalibrated(0.05)["residual_ratio"][0] is not None
    assert uncalibrated(0.01)["residual_ratio"][0] is None


def test_arrays_that_do_not_fit_are_refused() -> None:
    one = np.ones(2, np.float32)
    for features, levels in ((one, one), (np.ones((0, 2), np.float32), one[:0])):
        with pytest.raises(CheckpointError, match="calibrate-guard"):
            Known(features, levels, {}, one)
