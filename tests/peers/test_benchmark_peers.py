"""The denoisers of other packages, as the benchmark calls them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medddpm.evaluation.metrics import psnr
from medddpm.evaluation.peers import PEERS, peer_version
from medddpm.preprocess.degrade import add_noise

pytestmark = pytest.mark.peers
Image = NDArray[np.float32]
_MODULES = {"bm4d": "bm4d", "nlm": "dipy", "nlm5": "dipy", "ants": "ants"}


@pytest.mark.parametrize("name", list(_MODULES))
def test_a_peer_removes_noise(name: str, head: Callable[..., Image]) -> None:
    pytest.importorskip(_MODULES[name])
    x = head((40, 44, 36)) / np.float32(950)
    restored = PEERS[name](noisy(x, 0.08), 0.08, 1)
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
    assert abs(float((PEERS[name](y, 0.15, 1) - x).mean())) < 0.006 < float((y - x).mean())


def noisy(x: Image, sigma: float) -> Image:
    generator = torch.Generator().manual_seed(0)
    y: Image = add_noise(torch.from_numpy(x), sigma, generator=generator).numpy()
    return y
