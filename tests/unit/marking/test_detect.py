"""The law that the false-alarm rate stands on: z is bounded for any image, by the key alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from medddpm.marking import detect as search
from medddpm.marking.detect import FALSE_ALARM, PLACES, THRESHOLD, detect, false_alarm, scores
from medddpm.marking.key import Key
from medddpm.marking.pattern import PERIOD, carried, field, spectrum
from medddpm.volume import Geometry, Volume


def keys(num: int) -> list[Key]:
    rng = np.random.default_rng(0)
    return [Key(rng.bytes(32)) for _ in range(num)]


def lines(shape: tuple[int, int, int]) -> np.ndarray:
    """An image of few strong waves, as far from noise as can be."""
    x, y, z = np.indices(shape)
    return (np.sign(np.sin(x * 0.9)) + np.sin(0.7 * y + 0.4 * z)).astype(np.float32)


@pytest.mark.parametrize("kind", ["head", "lines", "noise"])
def test_z_of_an_unmarked_image_has_unit_variance_and_no_heavier_tail_than_the_bound(
    kind: str, textured: Callable[..., Volume]
) -> None:
    shape = (64, 64, 64)
    data = {
        "head": lambda: textured(shape).data,
        "lines": lambda: lines(shape),
        "noise": lambda: np.random.default_rng(0).random(shape, dtype=np.float32),
    }[kind]()
    volume = Volume(data, Geometry(shape, np.eye(4)))
    z = np.stack(
        [scores(search._Search(volume, key).folded, spectrum(key)) for key in keys(6)]
    ).astype(np.float64)
    assert z.std() == pytest.approx(1, abs=0.02)
    assert abs(z.mean()) < 0.01
    for level in (2.0, 3.0, 4.0):
        assert np.mean(z >= level) <= math.exp(-(level**2) / 2)


def test_one_place_over_many_keys_follows_the_law() -> None:
    folded = lines((PERIOD,) * 3)
    z = np.array([scores(folded, spectrum(key))[0, 0, 0] for key in keys(60)])
    assert z.mean() == pytest.approx(0, abs=0.4)
    assert z.std() == pytest.approx(1, abs=0.3)


def test_the_false_alarm_rate_is_the_bound_over_all_places() -> None:
    assert false_alarm(THRESHOLD) == pytest.approx(FALSE_ALARM)
    assert false_alarm(0) == 1
    assert false_alarm(-50) == 1
    assert false_alarm(10) == pytest.approx(PLACES * math.exp(-50))


def test_all_places_that_a_search_can_come_to_are_counted() -> None:
    turns, scales = set(search._TURNS), set(search._SCALES)
    for degrees, part in search._FINER:
        turns |= {t + sign * degrees for t in turns for sign in (-1, 1)}
        scales |= {round(s + sign * part, 6) for s in scales for sign in (-1, 1)}
    assert len(turns) <= search._TURNS_IN_REACH
    assert len(scales) <= search._SCALES_IN_REACH
    assert (len(turns) ** 3 * len(scales) + 48) * PERIOD**3 <= PLACES


def test_a_step_changes_one_parameter() -> None:
    start = search._Pose((2.0, 0.0, -4.0), 1.03)
    near = start.around(0.5, 0.005)
    assert len(near) == len({(p.degrees, p.scale) for p in near}) == 8
    for pose in near:
        before, after = (*start.degrees, start.scale), (*pose.degrees, pose.scale)
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


def test_an_even_image_has_no_score(key: Key) -> None:
    flat = Volume(np.full((40, 40, 40), 3, np.float32), Geometry((40, 40, 40), np.eye(4)))
    found = search._Search(flat, key).upright()
    assert (found.z, found.marked, found.false_alarm) == (0, False, 1)


def test_the_pattern_is_the_keys_and_belongs_to_space(key: Key, other_key: Key) -> None:
    affine = np.eye(4)
    first = field(key, affine, (64, 64, 64))
    assert first.std() == pytest.approx(1, abs=0.05)
    assert (
        abs(np.corrcoef(first.ravel(), field(other_key, affine, first.shape).ravel())[0, 1]) < 0.1
    )
    affine[:3, 3] = [64, -128, 0]  # whole periods away
    np.testing.assert_allclose(field(key, affine, (64, 64, 64)), first, atol=1e-4)
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    every_second = field(key, affine, (32, 64, 64))
    carries = carried(affine[:3, :3])
    chosen = np.where(carries, spectrum(key), 0)
    lattice = np.fft.irfftn(chosen, s=(64,) * 3, axes=(0, 1, 2))
    np.testing.assert_allclose(every_second, lattice[::2] / lattice.std(), atol=0.02)


def test_a_grid_too_coarse_for_any_wave_has_no_pattern(key: Key) -> None:
    assert not field(key, np.diag([12.0, 12.0, 12.0, 1.0]), (8, 8, 8)).any()


def test_the_pattern_stays_what_it_is() -> None:
    """A changed pattern would orphan every scan that was marked before."""
    waves = spectrum(Key(bytes(32)))
    index = tuple(np.argwhere(waves)[1000])
    assert index == (1, 46, 11)
    assert waves[index] == pytest.approx(1.307921 - 2.733715j, abs=1e-5)


@pytest.mark.slow
def test_the_whole_search_finds_nothing_in_an_unmarked_image(
    textured: Callable[..., Volume], key: Key
) -> None:
    found = detect(textured((64, 64, 64)), key)
    assert not found.marked
    assert 4 < found.z < THRESHOLD - 1
