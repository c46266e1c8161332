"""The stage that teaches the diffusion network to draw in few steps."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from medddpm.diffusion.denoiser import as_denoiser
from medddpm.diffusion.distillation import Answer, answer_of, consistency_loss, neighbours
from medddpm.diffusion.prediction import interpolate
from medddpm.diffusion.samplers import dpm_solver_pp_2m, truncated_start
from medddpm.errors import ConfigError
from medddpm.model.model import Model, load_model, read_card
from medddpm.training.batches import NoisyBatch, Share, noisy_batch, normal
from medddpm.training.losses import observed
from medddpm.training.options import DistilOptions
from medddpm.training.scans import Scans
from medddpm.training.validation import (
    VALIDATION_SIGMAS,
    chunked,
    predicted_mean,
    psnr_inside,
    write_preview,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_TEACHER = "teacher.safetensors"
PATH_STEPS = 16
"""Evaluations of the teacher to the end of a path (second order), for validation."""


def keep_teacher(out: Path) -> None:
    """Copy the weights of a run folder beside the stage's state: the run's own become the student.

    Raises:
        ConfigError: There are none, their diffusion network is not trained, or is distilled.
    """
    kept, path = out / DistilStage.name / _TEACHER, out / "model.safetensors"
    if kept.exists():
        return
    if not path.exists():
        raise ConfigError(f"{path} does not exist; give the weights to distil with --from")
    card, _ = read_card(path)
    if card.get("sampler"):
        raise ConfigError(f"{path} is distilled already; distil what it was made from")
    if not {"diffusion", "joint"} & set(card.get("stages", {})) and "finetuned_from" not in card:
        raise ConfigError(f"{path} has no trained diffusion network; train that stage first")
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".partial")
    shutil.copyfile(path, partial)
    os.replace(partial, kept)


def load_teacher(out: Path) -> nn.Module:
    """The U-Net of the weights that `keep_teacher` kept."""
    return load_model(out / DistilStage.name / _TEACHER).unet


def path_places(share: Share, terminal_fraction: float) -> tuple[Tensor, Tensor]:
    """Where the samples of a part lie on their paths, stratified over the global batch.

    Returns:
        (B,), which of them lie at the terminal level; and (B,) in [0, 1], how far up the others do.
    """
    generator = share.step_generator()
    draw = torch.rand(2, generator=generator)
    num_terminal = min(int(terminal_fraction * share.total + draw[0]), share.total)
    place = torch.randperm(share.total, generator=generator) - num_terminal
    height = (place + draw[1]) / max(share.total - num_terminal, 1)
    return share.of(place < 0), share.of(height.clamp_min(0))


def closed(found: Tensor, one: Tensor, end: Tensor) -> float:
    """Share of the squared distance from one step of the teacher to its path's end that is gone."""
    return float(1 - (found - end).square().mean() / (one - end).square().mean())


class DistilStage:
    """Learns in one step where the teacher's paths from a noisy scan end.

    Paths start as in `sample`: at the latent of the noisy scan, with noise of `restore.start` times
    its own. `consistency_loss` says the rest.

    Args:
        model: Its U-Net is the student, and begins as the teacher.
        teacher: The trained U-Net; stays as it is.
        scans: Of the run.
        options: Of this stage.
    """

    name = "distil"
    figure = "closed"

    def __init__(
        self, model: Model, teacher: nn.Module, scans: Scans, options: DistilOptions
    ) -> None:
        self.model = model
        self.teacher = teacher.eval().requires_grad_(False)
        self.network: nn.Module = model.unet
        self.scans = scans
        self.options = options
        self.steps = options.steps
        self.batch = options.batch
        self.learning_rate = options.learning_rate
        self.fraction = options.terminal_fraction
        self._paths: dict[float, tuple[Tensor, Tensor]] = {}
        model.codec.eval().requires_grad_(False)

    def draw(self, share: Share) -> NoisyBatch:
        """Noisy patches."""
        rngs = share.rngs()
        options = self.scans.options
        return NoisyBatch.cat([noisy_batch(self.scans.train, 1, rng, options) for rng in rngs])

    def loss(self, batch: NoisyBatch, share: Share) -> Tensor:
        """Difference of the answers at two neighbours of a path; at the terminal level, kept."""
        device, diffusion = batch.x.device, self.model.spec.diffusion
        schedule = diffusion.schedule
        self.model.to(device)
        self.teacher.to(device)
        with torch.no_grad():
            cond, z_y = self.model.condition(observed(self.model, batch))
            z0 = self.model.codec.encode(batch.x)
        start = self._start(batch)
        is_terminal, height = (part.to(device) for part in path_places(share, self.fraction))
        upper, lower = neighbours(start, self.options.intervals, height)
        upper = torch.where(is_terminal, schedule.terminal.angle, upper)
        lower = torch.where(is_terminal, 0.0, lower)
        # The noise of the scan itself shrinks along the path like the rest.
        left = (upper.tan() / start.tan()).clamp(max=1)[:, None, None, None, None].to(z0)
        levels = schedule.at_angles(upper), schedule.at_angles(lower)
        z = interpolate(torch.lerp(z0, z_y, left), share.normal(z0.shape[1:], device), *levels[0])
        conditions = self.model.conditions(batch.sigma, batch.spacing, batch.colour)

        def answers(network: nn.Module) -> Answer:
            return answer_of(lambda z, a: network(z, a, cond, conditions), diffusion.prediction)

        return consistency_loss(answers(self.network), answers(self.teacher), z, *levels)

    def _start(self, batch: NoisyBatch) -> Tensor:
        """(B,) angle at which `sample` would start, float64."""
        noise = self.options.start * self.model.codec.latent_noise_gain * batch.log_sigma.exp()
        terminal = self.model.spec.diffusion.schedule.terminal.angle
        return noise.double().atan().clamp(max=terminal)

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """How near one step of the student is to the ends of the teacher's paths.

        "closed" is 1 less the squared distance over that of one step of the teacher: 0 at first, 1
        at best. "psnr_plain" is that of E[z0 | y], as in the diffusion stage.
        """
        figures: dict[str, float] = {}
        self.teacher.to(device)
        for sigma in VALIDATION_SIGMAS:
            batch = self.scans.held_noisy(sigma)
            if sigma not in self._paths:
                one, end = (self._drawn(self.teacher, batch, device, n) for n in (1, PATH_STEPS))
                self._paths[sigma] = one, end
            one, end = self._paths[sigma]
            found = self._drawn(self.network, batch, device, 1)
            figures[f"closed_{sigma}"] = closed(found, one, end)
            mean = predicted_mean(self.model, batch, device)
            plain = chunked(self.model.codec.decode, mean, device)
            figures[f"psnr_plain_{sigma}"] = psnr_inside(plain, batch.x)
            latents = {"teacher, 1 step": one, "its path": end, "student, 1 step": found}
            shown = {k: chunked(self.model.codec.decode, z, device) for k, z in latents.items()}
            write_preview(preview, {"noisy": batch.y, **shown, "truth": batch.x})
        parts = [figures[f"closed_{sigma}"] for sigma in VALIDATION_SIGMAS]
        return {"closed": sum(parts) / len(parts), **figures}

    def _drawn(
        self, network: nn.Module, batch: NoisyBatch, device: torch.device, steps: int
    ) -> Tensor:
        """Latents of the patches, each from the same noise at every call, on the CPU."""
        diffusion = self.model.spec.diffusion
        schedule, drawn = diffusion.schedule, []
        for i in range(len(batch.y)):
            part = batch[i : i + 1].to(device)
            cond, z_y = self.model.condition(observed(self.model, part))
            conditions = self.model.conditions(part.sigma, part.spacing, part.colour)
            denoiser = as_denoiser(network, diffusion.prediction, cond=cond, conditions=conditions)
            level = schedule.nearest(math.tan(float(self._start(part))))
            noise = normal(z_y.shape[1:], [i], torch.device("cpu")).to(z_y)
            start = truncated_start(z_y, level, noise)
            end = dpm_solver_pp_2m(denoiser, start, schedule.steps(steps, level))
            drawn.append(end.float().cpu())
        return torch.cat(drawn)

    def finish(self, fabric: Fabric) -> None:
        """Nothing to store."""
