"""The training loss: which levels to draw, and how much each counts."""

from __future__ import annotations

import torch
from torch import Tensor

from medddpm.diffusion.prediction import Prediction, require_known
from medddpm.diffusion.schedule import Schedule
from medddpm.errors import ConfigError


def min_snr_weight(
    alpha: Tensor,
    sigma: Tensor,
    prediction: Prediction,
    gamma: float = 5.0,
    floor: float = 1.0,
) -> Tensor:
    """The weight (B,) of the squared error of what is predicted, Hang et al. 2023.

    In terms of x0 the weight is clamp(SNR, floor, gamma); the error of another quantity is
    carried over by its own factor: v: sigma^2 / (alpha^2 + sigma^2)^2, which is 1 / (SNR + 1)
    for variance preserving levels; flow: sigma^2 / (alpha + sigma)^2; eps: min(1, gamma / SNR).

    The paper has floor 0, which gives pure noise no weight at all. There a conditional model
    learns E[z0 | y], so the default is the floor 1 of the truncated SNR weight (Salimans & Ho
    2022, section 4). An eps model cannot learn that level and takes no floor.

    Args:
        alpha: (B,), 0 allowed.
        sigma: (B,), 0 allowed.
        prediction: What the loss compares.
        gamma: Upper clamp; high-SNR levels are easy and would dominate without it.
        floor: Lower clamp.
    """
    require_known(prediction)
    if not 0 <= floor <= gamma:
        raise ConfigError(f"min-SNR weighting needs 0 <= floor <= gamma, got {floor} and {gamma}")
    snr = (alpha / sigma) ** 2
    if prediction == "eps":
        return (gamma / snr).clamp(max=1.0)
    weight = snr.clamp(floor, gamma)
    if prediction == "v":
        return weight * (sigma / (alpha**2 + sigma**2)) ** 2
    if prediction == "flow":
        return weight * (sigma / (alpha + sigma)) ** 2
    return weight


def diffusion_loss(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean squared error, a scalar; float32 or better whatever the inputs.

    Args:
        output: (B, C, X, Y, Z), the network's answer.
        target: What it should have been.
        weight: (B,).
    """
    dtype = torch.promote_types(output.dtype, torch.float32)
    error = (output.to(dtype) - target.to(dtype)).square().flatten(1).mean(1)
    return (weight.to(error) * error).mean()


def sample_levels(
    schedule: Schedule,
    batch: int,
    *,
    terminal_fraction: float = 0.0,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Float64 alpha and sigma of a batch's levels, each (B,), on the generator's device.

    A fraction of the batch trains at the terminal level, where the x0 prediction of a
    conditional model is E[z0 | y]. The rest is uniform over timesteps and stratified
    (Kingma et al. 2021, app. I.1): one draw in each of as many equal parts.

    Args:
        schedule: The levels.
        batch: B.
        terminal_fraction: Expected share at the terminal level, in [0, 1]; a share that is no
            whole number is rounded up or down at random.
        generator: The only source of randomness.
    """
    if not 0 <= terminal_fraction <= 1:
        raise ConfigError(f"terminal_fraction must lie in [0, 1], got {terminal_fraction}")
    device = generator.device
    draw = torch.rand(2, generator=generator, dtype=torch.float64, device=device)
    num_terminal = min(int(terminal_fraction * batch + draw[0]), batch)
    num_uniform = batch - num_terminal
    share = (torch.arange(num_uniform, device=device) + draw[1]) / max(num_uniform, 1)
    uniform = (share * schedule.num_timesteps).long().clamp(max=schedule.num_timesteps - 1)
    terminal = torch.full((num_terminal,), schedule.num_timesteps - 1, device=device)
    order = torch.randperm(batch, generator=generator, device=device)
    t = torch.cat([terminal, uniform])[order]
    alpha, sigma = schedule.levels_tensor()
    return alpha.to(device)[t], sigma.to(device)[t]
