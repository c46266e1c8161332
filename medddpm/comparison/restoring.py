"""The methods as restorers: which head do they expect behind a noisy one?

Each gives the mean of the posterior of its own heads: in closed form for a Gaussian, on latents
whose noise is taken to be white, and by one evaluation for diffusion and flow, whose network
learned just that mean (Efron 2011, "Tweedie's formula and selection bias"). A GAN has no density.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medddpm.comparison.scene import Scene
from medddpm.generation.heads import placed
from medddpm.metrics.scores import psnr

SIGMA = 0.1
"""White noise on the heads, as a fraction of the intensity scale."""
_BODY = 0.1
_LEARNED = 4
"""Training heads that tell how strong the noise is in latents."""

Restore = Callable[[Tensor], Tensor]
"""Images (B, 1, *shape) with noise of `SIGMA` -> images without it."""


@dataclass(frozen=True)
class NoisyHeads:
    """Held-out heads with noise.

    Attributes:
        clean: (N, 1, *shape) on the intensity scale.
        noisy: The same with noise.
    """

    clean: Tensor
    noisy: Tensor

    def psnr(self, restore: Restore) -> float:
        """Mean PSNR of the restored heads in their bodies, in dB."""
        with torch.inference_mode():
            images = restore(self.noisy)[:, 0].numpy()
        pairs = zip(self.clean[:, 0].numpy(), images, strict=True)
        return float(np.mean([psnr(x, y, 1.0, x > _BODY) for x, y in pairs]))


def noisy_heads(scene: Scene) -> NoisyHeads:
    """The held-out heads with noise, the same for all methods."""
    clean = torch.cat([placed(head, scene.prior) for head in scene.halves.held])
    return NoisyHeads(clean, with_noise(clean, seed=6))


def with_noise(x: Tensor, seed: int) -> Tensor:
    """Images with white noise of `SIGMA`."""
    return x + SIGMA * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def latent_noise(scene: Scene) -> float:
    """Deviation that the noise has in latents of the autoencoder, measured on training heads."""
    x = torch.cat([placed(head, scene.prior) for head in scene.halves.train[:_LEARNED]])
    off = scene.encoded(with_noise(x, seed=7)) - scene.encoded(x)
    return float(off.square().mean().sqrt())


def shrunk(u: Tensor, variance: Tensor, deviation: float) -> Tensor:
    """Posterior mean where each latent voxel is Gaussian by itself (Wiener 1949).

    Args:
        u: (B, C, *grid).
        variance: Of the heads, broadcasts to `u`.
        deviation: Of the noise.
    """
    return u * variance / (variance + deviation**2)


def projected(u: Tensor, heads: Tensor, deviation: float) -> Tensor:
    """Posterior mean under the Gaussian that `drawn_of_sample` draws from.

    With the rows H of the heads over sqrt(N) its covariance is H^T H, and the mean is
    H^T (H H^T + deviation^2)^-1 H u.

    Args:
        u: (B, C, *grid).
        heads: (N, C, *grid).
        deviation: Of the noise.
    """
    rows = heads.flatten(1).to(u) / len(heads) ** 0.5
    gram = rows @ rows.T + deviation**2 * torch.eye(len(rows)).to(u)
    found: Tensor = rows.T @ torch.linalg.solve(gram, rows @ u.flatten(1).T)
    return found.T.reshape(u.shape)
