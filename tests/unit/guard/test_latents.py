"""What the latents of a scan say about how familiar it is."""

from __future__ import annotations

import numpy as np
import pytest

from medddpm.guard.latents import latent_features, latent_mask


def test_features_are_the_mean_and_the_log_spread_inside() -> None:
    rng = np.random.default_rng(0)
    latents = rng.normal([[1.0], [-2.0]], [[0.5], [2.0]], (2, 20000)).astype(np.float32)
    inside = np.arange(20000) < 15000
    latents[:, ~inside] = 99
    found = latent_features(latents, inside)
    assert found == pytest.approx([1.0, -2.0, np.log(0.5), np.log(2.0)], abs=0.05)
    assert latent_features(latents, np.arange(20000) < 10) is None


def test_only_blocks_in_the_body_count() -> None:
    mask = np.zeros((9, 8, 8), bool)
    mask[:4, :4, :4] = True
    mask[4:6] = True  # half of each block
    found = latent_mask(mask, 4)
    assert found.shape == (2, 2, 2)
    assert found.sum() == 1
    assert found[0, 0, 0]
