"""A GAN of whole heads: one network evaluation a draw, trained against a critic.

The recipe is kept from the literature, not tuned here: hinge losses (Lim & Ye 2017, "Geometric
GAN"; Zhang et al. 2019, "Self-attention GAN", eq. 4) and a spectrally normalised critic (Miyato et
al. 2018, "Spectral normalization for GANs"), both trained at once; Adam without momentum at a rate
of 0.002 on unit weights (Karras et al. 2020, "StyleGAN2"), the generator's weights averaged (Karras
et al. 2018, "Progressive growing of GANs", appendix A.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from medddpm.generation.heads import Head
from medddpm.generation.learning import PriorStage
from medddpm.generation.options import PriorOptions
from medddpm.generation.prior import HeadPrior
from medddpm.model.blocks import ResBlock
from medddpm.training.batches import Share

_BOUND = 5.0
"""Of what is drawn, in deviations of real heads at each place: without one the generator grows to
please the critic."""
_PROBED = 4
"""Draws whose variety is measured at each validation."""


class Critic(nn.Module):
    """Says of each part of a head how real it looks; every convolution has spectral norm 1.

    It has the residual blocks of the prior's way down, and is told as much: place and mean head.

    Args:
        in_channels: Of a head and of what is told.
        channels: Width of each level, finest first; each level halves the grid.
        num_blocks: Residual blocks a level.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], num_blocks: int) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv3d(in_channels, channels[0], 3, padding=1)]
        parts += [ResBlock(channels[0]) for _ in range(num_blocks)]
        for a, b in pairwise(channels):
            parts += [nn.Conv3d(a, b, 2, stride=2), *(ResBlock(b) for _ in range(num_blocks))]
        parts += [nn.SiLU(), nn.Conv3d(channels[-1], 1, 3, padding=1)]
        self.parts = nn.Sequential(*parts)
        for module in list(self.parts.modules()):
            if isinstance(module, nn.Conv3d):
                # The norm takes out the scale; with unit weights a step of Adam is a small turn.
                nn.init.normal_(module.weight)
                spectral_norm(module)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, X, Y, Z) -> (B, 1, X', Y', Z') float32, positive where it looks real."""
        return cast(Tensor, self.parts(x)).float()


class Gan(nn.Module):
    """Generator and critic.

    The generator is the network of the prior, evaluated once, on noise alone: it has the same
    weights to learn, and knows front from back as the prior does.

    Args:
        prior: The generator.
    """

    def __init__(self, prior: HeadPrior) -> None:
        super().__init__()
        self.prior = prior
        with torch.no_grad():  # a denoiser starts from next to nothing, a generator from its noise
            prior.unet.unet.scale.fill_(1.0)  # type: ignore[operator]
        for name, parameter in prior.named_parameters():
            if "film" in name or "embed" in name:  # one level alone: they would only be a gain
                parameter.requires_grad_(False)
        told = prior.condition(1).shape[1]
        spec = prior.spec
        self.critic = Critic(len(prior.mean) + told, spec.channels, spec.num_blocks)

    def generate(self, eps: Tensor) -> Tensor:
        """Standardised heads (B, C, *grid) of as much white noise."""
        terminal = torch.full((len(eps),), math.pi / 2, device=eps.device)
        bound = _BOUND * self.prior.spread.sqrt()
        return bound * torch.tanh(self.prior(eps, terminal) / bound)

    def score(self, u: Tensor) -> Tensor:
        """How real standardised heads look, see `Critic`."""
        scores: Tensor = self.critic(torch.cat([u, self.prior.condition(len(u))], dim=1))
        return scores

    @contextmanager
    def fixed_critic(self) -> Iterator[None]:
        """What is scored in the block is not held against the critic's weights."""
        self.critic.requires_grad_(False)
        yield
        self.critic.requires_grad_(True)


def critic_loss(real: Tensor, drawn: Tensor) -> Tensor:
    """Hinge loss of the critic: mean(max(0, 1 - real)) + mean(max(0, 1 + drawn))."""
    return F.relu(1 - real).mean() + F.relu(1 + drawn).mean()


def generator_loss(drawn: Tensor) -> Tensor:
    """Of the generator: -mean(drawn)."""
    return -drawn.mean()


class GanStage(PriorStage):
    """Trains generator and critic on the heads that a prior learns from.

    Both losses are one sum, whose gradients do not mix: the critic's sees draws without their
    history, the generator's a critic without its weights. The sum is 1 or more for any scores.
    """

    name = "gan"
    figure = "variety"
    betas = (0.0, 0.99)
    samples_a_head = 1

    def __init__(
        self,
        gan: Gan,
        heads: Sequence[Head],
        held: Sequence[Head],
        options: PriorOptions,
    ) -> None:
        super().__init__(gan.prior, heads, held, options)
        self.network: nn.Module = gan
        self.gan = gan
        self.learning_rate = 2e-3

    def loss(self, x: Tensor, share: Share) -> Tensor:
        """Both losses on as many draws as there are heads."""
        u = self.standardised(x)
        drawn = self.gan.generate(share.normal(u.shape[1:], u.device))
        real_score, drawn_score = self.gan.score(torch.cat([u, drawn.detach()])).chunk(2)
        with self.gan.fixed_critic():
            seen = self.gan.score(drawn)
        return critic_loss(real_score, drawn_score) + generator_loss(seen)

    def sample(self, eps: Tensor, steps: int, coarse: Tensor | None = None) -> Tensor:
        """Standardised heads of as much white noise; one evaluation, whatever `steps` says."""
        del steps, coarse
        return self.gan.generate(eps)

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """Variety: how far draws lie apart, over how far held-out heads do."""
        self.show(preview)
        drawn = self.sample(self.noise(_PROBED, seed=1), 1)
        held = self.standardised(self.held.to(device))
        return {"variety": apart(drawn) / max(apart(held), 1e-6)}


def apart(u: Tensor) -> float:
    """Root mean square difference of the heads (B, ...) of a set from their mean; 0 for one."""
    return float(u.float().var(0, correction=0).mean().sqrt())
