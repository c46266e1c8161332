from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medddpm.model.fidelity import FidelityDecoder
from medddpm.model.model import load_model
from medddpm.model.shrinkage import Shrinkage
from medddpm.preprocess.degrade import add_noise
from medddpm.preprocess.noise import chi_moments
from medddpm.training.batches import NoisyBatch, Share
from medddpm.training.measured import MeasuredScans
from medddpm.training.options import FidelityOptions
from medddpm.training.selfsupervised import (
    MeasuredStage,
    body,
    repeat_risk,
    rician_moments,
    single_risk,
)

SIGMA = 0.08
Head = Callable[..., NDArray[np.float32]]


def noisy(x: Tensor, seed: int) -> Tensor:
    return add_noise(x, SIGMA, generator=torch.Generator().manual_seed(seed))


def batch_of(y: Tensor, target: Tensor) -> NoisyBatch:
    return NoisyBatch(target, *observation(y))


def observation(y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The scan, its sigma, its spacing, the coils and the colour."""
    return y, torch.full_like(y, SIGMA), torch.ones(1, 3), torch.ones(1).long(), torch.ones(1, 64)


def gap(draws: list[float]) -> tuple[float, float]:
    """The mean of some draws, and its standard error."""
    values = np.array(draws)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


@pytest.fixture
def x(head: Head) -> Tensor:
    """(1, 1, 32, 32, 32), tissue at 4 to 12 times SIGMA in air."""
    return torch.from_numpy(head((32, 32, 32)) / 1000)[None, None]


def test_the_moments_are_those_of_the_law_and_have_a_gradient() -> None:
    signal = torch.linspace(-40, 40, 801, dtype=torch.float32, requires_grad=True)
    mean, variance = rician_moments(signal)
    expected = chi_moments(np.abs(signal.detach().double().numpy()), 2)
    np.testing.assert_allclose(mean.detach(), expected[0], rtol=2e-5)
    np.testing.assert_allclose(variance.detach(), expected[1], atol=2e-3)
    (slope,) = torch.autograd.grad(mean.sum(), signal)
    np.testing.assert_allclose(
        slope.numpy(), np.gradient(expected[0] * 1.0, signal.detach().numpy()), atol=0.03
    )
    assert float(slope[400].abs()) < 1e-6


@pytest.mark.parametrize("signal", [0.0, 1.0, 3.0, 10.0])
def test_a_repeat_tells_the_risk_at_any_signal(signal: float) -> None:
    draws = torch.Generator().manual_seed(0)
    repeats = add_noise(torch.full((200_000,), signal), 1.0, generator=draws)
    for estimate in (0.0, signal, signal + 1.5):
        value = torch.full_like(repeats, estimate)
        found, error = gap(repeat_risk(value, repeats).tolist())
        truth = torch.tensor([estimate, signal])
        mean, variance = rician_moments(truth)
        # The variance is taken at the estimate: exact where the estimate is, and above an SNR of 3.
        wanted = float((mean[0] - mean[1]).square() + variance[1] - variance[0])
        assert abs(found - wanted) < 4 * error


def test_the_expected_single_risk_is_the_risk_of_the_shrinkage(x: Tensor) -> None:
    shrinkage, inside = Shrinkage(), x > 0.2

    def base(y: Tensor) -> Tensor:
        return cast(Tensor, shrinkage(*observation(y)).base / SIGMA)

    truth = rician_moments(x / SIGMA)[0]
    with_it, without = [], []
    probes = torch.Generator().manual_seed(1)
    for seed in range(20):
        y = noisy(x, seed)
        signs = torch.randint(0, 2, x.shape, generator=probes) * 2 - 1
        probe = 0.05 * signs.float()
        here = base(y)
        risk = single_risk(here, base(y + probe * SIGMA), probe, y / SIGMA)
        loss = (rician_moments(here)[0] - truth).square()
        with_it.append(float((risk - loss)[inside].mean()))
        naive = single_risk(here, here, probe, y / SIGMA)
        without.append(float((naive - loss)[inside].mean()))
    bias, error = gap(with_it)
    assert error < 0.005
    assert abs(bias) < 4 * error
    assert gap(without)[0] < -0.1


@pytest.mark.parametrize("objective", ["single", "pairs"])
def test_the_expected_objective_is_the_risk_of_the_whole_method(
    x: Tensor, tiny_weights: Path, objective: Any
) -> None:
    scans = cast(MeasuredScans, SimpleNamespace())
    stage = MeasuredStage(load_model(tiny_weights), scans, FidelityOptions(objective=objective))
    truth = rician_moments(x / SIGMA)[0]
    gaps = []
    for seed in range(12):
        y = noisy(x, seed)
        target = noisy(x, 1000 + seed) if objective == "pairs" else y
        batch = batch_of(y, target)
        # As in training: what bfloat16 rounds off must not pass for divergence.
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            risk, base_risk, estimate = stage.risks(batch, [seed])
        assert not torch.equal(risk, base_risk)
        loss = (rician_moments(estimate)[0] - truth).square()
        gaps.append(float((risk - loss)[x > 0.2].mean()))
    bias, error = gap(gaps)
    assert error < 0.01
    assert abs(bias) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["single", "pairs"])
def test_noisy_scans_teach_what_lowers_the_true_error(
    x: Tensor, tiny_weights: Path, objective: Any
) -> None:
    """Two noisy scans, never the clean one; a third tells. Copying its input reads 1.4 here."""
    first, second = batch_of(noisy(x, 1), noisy(x, 2)), batch_of(noisy(x, 2), noisy(x, 1))

    def draw(rngs: list[np.random.Generator]) -> NoisyBatch:
        [rng] = rngs
        batch = first if rng.random() < 0.5 else second
        axes = [0, 1, *(int(a) + 2 for a in rng.permutation(3))]
        y, repeat = (image.permute(axes).contiguous() for image in (batch.y, batch.x))
        return batch_of(y, repeat if objective == "pairs" else y)

    model = load_model(tiny_weights)
    torch.manual_seed(0)
    model.fidelity = FidelityDecoder(4, 4, (8, 8), 1, 16)
    model.shrinkage = model.fidelity.shrinkage
    scans = cast(MeasuredScans, SimpleNamespace(batch=draw))
    stage = MeasuredStage(model, scans, FidelityOptions(objective=objective, batch=1))
    optimizer = torch.optim.AdamW(model.fidelity.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(40):
        optimizer.zero_grad()
        share = Share(step, 0, 1, 1)
        stage.loss(stage.draw(share), share).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.fidelity.parameters(), 1.0)
        optimizer.step()
    errors = torch.zeros(2)
    for seed in range(50, 53):
        with torch.no_grad():
            _, _, estimate = stage.risks(batch_of(noisy(x, seed), x), [0])
            base = model.observe(*observation(noisy(x, seed))).base
        errors += torch.stack([(i - x)[x > 0.1].square().mean() for i in (estimate * SIGMA, base)])
    assert errors[0] < 0.93 * errors[1]


def test_the_loss_moves_the_decoder_and_nothing_else(x: Tensor, tiny_weights: Path) -> None:
    y = noisy(x, 0)
    batch = batch_of(y, y)
    scans = cast(MeasuredScans, SimpleNamespace())
    model = load_model(tiny_weights).requires_grad_(True)
    stage = MeasuredStage(model, scans, FidelityOptions(objective="single"))
    stage.loss(batch, Share(0, 0, 1, 1)).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in model.fidelity.gains.parameters())
    assert all(p.grad is None for p in model.unet.parameters())
    assert all(p.grad is None for p in model.codec.parameters())


def test_what_was_masked_says_nothing(x: Tensor) -> None:
    y = torch.where(x > 0, noisy(x, 1), 0.0)
    batch = batch_of(y, y)
    inside = body(batch)
    assert not inside[x == 0].any()
    assert inside[x > 0.3].float().mean() > 0.95
    open_air = body(replace(batch, y=noisy(x, 1)))
    far = torch.nn.functional.max_pool3d(x, 7, 1, 3) == 0
    assert open_air[far].float().mean() < 0.1
