from __future__ import annotations

import pytest

from medddpm.reconstruction.interval import interval_scale


def test_the_interval_follows_what_was_held_out() -> None:
    honest = interval_scale((1 + 0.2**2) ** 0.5, 0.2)
    assert 0.8 < honest < 1.2
    narrow = interval_scale((1 + 0.4**2) ** 0.5, 0.2)
    assert 1.4 * honest < narrow < 2.2 * honest
    assert interval_scale((1 + 0.4**2) ** 0.5, 0.4) == pytest.approx(honest)


def test_it_has_bounds_and_one_where_draws_are_equal() -> None:
    assert interval_scale(0.97, 0.2) == interval_scale(1.0, 0.2) < 1
    assert interval_scale(1.5, 0.0) == 1
    assert interval_scale(50.0, 0.01) < 10
