from __future__ import annotations

import numpy as np
import pytest

from medddpm.errors import ConfigError
from medddpm.memorisation.measure import calibrate, judge, num_held_out
from medddpm.memorisation.nearest import Nearest
from medddpm.memorisation.page import memorisation_page


def near(correlation: float, embedding: float = 0.0) -> Nearest:
    return Nearest(0, (0, 0, 0), correlation, embedding, np.zeros((4, 4, 4), np.float32))


def test_a_new_draw_passes_the_threshold_as_often_as_said() -> None:
    rng = np.random.default_rng(0)
    passed, covered = [], []
    for _ in range(2000):
        found = calibrate(rng.random(99).tolist(), 0.05)
        true_share = 1 - found.value  # of a uniform variable
        passed.append(rng.random() > found.value)
        covered.append(found.low <= true_share <= found.high)
    assert found.share == pytest.approx(0.05)
    assert np.mean(passed) == pytest.approx(0.05, abs=0.015)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_too_few_patches_or_an_odd_alpha_are_said() -> None:
    with pytest.raises(ConfigError, match="too few"):
        calibrate([0.5] * 9, 0.05)
    for alpha in (0.0, 0.7, float("nan")):
        with pytest.raises(ConfigError, match="alpha"):
            num_held_out(alpha)


def test_the_number_of_held_out_patches_suffices_for_every_alpha() -> None:
    for alpha in (0.3, 0.1, 0.05, 0.03, 0.01):
        held = [near(0.1 * i, 0.1 * i) for i in range(num_held_out(alpha))]
        verdict = judge([near(0)], held, ["a"] * len(held), alpha)
        assert verdict.expected <= alpha


def test_either_metric_names_a_copy_and_ties_do_not() -> None:
    rng = np.random.default_rng(1)
    held = [near(c, e) for c, e in rng.uniform(0, 0.8, (40, 2))]
    top = max(h.correlation for h in held)
    samples = [near(0.9), near(0.1, 0.9), near(top), near(0.1, 0.1)]
    verdict = judge(samples, held, ["a", "b"] * 20, 0.05)
    assert verdict.copies == [True, True, False, False]
    assert verdict.expected == pytest.approx(4 * 2 / 41)
    assert verdict.chance < 0.05
    assert verdict.held_out_rate is not None
    assert verdict.held_out_rate <= 0.2


def test_one_subject_cannot_judge_itself() -> None:
    held = [near(0.01 * i) for i in range(40)]
    assert judge([near(0)], held, ["a"] * 40, 0.05).held_out_rate is None


def test_the_held_out_rate_shows_a_subject_that_is_nearer_than_the_others() -> None:
    held = [near(0.9 + 0.001 * i if i % 2 else 0.01 * i, 0.0) for i in range(40)]
    verdict = judge([near(0)], held, ["b" if i % 2 else "a" for i in range(40)], 0.05)
    assert verdict.held_out_rate == pytest.approx(0.5)


def test_the_page_shows_each_patch_above_its_nearest_also_of_few_pairs() -> None:
    patch = np.random.default_rng(0).random((8, 8, 8), dtype=np.float32)
    facts = {"copies": 2, "samples": 3, "copies_expected_by_chance": 0.1}
    facts |= {"training_subjects": 4, "alpha": 0.05}
    blocks = [("samples", [("<b>a", patch, patch)] * 3), ("real", [("b", patch, patch)])]
    page = memorisation_page(blocks, facts)
    assert page.count("<img ") == 2 * 4
    assert '<span class="flag">2 of 3 samples are called copies' in page
    assert "<b>" not in page
    assert "flag" not in memorisation_page(blocks, facts | {"copies": 0}).split("<h2>")[0][-400:]
