"""The methods by name: each trains on a scene within its budget, and then draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from medddpm.comparison.gan import Gan, GanStage
from medddpm.comparison.gaussian import collected_heads, drawn_of_sample
from medddpm.comparison.options import ALL_METHODS
from medddpm.comparison.restoring import Restore, projected, shrunk
from medddpm.comparison.scene import Scene
from medddpm.diffusion.prediction import Prediction
from medddpm.diffusion.schedule import Schedule
from medddpm.generation.learning import PriorStage
from medddpm.named import named
from medddpm.training.fabric import launch
from medddpm.training.loop import OnLog, run_stage
from medddpm.training.state import saved_progress


@dataclass(frozen=True)
class Trained:
    """A method that can draw.

    Attributes:
        draw: Of a seed: one standardised head (1, C, *grid).
        weights: Numbers that were learned and that a draw needs.
        steps: Of the training.
        minutes: Of the training.
        calls: Network evaluations a draw.
        about: What it is, in a few words.
        restore: Takes noise off standardised heads; None where it cannot.
    """

    draw: Callable[[int], Tensor]
    weights: int
    steps: int
    minutes: float
    calls: int
    about: str
    restore: Restore | None = None


Method = Callable[[Scene, Path, OnLog | None], Trained]
"""Trains within the budget of a scene, or goes on in its folder, and says how to draw."""


def method_of(name: str) -> Method:
    """The method of this name: ours, a package's (entry point), or that of an import path.

    Raises:
        ConfigError: There is none.
    """
    return named(name, METHODS, "method", "medddpm.generators")


def vae(scene: Scene, folder: Path, on_log: OnLog | None) -> Trained:
    """Draws each latent voxel by itself: mean head and deviation of each channel."""
    del folder, on_log
    began = time.monotonic()
    stage = scene.stage(scene.network())
    heads = torch.cat([one for head in scene.halves.train for one in stage.both_sides(head)])
    variance = heads.square().mean((0, 2, 3, 4)).cpu()[:, None, None, None]
    return Trained(
        draw=lambda seed: stage.noise(1, seed) * variance.sqrt(),
        weights=scene.measured.mean.numel() + variance.numel(),
        steps=0,
        minutes=(time.monotonic() - began) / 60,
        calls=0,
        about="Gaussian of each latent voxel",
        restore=lambda u, deviation: shrunk(u, variance.to(u), deviation),
    )


def vae_pca(scene: Scene, folder: Path, on_log: OnLog | None) -> Trained:
    """Draws from the Gaussian with the covariance of training heads in random poses."""
    heads, seconds = collected_heads(scene, folder, on_log)
    return Trained(
        draw=lambda seed: drawn_of_sample(heads, seed),
        weights=heads.numel(),
        steps=len(heads),
        minutes=seconds / 60,
        calls=0,
        about="Gaussian with the covariance of heads",
        restore=lambda u, deviation: projected(u, heads, deviation),
    )


def gan(scene: Scene, folder: Path, on_log: OnLog | None) -> Trained:
    """A GAN whose generator has the network of the prior."""
    network = Gan(scene.network())
    heads = scene.halves
    stage = GanStage(network, scene.model.codec, heads.train, heads.held, scene.prior)
    return _trained(stage, scene, folder, on_log, "GAN, hinge loss, spectral norm")


def _diffusion(kind: str, prediction: Prediction, about: str) -> Method:
    def method(scene: Scene, folder: Path, on_log: OnLog | None) -> Trained:
        heads, network = scene.halves, scene.network(prediction)
        codec, schedule = scene.model.codec, Schedule(kind)
        stage = PriorStage(network, codec, heads.train, heads.held, scene.prior, schedule)
        return _trained(stage, scene, folder, on_log, about)

    return method


METHODS: Mapping[str, Method] = MappingProxyType(
    dict(
        zip(
            ALL_METHODS,
            (
                vae,
                vae_pca,
                gan,
                _diffusion("linear", "v", "diffusion, linear betas"),
                _diffusion("cosine", "v", "diffusion, cosine schedule"),
                _diffusion("sigmoid", "v", "diffusion, sigmoid schedule"),
                _diffusion("rectified_flow", "flow", "rectified flow"),
            ),
            strict=True,
        )
    )
)


def _trained(
    stage: PriorStage, scene: Scene, folder: Path, on_log: OnLog | None, about: str
) -> Trained:
    """The stage after its training, with averaged weights."""
    out = folder / stage.name
    steps = run_stage(stage, out, scene.train, launch(scene.train), resume=True, on_log=on_log)
    stage.network.eval()
    calls = 1 if isinstance(stage, GanStage) else scene.draw_steps

    def draw(seed: int) -> Tensor:
        with torch.inference_mode():
            return stage.sample(stage.noise(1, seed), scene.draw_steps)

    def restore(u: Tensor, deviation: float) -> Tensor:
        level = stage.schedule.nearest(deviation)
        return stage.prior.denoiser(len(u))(level.alpha * u.to(stage.prior.mean), level)

    return Trained(
        draw=draw,
        weights=_count(stage.prior),
        steps=steps,
        minutes=saved_progress(out / "state.safetensors").seconds / 60,
        calls=calls,
        about=about,
        restore=None if isinstance(stage, GanStage) else restore,
    )


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
