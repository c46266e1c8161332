"""Sixteen ellipsoid heads, and tiny networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from unit.generation.conftest import ellipsoid

from medddpm.comparison.methods import Trained
from medddpm.comparison.scene import Scene
from medddpm.generation.heads import placed

SETTINGS = (
    "prior.shape=[32,32,32]",
    "prior.spacing=6",
    "prior.faces=keep",  # an ellipsoid fills the place of a face
    "prior.channels=[8,8]",
    "prior.embedding_width=16",
    "prior.batch=2",
    "train.warmup=1",
    "train.log_every=2",
    "train.validate_every=4",
    "train.device=cpu",
    'train.bf16="off"',
    "data.holdout=[sub-15*,sub-16*]",
)
ONE_HEAD = f"{__name__}:one_head"


@pytest.fixture(scope="session")
def many_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of sixteen subjects, 4 mm."""
    import nibabel as nib
    import numpy as np

    folder = tmp_path_factory.mktemp("many")
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    for subject in range(1, 17):
        image = nib.nifti1.Nifti1Image(ellipsoid(subject), affine)
        nib.save(image, folder / f"sub-{subject:02d}_T1w.nii.gz")
    return folder


@pytest.fixture(scope="session")
def scene(
    many_heads: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Scene]:
    """The task of every method, with so many steps."""
    from medddpm.comparison.options import CompareOptions
    from medddpm.comparison.run import opened
    from medddpm.config import load_config
    from medddpm.generation.train import heads_of
    from medddpm.model.model import load_model

    config = load_config(None, SETTINGS)
    cache = tmp_path_factory.mktemp("packed")
    halves = heads_of(many_heads, cache, config.prior, config.data.holdout)
    options = CompareOptions(steps=2, draw_steps=2)
    made, _ = opened(halves, load_model(tiny_weights), config, options)
    return lambda steps: replace(made, prior=replace(made.prior, steps=steps))


def one_head(scene: Scene, folder: Path, on_log: Any) -> Trained:
    """A generator that has collapsed: it knows one training head, and draws it with a whisper."""
    del folder, on_log
    stage = scene.stage(scene.network())
    known = stage.standardised(placed(scene.halves.train[0], scene.prior))

    def draw(seed: int) -> torch.Tensor:
        return stage.prior.image(known + 0.01 * stage.noise(1, seed))

    return Trained(draw, known.numel(), steps=0, minutes=0.0, calls=0, about="one head")
