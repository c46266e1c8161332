"""Draws without a network: Gaussians fitted to the latents of the training heads.

What a variational autoencoder alone can draw: a Gaussian prior over its latents (Kingma & Welling
2014), here fitted to them after training (as Ghosh et al. 2020, "From variational to deterministic
autoencoders", section 4), since a prior of fixed variance 1 would be worse.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medddpm.comparison.scene import Scene
from medddpm.errors import CheckpointError
from medddpm.io.files import named_in_utf8
from medddpm.training.batches import Share, seed_of
from medddpm.training.loop import OnLog
from medddpm.training.state import write_tensors

MOST_HEADS = 256
"""That the covariance is taken of: each fills memory, and as many more change little."""
_FILE = "heads.safetensors"


def drawn_of_sample(heads: Tensor, seed: int) -> Tensor:
    """One draw of the Gaussian with the mean and the covariance of a sample.

    A sum of differences from the mean of the heads (N, C, *grid), with independent normal weights
    over sqrt(N), has their covariance: all principal components at once, without computing one.

    Returns:
        (1, C, *grid).
    """
    weights = torch.randn(len(heads), generator=torch.Generator().manual_seed(seed))
    flat = heads.flatten(1).float()
    mean = flat.mean(0)
    drawn: Tensor = mean + (weights / len(heads) ** 0.5) @ (flat - mean)
    return drawn.reshape(1, *heads.shape[1:])


def collected_heads(scene: Scene, folder: Path, on_log: OnLog | None) -> tuple[Tensor, float]:
    """Latents of training heads in random poses, (N, C, *grid), and the seconds that they took.

    Those of an earlier call are kept, and more are added while there is time.
    """
    stage = scene.stage(scene.network())
    path = folder / _FILE
    heads, seconds = _kept(path)
    limit, most = 60 * scene.train.minutes, min(scene.prior.steps, MOST_HEADS)
    while len(heads) < most and (not limit or seconds < limit):
        started = time.monotonic()
        share = Share(seed_of(scene.train.seed, "gaussian", len(heads)), 0, 1, 1)
        heads.append(scene.encoded(stage.draw(share))[0].half())
        seconds += time.monotonic() - started
        if on_log and len(heads) % scene.train.log_every == 0:
            on_log({"stage": "gaussian", "step": len(heads), "steps": most})
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {"heads": torch.stack(heads)}, {"seconds": str(seconds)})
    return torch.stack(heads), seconds


def _kept(path: Path) -> tuple[list[Tensor], float]:
    if not path.exists():
        return [], 0.0
    try:
        with named_in_utf8(path) as named, safe_open(named, framework="pt") as file:
            return list(file.get_tensor("heads")), float(file.metadata()["seconds"])
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; delete it to begin again") from error
