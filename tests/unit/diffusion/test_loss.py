from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medddpm.diffusion.loss import diffusion_loss, min_snr_weight, sample_levels
from medddpm.diffusion.prediction import Prediction, interpolate, to_x0
from medddpm.diffusion.schedule import Schedule
from medddpm.errors import ConfigError

PREDICTIONS = ["eps", "x0", "v", "flow"]


def _levels() -> tuple[Tensor, Tensor]:
    return Schedule("cosine", 100).levels_tensor()


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("kind", ["linear", "rectified_flow"])
def test_weights_are_finite_from_pure_noise_to_clean(kind: str, prediction: Prediction) -> None:
    alpha, sigma = Schedule(kind).levels_tensor()  # type: ignore[arg-type]
    alpha = torch.cat([alpha, torch.ones(1, dtype=torch.float64)])
    sigma = torch.cat([sigma, torch.zeros(1, dtype=torch.float64)])
    weight = min_snr_weight(alpha, sigma, prediction)
    assert torch.isfinite(weight).all()
    assert (weight >= 0).all()
    assert weight[-2] > 0  # pure noise trains


def test_weights_without_a_floor_are_the_papers() -> None:
    alpha, sigma = _levels()
    snr = (alpha / sigma) ** 2
    clamped = snr.clamp(max=5.0)
    x0, v, eps = (min_snr_weight(alpha, sigma, p, floor=0.0) for p in ("x0", "v", "eps"))
    torch.testing.assert_close(x0, clamped)
    torch.testing.assert_close(v, clamped / (snr + 1))
    torch.testing.assert_close(eps[:-1], (clamped / snr)[:-1])
    assert eps[-1] == 1
    assert x0[-1] == v[-1] == 0


def test_the_floor_counts_pure_noise_fully() -> None:
    alpha, sigma = _levels()
    assert min_snr_weight(alpha, sigma, "x0")[-1] == 1
    assert min_snr_weight(alpha, sigma, "v")[-1] == 1
    assert min_snr_weight(alpha, sigma, "flow")[-1] == 1


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
@pytest.mark.parametrize("level", [(0.9, 0.3), (0.8, 0.6), (0.6, 0.4)])
def test_a_weighted_error_is_the_weighted_error_of_x0(
    prediction: Prediction, level: tuple[float, float]
) -> None:
    alpha, sigma = (torch.tensor([a], dtype=torch.float64) for a in level)
    generator = torch.Generator().manual_seed(0)
    z, first, second = torch.randn(3, 1, 2, 2, 2, 2, generator=generator, dtype=torch.float64)
    ours, theirs = (to_x0(output, z, alpha, sigma, prediction) for output in (first, second))
    own = diffusion_loss(first, second, min_snr_weight(alpha, sigma, prediction, 3.0, 0.0))
    of_x0 = diffusion_loss(ours, theirs, min_snr_weight(alpha, sigma, "x0", 3.0, 0.0))
    torch.testing.assert_close(own, of_x0)


def test_bad_clamps_are_refused() -> None:
    alpha, sigma = _levels()
    with pytest.raises(ConfigError, match="floor <= gamma"):
        min_snr_weight(alpha, sigma, "v", gamma=0.5)


def test_the_loss_weighs_each_item() -> None:
    output, target = torch.zeros(2, 1, 2, 2, 2), torch.ones(2, 1, 2, 2, 2)
    target[1] *= 3
    weight = torch.tensor([4.0, 2.0], dtype=torch.float64)
    assert diffusion_loss(output, target, weight).item() == pytest.approx((4 * 1 + 2 * 9) / 2)


def test_the_loss_is_summed_in_float32() -> None:
    output = torch.full((1, 1, 20, 20, 20), 300.0, dtype=torch.float16)
    loss = diffusion_loss(output, torch.zeros_like(output), torch.ones(1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(9e4)


def test_interpolated_float64_levels_leave_the_latent_float32() -> None:
    alpha, sigma = sample_levels(Schedule(), 2, generator=torch.Generator().manual_seed(0))
    x0 = torch.ones(2, 1, 2, 2, 2)
    assert interpolate(x0, x0, alpha, sigma).dtype == torch.float32


def test_a_share_of_the_batch_is_terminal() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = []
    for _ in range(400):
        alpha, _ = sample_levels(
            Schedule("linear", 1000), 6, terminal_fraction=0.25, generator=generator
        )
        counts.append(int((alpha == 0).sum()))
    assert set(counts) <= {1, 2, 3}  # 1.5 up or down, and now and then one of the others
    assert sum(counts) / 400 == pytest.approx(1.5, abs=0.1)


def test_all_or_none_terminal() -> None:
    schedule, generator = Schedule("linear", 10**5), torch.Generator().manual_seed(0)
    alpha, sigma = sample_levels(schedule, 5, terminal_fraction=1.0, generator=generator)
    assert alpha.tolist() == [0.0] * 5
    assert sigma.tolist() == [1.0] * 5
    alpha, _ = sample_levels(schedule, 5, terminal_fraction=0.0, generator=generator)
    assert (alpha > 0).all()


def test_levels_are_stratified_and_shuffled() -> None:
    schedule, generator = Schedule("rectified_flow", 1000), torch.Generator().manual_seed(0)
    draws = [sample_levels(schedule, 10, generator=generator)[1] for _ in range(50)]
    for sigma in draws:
        assert sigma.dtype == torch.float64
        tenths = ((sigma - 0.0005) * 10).floor().sort().values
        assert tenths.tolist() == list(range(10))
    assert any((sigma.diff() < 0).any() for sigma in draws)
    assert len(torch.cat(draws).unique()) > 300  # uniform within each part
    firsts = torch.stack([sigma[0] for sigma in draws])
    assert firsts.min() < 0.2
    assert firsts.max() > 0.8


def test_levels_repeat_with_the_seed() -> None:
    first, second = (
        sample_levels(
            Schedule(), 4, terminal_fraction=0.5, generator=torch.Generator().manual_seed(7)
        )
        for _ in range(2)
    )
    assert torch.equal(first[0], second[0])


def test_an_impossible_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="terminal_fraction"):
        sample_levels(Schedule(), 2, terminal_fraction=1.5, generator=torch.Generator())
