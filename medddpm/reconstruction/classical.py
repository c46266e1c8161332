"""Zero-filled, CG-SENSE, total variation and L1-wavelet: what others offer, and we start from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medddpm.operators.fourier import root_sum_squares
from medddpm.operators.solve import conjugate_gradients
from medddpm.reconstruction.problem import Problem
from medddpm.reconstruction.wavelet import Wavelet

OnStep = Callable[[int, int], None]


def zero_filled(problem: Problem) -> Tensor:
    """A^H y, brightened by what was not measured: (B, X, Y, Z).

    The centre is often measured more densely than the rest, so this is R at most.
    """
    return problem.start


def cg_sense(
    problem: Problem, weight: float, iterations: int = 30, start: Tensor | None = None
) -> Tensor:
    """Argmin |A x - y|^2 + weight |x|^2 (Pruessmann et al., Magn Reson Med 46:638, 2001).

    Args:
        problem: What was measured.
        weight: Of Tikhonov's term; A has a norm of 1.
        iterations: Of conjugate gradients.
        start: Where to begin; 0 if not given.
    """
    normal = problem.sense.normal
    return conjugate_gradients(
        lambda x: normal(x) + weight * x,
        problem.start,
        start,
        iterations=iterations,
        tolerance=1e-4,
    )


def l1_wavelet(
    problem: Problem,
    weight: float,
    iterations: int = 40,
    start: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Argmin 1/2 |A x - y|^2 + weight |W x|_1 by FISTA (Beck and Teboulle, 2009).

    W is an orthonormal wavelet transform; its grid moves at random from step to step, as BART's
    does, which averages over the blocks that it would leave.

    Args:
        problem: What was measured.
        weight: On images of scale 1.
        iterations: Steps; their length is 1 over the norm of A^H A.
        start: Where to begin; A^H y if not given.
        on_step: Called as (steps done, steps in all).
    """
    generator = torch.Generator().manual_seed(0)
    right = problem.start
    wavelet = Wavelet(right.shape[-3:])
    threshold = weight / problem.norm

    def shrink(x: Tensor, _: Tensor | None) -> tuple[Tensor, None]:
        shift = [int(s) for s in torch.randint(0, 16, (3,), generator=generator)]
        shift = [s if n > 1 else 0 for s, n in zip(shift, x.shape[-3:], strict=True)]
        moved = torch.roll(x, shift, dims=(-3, -2, -1))
        out = wavelet.inverse(wavelet.shrunk(wavelet.forward(moved), threshold))
        return torch.roll(out, [-s for s in shift], dims=(-3, -2, -1)), None

    return _fista(problem, right, right if start is None else start, shrink, iterations, on_step)


def total_variation(
    problem: Problem,
    weight: float,
    iterations: int = 40,
    start: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Argmin 1/2 |A x - y|^2 + weight TV(x) by FISTA, isotropic over all axes longer than 1.

    The proximal step is the dual projection of Beck and Teboulle (IEEE Trans Image Process
    18:2419, 2009), which goes on from where that of the step before ended.

    Args:
        problem: What was measured.
        weight: On images of scale 1.
        iterations: Steps.
        start: Where to begin; A^H y if not given.
        on_step: Called as (steps done, steps in all).
    """
    right = problem.start
    axes = [axis for axis in (-3, -2, -1) if right.shape[axis] > 1]
    weight = weight / problem.norm

    def prox(x: Tensor, dual: Tensor | None) -> tuple[Tensor, Tensor]:
        p = torch.zeros(len(axes), *x.shape, dtype=x.dtype) if dual is None else dual
        for _ in range(3):
            slope = _gradient(x + weight * _divergence(p, axes), axes)
            p = p + slope / (4 * len(axes) * weight)
            p = p / root_sum_squares(p).clamp_min(1)
        return x + weight * _divergence(p, axes), p

    return _fista(problem, right, right if start is None else start, prox, iterations, on_step)


def _fista(
    problem: Problem,
    right: Tensor,
    start: Tensor,
    prox: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]],
    iterations: int,
    on_step: OnStep | None,
) -> Tensor:
    """Accelerated proximal gradients; `prox` is handed what it returned beside the image."""
    x, ahead, momentum = start, start, 1.0
    memory: Tensor | None = None
    for step in range(iterations):
        descended = ahead - (problem.sense.normal(ahead) - right) / problem.norm
        new, memory = prox(descended, memory)
        later = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / later * (new - x)
        x, momentum = new, later
        if on_step:
            on_step(step + 1, iterations)
    return x


def _gradient(x: Tensor, axes: list[int]) -> Tensor:
    """(A, ...) forward differences, 0 at the far end."""
    out = torch.zeros(len(axes), *x.shape, dtype=x.dtype)
    for part, axis in zip(out, axes, strict=True):
        length = x.shape[axis]
        part.narrow(axis, 0, length - 1).copy_(
            x.narrow(axis, 1, length - 1) - x.narrow(axis, 0, length - 1)
        )
    return out


def _divergence(p: Tensor, axes: list[int]) -> Tensor:
    """The negative adjoint of `_gradient`."""
    out = torch.zeros_like(p[0])
    for part, axis in zip(p, axes, strict=True):
        length = part.shape[axis]
        inner = part.narrow(axis, 0, length - 1)
        out.narrow(axis, 0, length - 1).add_(inner)
        out.narrow(axis, 1, length - 1).sub_(inner)
    return out
