"""Methods as restorers: posterior means in closed form, and heads that come out less noisy."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch

from medddpm.comparison.methods import METHODS
from medddpm.comparison.restoring import autoencoded, noisy_heads, projected, shrunk
from medddpm.comparison.scene import Scene


def test_posterior_means_are_those_of_a_gaussian() -> None:
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(3, 2, 2, 1, 1, generator=generator)
    u = torch.randn(2, 2, 2, 1, 1, generator=generator)
    rows = heads.flatten(1)
    covariance = rows.T @ rows / 3
    wanted = u.flatten(1) @ torch.linalg.solve(covariance + 0.25 * torch.eye(4), covariance)
    assert torch.allclose(projected(u, heads, 0.5).flatten(1), wanted, atol=1e-5)
    assert torch.allclose(shrunk(u, torch.tensor(0.75), 0.5), 0.75 * u)


def test_what_knows_heads_comes_nearer_to_them(
    scene: Callable[[int], Scene], tmp_path: Path
) -> None:
    """In latents: the tiny autoencoder is random, and its images are none."""
    task = noisy_heads(made := scene(2))
    assert task.clean.shape == (2, 1, 32, 32, 32)
    assert task.deviation > 0
    assert math.isfinite(task.psnr(autoencoded))
    restore = METHODS["vae"](made, tmp_path, None).restore
    assert restore is not None
    clean = task.stage.standardised(task.clean)
    before, after = task.noisy, restore(task.noisy, task.deviation)
    assert float((after - clean).norm()) < float((before - clean).norm())


def test_a_fresh_network_restores_with_what_it_measured(
    scene: Callable[[int], Scene], tmp_path: Path
) -> None:
    """Its closed form, the variance among heads at each place, is a restorer already."""
    made = scene(1)
    task = noisy_heads(made)
    for name in ("diffusion-cosine", "flow"):
        restore = METHODS[name](made, tmp_path / name, None).restore
        assert restore is not None
        with torch.inference_mode():
            found = restore(task.noisy, task.deviation)
        spread = made.measured.spread
        wanted = shrunk(task.noisy, spread, task.deviation)
        assert float((found - wanted).norm() / wanted.norm()) < 0.3
