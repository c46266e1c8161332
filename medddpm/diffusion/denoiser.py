"""Denoisers: functions (z, level) -> x0, all that a sampler needs to know of a network.

The condition is bound when the denoiser is made, and wrappers such as classifier-free
guidance take and return denoisers, so each sampler is written once.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from medddpm.diffusion.prediction import Prediction, require_known, to_x0
from medddpm.diffusion.schedule import NoiseLevel


class Denoiser(Protocol):
    """The clean latent x0 (B, C, X, Y, Z) expected from `z` at `level`."""

    def __call__(self, z: Tensor, level: NoiseLevel, /) -> Tensor:
        """Predict x0 from z."""
        ...


class Network(Protocol):
    """A conditional U-Net; what its output means is its `Prediction`.

    Args of a call: z (B, C, X, Y, Z); angle (B,), atan2(sigma, alpha) of the level;
    cond (B, Cc, X, Y, Z), features of the noisy scan; conditions (B, N), numbers that are known
    of it: its noise, its voxel size.
    """

    def __call__(self, z: Tensor, angle: Tensor, cond: Tensor, conditions: Tensor, /) -> Tensor:
        """Predict eps, x0, v or the flow from z, in its shape."""
        ...


def as_denoiser(
    network: Network, prediction: Prediction, *, cond: Tensor, conditions: Tensor
) -> Denoiser:
    """A denoiser made of a network and its condition.

    Args:
        network: Called as network(z, angle, cond, conditions).
        prediction: What the network answers.
        cond: (B, Cc, X, Y, Z), features of the noisy scan; B = 1 serves every batch.
        conditions: (B, N), numbers that are known of it; B = 1 serves every batch.
    """
    require_known(prediction)

    def denoise(z: Tensor, level: NoiseLevel) -> Tensor:
        batch = z.shape[0]
        output = network(
            z,
            z.new_full((batch,), level.angle),
            cond.to(z).expand(batch, *cond.shape[1:]),
            conditions.to(z).expand(batch, conditions.shape[1]),
        )
        return to_x0(output, z, level.alpha, level.sigma, prediction)

    return denoise


def classifier_free(conditional: Denoiser, unconditional: Denoiser, weight: float) -> Denoiser:
    """The denoiser uncond + weight * (cond - uncond), Ho & Salimans 2022, eq. 6.

    Weight 1 is the conditional denoiser alone (the paper's w = weight - 1), 0 the
    unconditional one; neither evaluates the other network.
    """
    if weight == 1:
        return conditional
    if weight == 0:
        return unconditional

    def denoise(z: Tensor, level: NoiseLevel) -> Tensor:
        return torch.lerp(unconditional(z, level), conditional(z, level), weight)

    return denoise
