"""How good a model is on held-out patches, in numbers and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from medddpm.diffusion.prediction import to_x0
from medddpm.model.model import Model
from medddpm.model.shrinkage import Evidence
from medddpm.training.batches import (
    NoisyBatch,
    normal,
)
from medddpm.training.losses import observed

VALIDATION_SIGMAS = (0.05, 0.09)
_ENLARGED = 3


def restored_psnr(
    model: Model, held: Callable[[float], NoisyBatch], device: torch.device, preview: Path
) -> dict[str, float]:
    """PSNR of `mean` restoration; `held` gives clean patches with noise of a level."""
    figures: dict[str, float] = {}
    for sigma in (0.01, *VALIDATION_SIGMAS):
        batch = held(sigma)
        z0 = predicted_mean(model, batch, device)
        parts = []
        for i in range(len(z0)):
            evidence = observed(model, batch[i : i + 1].to(device))
            angle = torch.full((1,), math.pi / 2, device=device)
            part = model.decode(evidence, z0[i : i + 1].to(device), angle)
            parts.append(part.float().cpu())
        restored = torch.cat(parts)
        figures[f"psnr_{sigma}"] = psnr_inside(restored, batch.x)
        figures[f"psnr_noisy_{sigma}"] = psnr_inside(batch.y, batch.x)
        shown = {"noisy": batch.y, "restored": restored, "truth": batch.x}
        write_preview(preview, {**shown, "error x 2": 0.5 + 2 * (restored - batch.x)})
    return figures


def predicted_mean(model: Model, batch: NoisyBatch, device: torch.device) -> Tensor:
    """E[z0 | y] on the CPU, one patch at a time: the x0-prediction at the terminal level."""
    model.to(device)
    outputs = []
    for i in range(len(batch.y)):
        part = batch[i : i + 1].to(device)
        outputs.append(terminal_latent(model, part, observed(model, part), [i]).float().cpu())
    return torch.cat(outputs)


def terminal_latent(
    model: Model, batch: NoisyBatch, evidence: Evidence, seeds: Sequence[int]
) -> Tensor:
    """E[z0 | y]: the x0-prediction at the terminal level; one seed a sample for its noise."""
    level = model.spec.diffusion.schedule.terminal
    cond, z_y = model.condition(evidence)
    noise = normal(z_y.shape[1:], seeds, torch.device("cpu")).to(z_y)
    z = level.sigma * noise + level.alpha * z_y
    angle = torch.full((len(z),), level.angle, device=z.device)
    conditions = model.conditions(batch.sigma, batch.spacing, batch.colour)
    output = model.unet(z, angle, cond, conditions)
    return to_x0(output, z, level.alpha, level.sigma, model.spec.diffusion.prediction)


def mean_psnr(outputs: Sequence[Tensor], x: Tensor) -> float:
    """Mean over patches, each with noise of its own, of their PSNR."""
    each = [psnr_inside(o, x[i : i + 1]) for i, o in enumerate(outputs)]
    return sum(each) / len(each)


def psnr_inside(restored: Tensor, reference: Tensor) -> float:
    """PSNR in dB at data range 1, over voxels above 5 % of the intensity scale."""
    inside = reference > 0.05
    error = (restored.float() - reference)[inside].double().square().mean()
    return float(-10 * torch.log10(error))


def write_preview(path: Path, images: Mapping[str, Tensor], count: int = 4) -> None:
    """Middle slices as a grey PNG: one row a patch, one column an image.

    Args:
        path: The labels of the columns are in its text "Columns".
        images: By label, each (B, 1, X, Y, Z).
        count: Of rows, at most.
    """
    columns = [i[:count, 0, :, :, i.shape[-1] // 2].float().cpu() for i in images.values()]
    grid = torch.cat([torch.cat(list(c), dim=0) for c in columns], dim=1).clamp(0, 1).numpy()
    large = np.repeat(np.repeat(grid, _ENLARGED, axis=0), _ENLARGED, axis=1)
    words = PngInfo()
    words.add_text("Columns", "\n".join(images))
    Image.fromarray((255 * large + 0.5).astype(np.uint8)).save(path, format="png", pnginfo=words)


def chunked(function: Callable[[Tensor], Tensor], images: Tensor, device: torch.device) -> Tensor:
    """A function of images, one at a time, back on the CPU as float32."""
    parts = [function(images[i : i + 1].to(device)).float().cpu() for i in range(len(images))]
    return torch.cat(parts)
