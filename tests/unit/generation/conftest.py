"""A tiny prior, trained on six ellipsoid heads for four steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

SETTINGS = (
    "prior.shape=[32,32,32]",
    "prior.spacing=6",
    "prior.faces=keep",  # an ellipsoid fills the place of a face
    "prior.channels=[8,8]",
    "prior.coarse_channels=[8,8]",
    "prior.embedding_width=16",
    "prior.steps=4",
    "prior.detail_steps=2",
    "prior.finer_steps=2",
    "train.warmup=1",
    "train.log_every=2",
    "train.validate_every=4",
    "data.holdout=[sub-05*,sub-06*]",
)


def ellipsoid(seed: int) -> NDArray[np.float32]:
    """A head of 36 x 44 x 36 voxels, each with axes and a dark core of its own."""
    rng = np.random.default_rng(seed)
    axes = np.array([13.0, 17.0, 13.0]) * rng.uniform(0.8, 1.1, 3)
    place = np.stack(np.meshgrid(*(np.arange(n) - n / 2 for n in (36, 44, 36)), indexing="ij"), -1)
    head = (np.square(place / axes).sum(-1) < 1) * rng.uniform(700, 1000)
    core = rng.normal(0, 3, 3)
    head[np.square((place - core) / (axes / 3)).sum(-1) < 1] = 300
    return head.astype(np.float32)


@pytest.fixture(scope="session")
def heads_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scans of as many subjects, 4 mm, in LAS; and one of another contrast."""
    import nibabel as nib

    folder = tmp_path_factory.mktemp("heads")
    affine = np.diag([-4.0, 4.0, 4.0, 1.0])
    for subject in range(1, 7):
        image = nib.nifti1.Nifti1Image(ellipsoid(subject), affine)
        nib.save(image, folder / f"sub-{subject:02d}_T1w.nii.gz")
    nib.save(nib.nifti1.Nifti1Image(ellipsoid(9), affine), folder / "sub-09_FLAIR.nii.gz")
    return folder


@pytest.fixture(scope="session")
def prior_run(heads_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the prior in it."""
    from medddpm.config import load_config
    from medddpm.workflows import train

    out = tmp_path_factory.mktemp("prior")
    config = load_config(None, SETTINGS)
    train("prior", data=heads_folder, out=out, config=config)
    return out


@pytest.fixture
def with_threshold(prior_run: Path, tmp_path: Path) -> Callable[[float], Path]:
    """The prior's file with another threshold of likeness."""
    from dataclasses import replace

    from medddpm.generation.prior_file import load_prior, save_prior

    def write(threshold: float) -> Path:
        trained: Any = load_prior(prior_run / "prior.safetensors")
        card = trained.card.model_copy(update={"threshold": threshold})
        save_prior(tmp_path / "other.safetensors", replace(trained, card=card))
        return tmp_path / "other.safetensors"

    return write
