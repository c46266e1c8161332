"""What the U-Net and the fidelity decoder are trained to lessen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medddpm.diffusion.loss import diffusion_loss, min_snr_weight, sample_levels
from medddpm.diffusion.prediction import interpolate, target, to_x0
from medddpm.model.model import Model
from medddpm.model.shrinkage import Evidence
from medddpm.training.batches import (
    NoisyBatch,
    Share,
)
from medddpm.training.options import (
    DiffusionOptions,
    JointOptions,
)

if TYPE_CHECKING:
    pass


def latent_loss(
    model: Model,
    batch: NoisyBatch,
    evidence: Evidence,
    options: DiffusionOptions | JointOptions,
    share: Share,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Min-SNR weighted error of the quantity that the U-Net predicts.

    Returns:
        The loss; x0 as predicted, (B, C, x, y, z); the angle of its noise level, (B,); and
        which samples were shown the scan, (B,).
    """
    device, diffusion = batch.x.device, model.spec.diffusion
    generator = share.step_generator()
    levels = sample_levels(
        diffusion.schedule,
        share.total,
        terminal_fraction=options.terminal_fraction,
        generator=generator,
    )
    alpha, sigma = (share.of(level).float().to(device) for level in levels)
    keep = share.of(torch.rand(share.total, generator=generator) >= options.cond_dropout)
    with torch.no_grad():
        z0 = model.codec.encode(batch.x)
        cond, _ = model.condition(evidence)
    cond = cond * keep[:, None, None, None, None].to(cond)
    eps = share.normal(z0.shape[1:], device)
    z = interpolate(z0, eps, alpha, sigma)
    angle = torch.atan2(sigma, alpha)
    conditions = model.conditions(batch.sigma, batch.spacing, batch.colour)
    output = model.unet(z, angle, cond, conditions)
    goal = target(z0, eps, alpha, sigma, diffusion.prediction)
    weight = min_snr_weight(alpha, sigma, diffusion.prediction, options.snr_gamma)
    predicted = to_x0(output, z, alpha, sigma, diffusion.prediction)
    return diffusion_loss(output, goal, weight), predicted, angle, keep


def image_loss(
    model: Model, batch: NoisyBatch, evidence: Evidence, z0: Tensor, angle: Tensor
) -> Tensor:
    """Squared error in units of sigma; the body and loud noise count more."""
    with torch.no_grad():
        prior = model.codec.decode(z0)
    predicted = model.fidelity.error(evidence, z0, prior, angle)
    wanted = (evidence.base - batch.x) / batch.sigma
    # Air is easy, and most of many patches; at low sigma most of the error is noise that
    # nobody can predict. Neither may rule.
    inside = torch.where(batch.x > 0.02, 1.0, 0.1)
    level = (batch.log_sigma.exp() / 0.05).clamp(0.1, 4)[:, None, None, None, None]
    loss: Tensor = (level * inside * (predicted - wanted).square()).mean()
    return loss


def observed(model: Model, batch: NoisyBatch) -> Evidence:
    """The batch as a restoration would see it, its sigma known."""
    return model.observe(batch.y, batch.sigma, batch.spacing, batch.coils, batch.colour)
