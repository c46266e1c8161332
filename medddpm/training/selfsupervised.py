"""Training the fidelity decoder where no scan is clean.

The target is a noisy magnitude y' whose mean is not the signal x but the Rician mean m(x), so the
estimate x_hat is compared after the same curve: in units of sigma,

    E |m(x_hat) - y'|^2 = |m(x_hat) - m(x)|^2 + v(x)        for a repeat y' that x_hat has not seen,

at every signal-to-noise ratio (Noise2Noise, Lehtinen et al. 2018, with the curve of Gudbjartsson
and Patz 1995). Above an SNR of 3 the curve is all but the identity, and this is the supervised
loss; in air it is flat, and there is little to learn there. Without a repeat y' = y, and what the
estimate has copied of the noise is taken off by Stein's unbiased risk estimate, its divergence
by one random probe (Ramani, Blu and Unser 2008, eq. 12):

    |m(x_hat(y)) - y|^2 - v + 2 v b . (m(x_hat(y + e b)) - m(x_hat(y))) / e,     b = +-1.

Stein's identity holds for Gaussian noise. The magnitude has the local variance v(x), which is
used in its place; what is left of the bias is in air. (The chi-square version of Luisier, Blu and
Wolfe 2012 is exact, but for the risk of x^2, which bright voxels rule.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medddpm.model.blocks import channels_last
from medddpm.model.model import Model
from medddpm.training.batches import NoisyBatch, Share, normal
from medddpm.training.losses import observed
from medddpm.training.measured import MeasuredScans
from medddpm.training.options import FidelityOptions
from medddpm.training.validation import restored_psnr, terminal_latent, write_preview

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_STEP = 0.1
"""Of the probe, in units of sigma: the bias of a finite step is 0.4 of its square."""
_FAR = 20.0
"""Beyond this SNR the series of the Rician mean is exact to float32."""


def rician_moments(signal: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of a Rician magnitude in units of sigma, differentiable (float32).

    Args:
        signal: Any shape, in units of sigma; its sign does not matter.
    """
    signal = signal.float()
    near = signal.clamp(-_FAR, _FAR)
    q = near.square() / 4
    i0, i1 = torch.special.i0e(q), torch.special.i1e(q)
    close = math.sqrt(math.pi / 2) * ((1 + 2 * q) * i0 + 2 * q * i1)
    size = signal.abs().clamp_min(_FAR)
    far = size + 0.5 / size + 0.125 / size**3
    inside = signal.abs() < _FAR
    variance = torch.where(inside, 2 + near.square() - close.square(), 1 - 0.5 / size.square())
    return torch.where(inside, close, far), variance


def repeat_risk(estimate: Tensor, repeat: Tensor) -> Tensor:
    """Unbiased |m(x_hat) - m(x)|^2 at every voxel from a repeat that x_hat has not seen.

    Args:
        estimate: x_hat in units of sigma.
        repeat: Another scan of the same, in units of sigma.
    """
    mean, variance = rician_moments(estimate)
    return (mean - repeat).square() - variance.detach()


def single_risk(estimate: Tensor, moved: Tensor, probe: Tensor, y: Tensor) -> Tensor:
    """Nearly unbiased |m(x_hat) - m(x)|^2 from the scan itself; only its average means something.

    Args:
        estimate: x_hat(y) in units of sigma.
        moved: x_hat(y + probe) in units of sigma.
        probe: Random signs times the size of the step, in units of sigma; 0 where y was masked.
        y: The scan in units of sigma.
    """
    mean, variance = rician_moments(estimate)
    size = probe.abs().amax().clamp_min(1e-6)
    divergence = probe / size.square() * (rician_moments(moved)[0] - mean)
    variance = variance.detach()
    return (mean - y).square() - variance + 2 * variance * divergence


def body(batch: NoisyBatch) -> Tensor:
    """True where there is signal around a voxel, from the second moment E y^2 = x^2 + 2 sigma^2.

    One voxel's own noise hardly decides, as it must not: a weight that follows it is a bias.
    """
    power = F.avg_pool3d(batch.y.square() - 2 * batch.sigma.square(), 5, 1, 2)
    return (power > (0.5 * batch.sigma).clamp_min(0.05).square()) & (batch.y > 0)


class MeasuredStage:
    """The fidelity decoder from noisy scans alone: `fidelity.objective` "single" or "pairs".

    Only E[z0 | y] can be a latent here: other levels need the latent of the clean scan. So
    `mean` is trained, and the draws of `sample` are not.
    """

    name = "fidelity"
    figure = "gain"

    def __init__(self, model: Model, scans: MeasuredScans, options: FidelityOptions) -> None:
        self.model = model
        self.network: nn.Module = model.fidelity
        self.scans = scans
        self.options = options
        self.steps = options.steps
        self.batch = options.batch
        self.learning_rate = options.learning_rate
        model.codec.eval().requires_grad_(False)
        model.unet.eval().requires_grad_(False)

    def draw(self, share: Share) -> NoisyBatch:
        """Noisy patches; their `x` is the target."""
        return self.scans.batch(share.rngs())

    def loss(self, batch: NoisyBatch, share: Share) -> Tensor:
        """The unbiased risk in units of sigma, weighted as in supervised training."""
        self.model.to(batch.y.device)
        channels_last(self.model)
        risk, _, _ = self.risks(batch, share.seeds("risk"))
        weight = torch.where(body(batch), 1.0, 0.1) * (batch.y > 0)
        level = (batch.log_sigma.exp() / 0.05).clamp(0.1, 4)[:, None, None, None, None]
        # With the noise of the target in it, it stays positive also where the risk is small.
        loss: Tensor = (level * weight * (1 + risk)).mean()
        return loss

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """Unbiased risks on held-out noisy scans, and the PSNR of clean references if any.

        `risk` is the squared error left, as a share of sigma^2; `risk_base` is that of the base,
        and `gain` what the network took off it.
        """
        figures: dict[str, float] = {}
        if self.scans.has_references:
            figures = restored_psnr(self.model, self.scans.reference_noisy, device, preview)
        sums, rows = torch.zeros(3, dtype=torch.float64), []
        self.model.to(device)
        for number, held in enumerate(self.scans.held_batches):
            batch = held.to(device)
            risk, base, estimate = self.risks(batch, [number])
            inside = body(batch)
            sums += torch.stack([risk[inside].sum(), base[inside].sum(), inside.sum()]).cpu()
            restored = estimate * batch.sigma
            rows.append(torch.cat([batch.y, restored, 0.5 + batch.y - restored]).cpu())
        names = ("noisy", "restored", "removed")
        write_preview(preview, dict(zip(names, torch.stack(rows, dim=1), strict=True)))
        restoration, base_risk = (sums[:2] / sums[2].clamp_min(1)).tolist()
        gain = base_risk - restoration
        return {**figures, "risk": restoration, "risk_base": base_risk, "gain": gain}

    def finish(self, fabric: Fabric) -> None:
        """Nothing to store."""

    def risks(self, batch: NoisyBatch, seeds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Risks of the restoration and of the base at every voxel, and the restoration / sigma.

        Args:
            batch: Noisy patches.
            seeds: One a sample, for the noise of the latent and for the probe.
        """
        y = batch.y / batch.sigma
        here = self._estimates(batch, seeds)
        if self.options.objective == "pairs":
            risks = [repeat_risk(e, batch.x / batch.sigma) for e in here]
        else:
            noise = normal(y.shape[1:], [seed + 1 for seed in seeds], torch.device("cpu"))
            probe = _STEP * torch.where(noise.to(y) > 0, 1.0, -1.0) * (y > 0)
            there = self._estimates(replace(batch, y=batch.y + probe * batch.sigma), seeds)
            risks = [single_risk(a, b, probe, y) for a, b in zip(here, there, strict=True)]
        return risks[0], risks[1], here[0]

    def _estimates(self, batch: NoisyBatch, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The restoration and the base, both in units of sigma; only the first has a gradient."""
        schedule = self.model.spec.diffusion.schedule
        angle = torch.full((len(batch.y),), schedule.terminal.angle, device=batch.y.device)
        with torch.no_grad():
            evidence = observed(self.model, batch)
            z0 = terminal_latent(self.model, batch, evidence, seeds)
            prior = self.model.codec.decode(z0)
        base = evidence.base / batch.sigma
        return base - self.model.fidelity.error(evidence, z0, prior, angle), base
