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
from medddpm.comparison.restoring import SIGMA, Restore, latent_noise, projected, shrunk
from medddpm.comparison.scene import Scene
from medddpm.diffusion.prediction import Prediction
from medddpm.diffusion.schedule import Schedule
from medddpm.errors import ConfigError
from medddpm.generation.heads import BOTH_SIDES, placed
from medddpm.generation.learning import DetailStage, PriorStage
from medddpm.generation.prior_file import load_prior
from medddpm.named import named
from medddpm.training.fabric import launch
from medddpm.training.loop import OnLog, run_stage
from medddpm.training.state import saved_progress


@dataclass(frozen=True)
class Trained:
    """A method that can draw.

    Attributes:
        draw: Of a seed: one head (1, 1, *shape), on the intensity scale.
        weights: Numbers that were learned and that a draw needs.
        steps: Of the training.
        minutes: Of the training.
        calls: Network evaluations a draw.
        about: What it is, in a few words.
        restore: Takes noise of `SIGMA` off images (B, 1, *shape); None where it cannot.
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
    both = [placed(h, scene.prior, p) for h in scene.halves.train for p in BOTH_SIDES]
    heads = torch.cat([scene.encoded(x) for x in both])
    mean = heads.mean(0)
    variance = (heads - mean).square().mean((0, 2, 3, 4))[:, None, None, None]
    noise = latent_noise(scene)

    def draw(seed: int) -> Tensor:
        eps = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
        return scene.decoded((mean + eps * variance.sqrt())[None])

    def restore(x: Tensor) -> Tensor:
        return scene.decoded(mean + shrunk(scene.encoded(x) - mean, variance, noise))

    return Trained(
        draw=draw,
        weights=mean.numel() + variance.numel(),
        steps=0,
        minutes=(time.monotonic() - began) / 60,
        calls=0,
        about="Gaussian of each latent voxel",
        restore=restore,
    )


def vae_pca(scene: Scene, folder: Path, on_log: OnLog | None) -> Trained:
    """Draws from the Gaussian with the covariance of training heads in random poses."""
    heads, seconds = collected_heads(scene, folder, on_log)
    mean, noise = heads.float().mean(0), latent_noise(scene)

    def restore(x: Tensor) -> Tensor:
        return scene.decoded(mean + projected(scene.encoded(x) - mean, heads - mean, noise))

    return Trained(
        draw=lambda seed: scene.decoded(drawn_of_sample(heads, seed)),
        weights=heads.numel(),
        steps=len(heads),
        minutes=seconds / 60,
        calls=0,
        about="Gaussian with the covariance of heads",
        restore=restore,
    )


def gan(scene: Scene, folder: Path, on_log: OnLog | None) -> Trained:
    """A GAN whose generator has the network of the prior."""
    network = Gan(scene.network())
    heads = scene.halves
    stage = GanStage(network, heads.train, heads.held, scene.prior)
    return _trained(stage, scene, folder, on_log, "GAN, hinge loss, spectral norm")


def _diffusion(kind: str, prediction: Prediction, about: str) -> Method:
    def method(scene: Scene, folder: Path, on_log: OnLog | None) -> Trained:
        heads, network = scene.halves, scene.network(prediction)
        schedule = Schedule(kind)
        stage = PriorStage(network, heads.train, heads.held, scene.prior, schedule)
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
            return stage.prior.image(stage.sample(stage.noise(1, seed), scene.draw_steps))

    def restore(x: Tensor) -> Tensor:
        prior, u = stage.prior, stage.standardised(x)
        level = stage.schedule.nearest(SIGMA / float(prior.unit))
        return prior.image(prior.denoiser(len(u))(level.alpha * u, level)).cpu()

    return Trained(
        draw=draw,
        weights=_count(stage.prior),
        steps=steps,
        minutes=saved_progress(out / "state.safetensors").seconds / 60,
        calls=calls,
        about=about,
        restore=None if isinstance(stage, GanStage) else restore,
    )


def ready(path: Path) -> Method:
    """Draws from a prior that was trained before, whatever the budget.

    Raises:
        CheckpointError: The prior cannot be read.
    """
    trained = load_prior(path)

    def method(scene: Scene, folder: Path, on_log: OnLog | None) -> Trained:
        """Raises ConfigError if the prior learned a held-out head, or has another grid."""
        del folder, on_log
        prior, card = trained.prior, trained.card
        both = sorted(set(card.scans) & {head.name for head in scene.halves.held})
        if both:
            raise ConfigError(
                f"{path} learned {both[0]}, which is held out here; mend data.holdout"
            )
        if (prior.spec.shape, prior.spec.spacing) != (scene.prior.shape, scene.prior.spacing):
            raise ConfigError(
                f"{path} draws {prior.spec.shape} voxels of {prior.spec.spacing:g} mm; set "
                "prior.shape and prior.spacing to these"
            )
        prior.to(scene.measured.mean.device)

        def draw(seed: int) -> Tensor:
            with torch.inference_mode():
                return prior.draw(seed, scene.draw_steps)

        drawing = (prior.coarse, prior.fine)
        return Trained(
            draw=draw,
            weights=sum(_count(scale) for scale in drawing),
            steps=sum(card.steps.get(stage, 0) for stage in (PriorStage.name, DetailStage.name)),
            minutes=60 * card.hours,
            calls=len(drawing) * scene.draw_steps,
            about="cascade of train prior, trained before",
        )

    return method


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
