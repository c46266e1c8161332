"""Consistency distillation: in one step to where many small ones of a teacher would end.

All points of a path of the teacher's ODE have the same end. A consistency function f answers with
that end from any of them, so it answers the same at two neighbours, and at the clean end it changes
nothing (Song et al. 2023, definition 1). For v-prediction f(z, t) = alpha z - sigma v is of that
kind whatever the network says, so that a student needs no other form than its teacher's (Lu & Song
2024, section 3).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medddpm.diffusion.loss import diffusion_loss
from medddpm.diffusion.prediction import Prediction, interpolate, to_eps, to_x0

Levels = tuple[Tensor, Tensor]
"""Alpha and sigma of a batch, each (B,)."""
Answer = Callable[[Tensor, Levels], Tensor]
"""The x0 that a network answers, (B, C, X, Y, Z), from z at the levels of a batch."""

_LEAST_SHARE = 1e-3
"""Of the way up: at the clean end itself there is nothing to learn."""
_LEAST_SIGMA = 0.05


def answer_of(network: Callable[[Tensor, Tensor], Tensor], prediction: Prediction) -> Answer:
    """What a network answers, its condition bound: (z, angle (B,)) -> its prediction."""

    def answer(z: Tensor, levels: Levels) -> Tensor:
        alpha, sigma = levels
        return to_x0(network(z, torch.atan2(sigma, alpha)), z, alpha, sigma, prediction)

    return answer


def neighbours(start: Tensor, intervals: int, share: Tensor) -> tuple[Tensor, Tensor]:
    """Angles (B,) of two neighbouring points of a path, the noisier first.

    Args:
        start: (B,), angle at which the path starts.
        intervals: Into how many steps of one angle the teacher's path is cut; the last may be
            shorter.
        share: (B,) in [0, 1], how far up the noisier point lies.
    """
    upper = start * share.clamp_min(_LEAST_SHARE)
    return upper, (upper - start / intervals).clamp_min(0)


def consistency_loss(
    student: Answer, teacher: Answer, z: Tensor, upper: Levels, lower: Levels
) -> Tensor:
    """The squared difference of the student's answers at neighbours: Song et al. 2023, eq. 7.

    The teacher takes one DDIM step from `upper` to `lower`; from there the student as it is,
    without a gradient, says what is wanted (no average of its weights: Song & Dhariwal 2024,
    section 3.2). Where `lower` is clean the teacher's answer is wanted. The error counts over
    sigma^2 of `upper`, which for v-prediction is the error of v.

    Args:
        student: To train.
        teacher: Where its ODE leads.
        z: (B, C, X, Y, Z), at `upper`.
        upper: The noisier levels, sigma > 0.
        lower: The cleaner ones.
    """
    # Before the pass without gradient: autocast keeps the weights as it first cast them.
    found = student(z, upper)
    with torch.no_grad():
        x0 = teacher(z, upper)
        nearer = interpolate(x0, to_eps(x0, z, *upper), *lower)
        is_clean = (lower[1] == 0).reshape(-1, *[1] * (z.ndim - 1))
        wanted = torch.where(is_clean, nearer, student(nearer, lower))
    return diffusion_loss(found, wanted, upper[1].clamp_min(_LEAST_SIGMA) ** -2)
