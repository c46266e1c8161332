"""The Haar transform: its channels, and its inverse."""

from __future__ import annotations

import torch

from medddpm.model.wavelet import haar, image_of


def test_transform_is_orthonormal_and_comes_back() -> None:
    x = torch.randn(2, 1, 8, 6, 4, generator=torch.Generator().manual_seed(0))
    z = haar(x)
    assert z.shape == (2, 8, 4, 3, 2)
    assert torch.allclose(z.square().sum(), x.square().sum())
    assert torch.allclose(image_of(z), x, atol=1e-6)


def test_channels_are_sum_and_differences_along_the_axes() -> None:
    x, y, z = torch.meshgrid(*[torch.arange(4.0)] * 3, indexing="ij")
    image = (x + 10 * y + 100 * z)[None, None]
    found = haar(image)[0, :, 0, 0, 0] / 8**0.5
    block = image[0, 0, :2, :2, :2].mean()
    # channels count in binary, x first; a ramp has no mixed differences
    assert torch.allclose(found[[0, 1, 2, 4]], torch.stack([block, *-torch.tensor([50.0, 5, 0.5])]))
    assert float(found[[3, 5, 6, 7]].abs().max()) < 1e-4


def test_lower_precision_around_it_adds_no_noise() -> None:
    x = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = haar(x)
        back = image_of(found)
    assert torch.equal(found, haar(x))
    assert torch.allclose(back, x, atol=1e-6)
