"""The denoisers of other packages, as the benchmark calls them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medddpm.benchmark.peers import PEERS, peer_version
from medddpm.metrics.scores import psnr
from medddpm.preprocess.acquisition import Acquisition, acquire
from medddpm.preprocess.degrade import add_noise
from medddpm.preprocess.noise_law import WHITE, Colour, NoiseLaw
from medddpm.preprocess.simulated_scan import ELLIPSE

pytestmark = pytest.mark.peers
Image = NDArray[np.float32]
_MODULES = {"bm4d": "bm4d", "nlm": "dipy", "nlm5": "dipy", "ants": "ants"}


@pytest.mark.parametrize("name", list(_MODULES))
def test_a_peer_removes_noise(name: str, head: Callable[..., Image]) -> None:
    pytest.importorskip(_MODULES[name])
    x = head((40, 44, 36)) / np.float32(950)
    restored = PEERS[name](noisy(x, 0.08), NoiseLaw("rician", 1, 0.08))
    assert restored.shape == x.shape
    assert restored.dtype == np.float32
    inside = x > 0.2
    assert psnr(x, restored, 1.0, inside) > psnr(x, noisy(x, 0.08), 1.0, inside) + 4
    assert peer_version(name)


@pytest.mark.parametrize("name", ["bm4d", "nlm", "nlm5"])
def test_a_peer_removes_the_bias_of_the_noise(name: str) -> None:
    pytest.importorskip(_MODULES[name])
    x = np.full((32, 32, 32), 0.5, np.float32)
    y = noisy(x, 0.15)
    restored = PEERS[name](y, NoiseLaw("rician", 1, 0.15))
    assert abs(float((restored - x).mean())) < 0.006 < float((y - x).mean())


@pytest.mark.parametrize(
    "acquisition",
    [ELLIPSE, Acquisition(0.0, matrix=(0.8, 0.7, 1.0), filter="hann", filter_strength=0.8)],
)
def test_bm4d_is_better_where_it_knows_the_spectrum(
    acquisition: Acquisition, head: Callable[..., Image], rng: np.random.Generator
) -> None:
    pytest.importorskip("bm4d")
    x = head((40, 44, 36)) / np.float32(950)
    made = acquire(x, replace(acquisition, sigma=0.06), rng)
    told = PEERS["bm4d"](made.noisy, made.law)
    white = PEERS["bm4d"](made.noisy, replace(made.law, colour=WHITE))
    inside = x > 0.2
    assert psnr(made.clean, told, 1.0, inside) > psnr(made.clean, white, 1.0, inside) + 0.5
    assert psnr(made.clean, told, 1.0, inside) > psnr(made.clean, made.noisy, 1.0, inside) + 3


def test_a_flat_spectrum_is_white_noise(head: Callable[..., Image]) -> None:
    """Of the same power whether it is told as one number or as a spectrum."""
    pytest.importorskip("bm4d")
    y = noisy(head((32, 32, 32)) / np.float32(950), 0.08)
    almost = Colour(window=((1.0, 0.999), (1.0,), (1.0,)))
    one, two = (PEERS["bm4d"](y, NoiseLaw("rician", 1, 0.08, c)) for c in (WHITE, almost))
    np.testing.assert_allclose(one, two, atol=0.02)
    assert float(np.abs(one - two).mean()) < 0.05 * float(np.abs(y - one).mean())


def noisy(x: Image, sigma: float) -> Image:
    generator = torch.Generator().manual_seed(0)
    y: Image = add_noise(torch.from_numpy(x), sigma, generator=generator).numpy()
    return y
