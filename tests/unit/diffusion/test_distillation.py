"""Consistency distillation against a Gaussian, whose paths and their ends are in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from medddpm.diffusion.distillation import Levels, answer_of, consistency_loss, neighbours
from medddpm.diffusion.prediction import Prediction, target, to_eps
from medddpm.diffusion.schedule import Schedule

SPREAD = 0.6
KINDS = pytest.mark.parametrize("kind", ["cosine", "rectified_flow"])


def _per_sample(value: Tensor) -> Tensor:
    return value[:, None, None, None, None]


def _mean(z: Tensor, levels: Levels) -> Tensor:
    """E[x0 | z] for x0 ~ N(0, s^2)."""
    alpha, sigma = map(_per_sample, levels)
    return alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2) * z


def _end(z: Tensor, levels: Levels) -> Tensor:
    """Where the path through z ends: z over its standard deviation stays."""
    alpha, sigma = map(_per_sample, levels)
    return SPREAD / (alpha**2 * SPREAD**2 + sigma**2).sqrt() * z


def _loss(kind: str, student: Callable[[Tensor, Levels], Tensor], intervals: int) -> float:
    schedule = Schedule(kind)
    share = torch.linspace(0.05, 1, 64, dtype=torch.float64)
    start = torch.full_like(share, 1.2)
    upper, lower = map(schedule.at_angles, neighbours(start, intervals, share))
    deviation = (upper[0] ** 2 * SPREAD**2 + upper[1] ** 2).sqrt()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 1, 4, 4, 4, generator=generator, dtype=torch.float64)
    z = _per_sample(deviation) * noise
    return float(consistency_loss(student, _mean, z, upper, lower))


@KINDS
def test_the_ends_of_paths_are_consistent(kind: str) -> None:
    """What is left is the error of one DDIM step, of second order: 16 times less for half of it."""
    coarse, fine = (_loss(kind, _end, n) for n in (16, 32))
    assert fine < 0.05 * _loss(kind, _mean, 32)
    assert coarse / fine > 6


def test_a_student_learns_the_ends_of_paths() -> None:
    """v = w(angle) z with a polynomial w: after training one step ends where the path does."""
    torch.manual_seed(0)
    weights = torch.zeros(6, requires_grad=True)
    schedule, start = Schedule(), torch.full((64,), 1.3)

    def student(z: Tensor, levels: Levels) -> Tensor:
        def network(z: Tensor, angle: Tensor) -> Tensor:
            powers = torch.stack([angle**n for n in range(6)], dim=1)
            return _per_sample(powers @ weights) * z

        return answer_of(network, "v")(z, levels)

    optimizer = torch.optim.Adam([weights], lr=0.03)
    for _ in range(300):
        upper, lower = map(schedule.at_angles, neighbours(start, 16, torch.rand(64)))
        deviation = (upper[0] ** 2 * SPREAD**2 + upper[1] ** 2).sqrt()
        z = _per_sample(deviation) * torch.randn(64, 1, 2, 2, 2)
        optimizer.zero_grad()
        consistency_loss(student, _mean, z, upper, lower).backward()
        optimizer.step()
    top = schedule.at_angles(start[:1])
    one = torch.ones(1, 1, 1, 1, 1)
    found, mean, end = (float(f(one, top).detach()) for f in (student, _mean, _end))
    assert mean < 0.4 * end  # what one step of the teacher gives
    assert found == pytest.approx(end, rel=0.1)


@KINDS
def test_levels_at_angles_are_those_of_the_schedule(kind: str) -> None:
    schedule = Schedule(kind)
    level = schedule.level(300)
    alpha, sigma = schedule.at_angles(torch.tensor([level.angle], dtype=torch.float64))
    assert float(alpha) == pytest.approx(level.alpha, abs=1e-12)
    assert float(sigma) == pytest.approx(level.sigma, abs=1e-12)


def test_neighbours_are_one_interval_apart_and_end_at_the_clean_level() -> None:
    start = torch.tensor([1.0, 1.0, 0.4, 0.4])
    upper, lower = neighbours(start, 4, torch.tensor([1.0, 0.1, 0.5, 0.0]))
    assert upper.tolist() == pytest.approx([1.0, 0.1, 0.2, 0.0004])
    assert lower.tolist() == pytest.approx([0.75, 0.0, 0.1, 0.0])


def test_the_goal_has_no_gradient() -> None:
    weight = torch.tensor(0.7, requires_grad=True)
    z = torch.randn(2, 1, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    angles = torch.tensor([0.9, 0.9]), torch.tensor([0.6, 0.6])
    upper, lower = (Schedule().at_angles(a) for a in angles)
    consistency_loss(lambda x, _: weight * x, _mean, z, upper, lower).backward()
    alpha, sigma = map(_per_sample, lower)
    x0 = _mean(z, upper)
    nearer = alpha * x0 + sigma * to_eps(x0, z, *upper)
    goal = 0.7 * nearer
    expected = (2 * (0.7 * z - goal) * z).mean() / math.sin(0.9) ** 2
    assert float(weight.grad) == pytest.approx(float(expected), rel=1e-5)


def test_from_the_last_interval_the_teacher_is_the_goal() -> None:
    z = torch.ones(1, 1, 2, 2, 2)
    upper = Schedule().at_angles(torch.tensor([0.2]))
    clean = Schedule().at_angles(torch.zeros(1))
    assert float(consistency_loss(_mean, _mean, z, upper, clean)) == pytest.approx(0, abs=1e-10)
    assert float(consistency_loss(_end, _mean, z, upper, clean)) > 1e-6


@pytest.mark.parametrize("prediction", ["v", "flow", "x0"])
def test_an_answer_is_the_x0_that_is_predicted(prediction: Prediction) -> None:
    x0, eps = (torch.full((2, 1, 2, 2, 2), value) for value in (0.3, -1.2))
    levels = torch.tensor([0.8, 0.6]), torch.tensor([0.6, 0.8])
    z = _per_sample(levels[0]) * x0 + _per_sample(levels[1]) * eps
    seen = []

    def network(_: Tensor, angle: Tensor) -> Tensor:
        seen.append(angle)
        return target(x0, eps, *levels, prediction)

    torch.testing.assert_close(answer_of(network, prediction)(z, levels), x0)
    torch.testing.assert_close(seen[0], torch.tensor([0.8, 0.6]).arccos())
