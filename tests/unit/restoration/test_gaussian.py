from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medddpm.model.model import load_model
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.restoration.gaussian import denoise_gaussian
from medddpm.restoration.options import RestoreOptions

CPU = torch.device("cpu")
OPTIONS = RestoreOptions(noise="gaussian", tile=32, overlap=8, shifts=1)

LAW = NoiseLaw("gaussian", 1, 0.1)


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bright box on a negative ground, and the same with noise of 0.1."""
    clean = np.full((36, 24, 20), -0.4, np.float32)
    clean[8:28, 6:18, 5:15] = 0.8
    return clean, (clean + rng.normal(0, 0.1, clean.shape)).astype(np.float32)


def test_shrinkage_alone_removes_noise_of_either_sign(
    tiny_weights: Path, rng: np.random.Generator
) -> None:
    clean, noisy = scene(rng)
    done = denoise_gaussian(
        load_model(tiny_weights), noisy, LAW, (1, 1, 1), options=OPTIONS, device=CPU, learned=False
    )
    assert done.shape == clean.shape
    assert done.min() < -0.3  # no magnitude: what is negative stays so
    assert np.mean((done - clean) ** 2) < 0.3 * np.mean((noisy - clean) ** 2)


@pytest.mark.parametrize("learned", [True, False])
def test_a_map_of_one_sigma_is_that_sigma(
    tiny_weights: Path, rng: np.random.Generator, learned: bool
) -> None:
    _, noisy = scene(rng)
    model = load_model(tiny_weights)
    even = np.full(noisy.shape, 0.1, np.float32)
    one, two = (
        denoise_gaussian(
            model,
            noisy,
            replace(LAW, sigma=level),
            (1, 1, 1),
            options=OPTIONS,
            device=CPU,
            learned=learned,
        )
        for level in (0.1, even)
    )
    np.testing.assert_allclose(one, two, atol=1e-4)
