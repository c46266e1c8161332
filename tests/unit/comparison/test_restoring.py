"""Methods as restorers: posterior means in closed form, and heads that come out less noisy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medddpm.comparison.methods import METHODS
from medddpm.comparison.restoring import SIGMA, latent_noise, noisy_heads, projected, shrunk
from medddpm.comparison.scene import Scene
from medddpm.model.wavelet import haar, image_of


def test_posterior_means_are_those_of_a_gaussian() -> None:
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(3, 2, 2, 1, 1, generator=generator)
    u = torch.randn(2, 2, 2, 1, 1, generator=generator)
    rows = heads.flatten(1)
    covariance = rows.T @ rows / 3
    wanted = u.flatten(1) @ torch.linalg.solve(covariance + 0.25 * torch.eye(4), covariance)
    assert torch.allclose(projected(u, heads, 0.5).flatten(1), wanted, atol=1e-5)
    assert torch.allclose(shrunk(u, torch.tensor(0.75), 0.5), 0.75 * u)


class _Exact(Scene):
    """Its autoencoder loses nothing, as that of a trained model all but does."""

    def encoded(self, x: Tensor) -> Tensor:
        return haar(x)

    def decoded(self, z: Tensor) -> Tensor:
        return image_of(z)


def test_gaussians_of_heads_restore_better_than_what_knows_less(
    scene: Callable[[int], Scene], tmp_path: Path
) -> None:
    """Each voxel's deviation beats the noisy heads, sixteen heads beat their mean."""
    made = _Exact(**vars(scene(16)))
    task = noisy_heads(made)
    assert task.clean.shape == (2, 1, 32, 32, 32)
    assert latent_noise(made) == pytest.approx(SIGMA, rel=0.01)
    mean = made.measured.image(torch.zeros_like(made.measured.mean)[None])
    known = {"vae": lambda x: x, "vae-pca": mean.expand_as}
    for name, less in known.items():
        restore = METHODS[name](made, tmp_path, None).restore
        assert restore is not None
        assert task.psnr(restore) > task.psnr(less) + 0.5


def test_a_fresh_network_restores_with_what_it_measured(
    scene: Callable[[int], Scene], tmp_path: Path
) -> None:
    """Its closed form, the variance among heads at each place, is a restorer already."""
    made = scene(1)
    task = noisy_heads(made)
    for name in ("diffusion-cosine", "flow"):
        restore = METHODS[name](made, tmp_path / name, None).restore
        assert restore is not None
        prior = made.measured
        u = shrunk(prior.standardised(task.noisy), prior.spread, SIGMA / float(prior.unit))
        wanted = prior.image(u)
        with torch.inference_mode():
            found = restore(task.noisy)
        assert float((found - wanted).norm() / wanted.norm()) < 0.3
