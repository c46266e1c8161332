"""Draws of the model without a scan: what the diffusion network holds of its training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medddpm.diffusion.denoiser import as_denoiser
from medddpm.diffusion.samplers import dpm_solver_pp_2m
from medddpm.model.model import Model

_STEPS = 32


@torch.inference_mode()
def draw_prior(
    model: Model,
    size: int,
    *,
    sigma: float,
    spacing: Sequence[float],
    seed: int,
) -> Tensor:
    """One unconditional sample, decoded: (1, 1, size, size, size) on the intensity scale.

    The condition is dropped as in training (`diffusion.cond_dropout`; Ho & Salimans 2022): its
    channels are zero. Noise and spacing of an imagined scan stay, as they did there.

    Args:
        model: On the device that is to compute.
        size: Edge in voxels, a multiple of the model's.
        sigma: Noise of the imagined scan on the intensity scale.
        spacing: Its voxel size in mm.
        seed: Of the sample.
    """
    schedule = model.spec.diffusion.schedule
    edge = size // model.spec.autoencoder.factor
    device = model.codec.latent_mean.device
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((1, model.codec.latent_channels, edge, edge, edge), generator=generator).to(
        device
    )
    denoiser = as_denoiser(
        model.unet,
        model.spec.diffusion.prediction,
        cond=torch.zeros((1, model.unet.cond_channels, edge, edge, edge), device=device),
        conditions=model.conditions(
            torch.full((1, 1), sigma, device=device),
            torch.tensor([list(spacing)], dtype=torch.float32, device=device),
            torch.ones(1, 64, device=device),
        ),
    )
    z0 = dpm_solver_pp_2m(denoiser, schedule.terminal.sigma * noise, schedule.steps(_STEPS))
    return model.codec.decode(z0)
