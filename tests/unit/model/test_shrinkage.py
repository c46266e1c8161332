from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from torch import Tensor

from medddpm.model.shrinkage import Evidence, Shrinkage
from medddpm.preprocess.degrade import add_noise
from medddpm.preprocess.noise_law import NoiseLaw

NO_BIAS = torch.tensor([0])
RICIAN = torch.tensor([1])


def number(sigma: float) -> Tensor:
    return torch.full((1, 1, 1, 1, 1), sigma)


def shrunk(y: Tensor, sigma: Tensor, coils: Tensor) -> Tensor:
    evidence: Evidence = Shrinkage()(y, sigma, torch.ones(len(y), 3), coils)
    return evidence.base


def scene(size: int = 24) -> Tensor:
    """Two flat halves and a grating, (1, 1, size, size, size)."""
    x = torch.full((1, 1, size, size, size), 0.4)
    x[:, :, size // 2 :] = 0.8
    x += 0.1 * torch.sin(torch.arange(size) * 0.5)
    return x


def by_hand(y: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Both passes with scipy, one block after the other."""

    def averaged(
        image: NDArray[np.float64], pilot: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        padded = np.pad(image, 4, mode="reflect")
        guide = padded if pilot is None else np.pad(pilot, 4, mode="reflect")
        total, weight = np.zeros_like(padded), np.zeros_like(padded)
        starts = np.arange(0, padded.shape[0] - 5, 2)
        for corner in np.stack(np.meshgrid(starts, starts, starts), -1).reshape(-1, 3):
            for place in (0, 1):
                box = tuple(slice(c + place, c + place + 4) for c in corner)
                c, g = (dctn(a[box], norm="ortho") / sigma for a in (padded, guide))
                odds = (g / 2.7) ** 8 if pilot is None else g**2
                gain = odds / (odds + 1)
                gain[0, 0, 0] = 1
                total[box] += idctn(gain * c, norm="ortho") * sigma / gain.sum()
                weight[box] += 1 / gain.sum()
        inside = (slice(4, -4),) * 3
        return total[inside] / weight[inside]

    return averaged(y, averaged(y, None))


def test_it_is_the_two_pass_filter_of_its_source() -> None:
    torch.manual_seed(0)
    y = scene(12) + 0.05 * torch.randn(1, 1, 12, 12, 12)
    ours = shrunk(y, number(0.05), NO_BIAS)[0, 0].numpy()
    np.testing.assert_allclose(ours, by_hand(y[0, 0].double().numpy(), 0.05), atol=2e-5)


def test_without_noise_it_returns_the_scan() -> None:
    y = scene()
    torch.testing.assert_close(shrunk(y, number(1e-5), RICIAN), y, atol=1e-4, rtol=0)


def test_it_removes_most_of_the_noise_and_little_else() -> None:
    torch.manual_seed(1)
    x = scene(32)
    y = x + 0.05 * torch.randn_like(x)
    assert (shrunk(y, number(0.05), NO_BIAS) - x).std() < 0.25 * 0.05


@pytest.mark.parametrize(("kind", "coils"), [("rician", 1), ("ncchi", 4), ("gaussian", 1)])
def test_the_bias_of_the_noise_is_gone(kind: str, coils: int) -> None:
    x = torch.full((1, 1, 32, 32, 32), 0.5)
    generator = torch.Generator().manual_seed(2)
    y = add_noise(x, 0.06, law=NoiseLaw(kind, coils), generator=generator)  # type: ignore[arg-type]
    number_of = torch.tensor([NoiseLaw(kind, coils).num_coils])  # type: ignore[arg-type]
    estimate = shrunk(y, number(0.06), number_of)
    assert abs(float(estimate.mean()) - 0.5) < 0.002
    if kind != "gaussian":
        assert float(y.mean()) - 0.5 > 0.003


def test_a_voxel_does_not_depend_on_the_tile_it_was_in() -> None:
    torch.manual_seed(3)
    y = scene(32) + 0.05 * torch.randn(1, 1, 32, 32, 32)
    whole = shrunk(y, number(0.05), RICIAN)[..., 16:24, 16:24, 16:24]
    part = shrunk(y[..., 6:, 6:, 6:], number(0.05), RICIAN)[..., 10:18, 10:18, 10:18]
    torch.testing.assert_close(part, whole, atol=1e-5, rtol=0)


def test_bfloat16_costs_little() -> None:
    torch.manual_seed(4)
    y = scene() + 0.01 * torch.randn(1, 1, 24, 24, 24)
    exact = shrunk(y, number(0.01), NO_BIAS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast = shrunk(y, number(0.01), NO_BIAS)
    assert (fast - exact).std() < 0.03 * 0.01


def test_a_constant_map_is_the_same_as_its_number_and_a_map_matters() -> None:
    torch.manual_seed(5)
    y = scene() + 0.05 * torch.randn(1, 1, 24, 24, 24)
    flat = shrunk(y, number(0.05), RICIAN)
    torch.testing.assert_close(shrunk(y, torch.full_like(y, 0.05), RICIAN), flat)
    sigma = torch.full_like(y, 0.05)
    sigma[:, :, :12] = 1e-5
    mixed = shrunk(y, sigma, RICIAN)
    torch.testing.assert_close(mixed[:, :, :6], y[:, :, :6], atol=1e-4, rtol=0)
    torch.testing.assert_close(mixed[:, :, 18:], flat[:, :, 18:])


@pytest.mark.parametrize("coils", [1, 4])
def test_air_comes_out_dark(coils: int) -> None:
    """Pure noise has a mean of 1.25 sigma or more, and no signal."""
    kind = "rician" if coils == 1 else "ncchi"
    generator = torch.Generator().manual_seed(6)
    y = add_noise(
        torch.zeros(1, 1, 32, 32, 32), 0.05, law=NoiseLaw(kind, coils), generator=generator
    )  # type: ignore[arg-type]
    air = shrunk(y, number(0.05), torch.tensor([coils]))
    assert float(y.mean()) > 1.2 * 0.05
    assert float(air.square().mean().sqrt()) < 0.6 * 0.05


def test_each_scan_of_a_batch_has_its_own_law() -> None:
    torch.manual_seed(7)
    y = (scene().expand(2, -1, -1, -1, -1) + 0.05 * torch.randn(2, 1, 24, 24, 24)).abs()
    sigma = torch.tensor([0.05, 0.02])[:, None, None, None, None]
    both = shrunk(y, sigma, torch.tensor([0, 2]))
    for i, coils in enumerate((0, 2)):
        alone = shrunk(y[i : i + 1], sigma[i : i + 1], torch.tensor([coils]))
        torch.testing.assert_close(both[i : i + 1], alone)


def test_learned_gains_turn_the_filter_up_and_down() -> None:
    torch.manual_seed(8)
    y = scene() + 0.05 * torch.randn(1, 1, 24, 24, 24)
    shrinkage = Shrinkage()
    evidence: Evidence = shrinkage(y, number(0.05), torch.ones(1, 3), NO_BIAS)

    def removed(odds: float, weight: float) -> Tensor:
        gains = torch.full((*evidence.power.shape[:4], 130), odds)
        gains[..., 128:] = weight
        return shrinkage.removed(evidence.coefficients, evidence.power, evidence.colour, gains)

    torch.testing.assert_close(removed(0, 0), evidence.removed)
    torch.testing.assert_close(removed(0, 2), evidence.removed)  # only ratios of weights count
    assert removed(1, 0).std() < evidence.removed.std() < removed(-1, 0).std()
    assert removed(50, 0).std() < 0.2 * evidence.removed.std()  # a factor has its limit


def test_what_was_removed_is_the_difference_in_units_of_sigma() -> None:
    torch.manual_seed(9)
    y = scene() + 0.05 * torch.randn(1, 1, 24, 24, 24)
    evidence: Evidence = Shrinkage()(y, number(0.05), torch.ones(1, 3), NO_BIAS)
    torch.testing.assert_close(y - 0.05 * evidence.removed, evidence.base)


@pytest.mark.parametrize("power", [0.3, 1.0, 5.0])
def test_a_draw_has_the_power_of_the_signal(power: float) -> None:
    """White signal in white noise of sigma 1, whose Wiener gain is known."""
    torch.manual_seed(10)
    shape = (1, 1, 48, 48, 48)
    x = power**0.5 * torch.randn(shape)
    y = x + torch.randn(shape)
    shrinkage = Shrinkage()
    evidence: Evidence = shrinkage(y, number(1.0), torch.ones(1, 3), NO_BIAS)
    odds = torch.full_like(evidence.power, power)
    gains = torch.zeros((*odds.shape[:4], 130))
    mean = y - shrinkage.removed(evidence.coefficients, odds, evidence.colour, gains)
    texture = shrinkage.texture(torch.randn(shape), odds, evidence.colour, gains)
    kept = 63 / 64 * power / (1 + power) + 1 / 64  # the mean of a block is kept whole
    torch.testing.assert_close(texture.var(), torch.tensor(kept), rtol=0.05, atol=0)
    draw = float((mean + texture).var())
    assert draw == pytest.approx(power + 2 / 64, rel=0.05)
    assert float((mean - x).var()) == pytest.approx(float(texture.var()), rel=0.05)
