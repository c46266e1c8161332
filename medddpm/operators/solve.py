"""Conjugate gradients, and the largest eigenvalue of a normal operator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Apply = Callable[[Tensor], Tensor]


def inner(x: Tensor, y: Tensor) -> Tensor:
    """<x, y> of each item of a batch, (B,), linear in y."""
    return (x.conj() * y).flatten(1).sum(dim=1)


def conjugate_gradients(
    apply: Apply,
    right: Tensor,
    start: Tensor | None = None,
    *,
    iterations: int = 20,
    tolerance: float = 1e-6,
) -> Tensor:
    """X with `apply`(x) = `right`, each item of the batch on its own (Hestenes and Stiefel 1952).

    Args:
        apply: A Hermitian operator, not negative.
        right: (B, ...).
        start: Where to begin; 0 if not given.
        iterations: At most so many.
        tolerance: Stop when all residuals are below this share of the right side.
    """
    x = torch.zeros_like(right) if start is None else start.clone()
    residual = right.clone() if start is None else right - apply(x)
    direction = residual.clone()
    old = inner(residual, residual).real
    goal = tolerance**2 * inner(right, right).real
    for _ in range(iterations):
        if bool((old <= goal).all()):
            break
        image = apply(direction)
        curve = inner(direction, image).real
        step = _over(old, curve, x)
        x += step * direction
        residual -= step * image
        new = inner(residual, residual).real
        direction = residual + _over(new, old, x) * direction
        old = new
    return x


def _over(above: Tensor, below: Tensor, like: Tensor) -> Tensor:
    """The quotient of each item, 0 where there is nothing to divide by, shaped to broadcast."""
    quotient = torch.where(below > 0, above / below.clamp_min(1e-38), torch.zeros_like(above))
    return quotient.reshape(-1, *[1] * (like.ndim - 1))


def largest_eigenvalue(apply: Apply, like: Tensor, iterations: int = 20) -> float:
    """That of a Hermitian operator, by power iteration from a fixed start.

    Args:
        apply: The operator.
        like: A tensor of the shape that it takes.
        iterations: Steps.
    """
    generator = torch.Generator(device="cpu").manual_seed(0)
    x = torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
    value = torch.zeros(())
    for _ in range(iterations):
        x = x / torch.linalg.vector_norm(x)
        x = apply(x)
        value = torch.linalg.vector_norm(x)
    return float(value)
