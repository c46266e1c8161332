from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from medddpm.diffusion.denoiser import as_denoiser, classifier_free
from medddpm.diffusion.prediction import Prediction, interpolate, target
from medddpm.diffusion.schedule import NoiseLevel
from medddpm.errors import ConfigError

LEVEL = NoiseLevel(0.6, 0.8)
ZERO_SNR = NoiseLevel(0.0, 1.0)


class _Recorder:
    """A network that remembers its arguments and knows the answer."""

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *args: Any) -> Tensor:
        self.calls.append(args)
        return self.answer


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_network_is_given_its_conditions() -> None:
    network = _Recorder(torch.zeros(3, 4, 2, 2, 2))
    cond = _randn(1, 5, 2, 2, 2)
    denoise = as_denoiser(network, "x0", cond=cond, conditions=torch.tensor([[0.5, 1.0, 5.0]]))
    z = _randn(3, 4, 2, 2, 2)
    denoise(z, ZERO_SNR)
    got_z, angle, got_cond, conditions = network.calls[0]
    assert torch.equal(got_z, z)
    torch.testing.assert_close(angle, torch.full((3,), math.pi / 2))
    assert torch.equal(got_cond, cond.expand(3, 5, 2, 2, 2))
    assert conditions.tolist() == [[0.5, 1.0, 5.0]] * 3


def test_conditions_may_differ_over_the_batch() -> None:
    network = _Recorder(torch.zeros(2, 1, 2, 2, 2))
    conditions = torch.tensor([[0.05, 1.0], [0.1, 2.0]])
    denoise = as_denoiser(network, "x0", cond=_randn(2, 1, 2, 2, 2), conditions=conditions)
    denoise(_randn(2, 1, 2, 2, 2), LEVEL)
    assert torch.equal(network.calls[0][3], conditions)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "flow"])
def test_every_prediction_becomes_x0(prediction: Prediction) -> None:
    x0, eps = _randn(1, 2, 3, 3, 3), _randn(1, 2, 3, 3, 4)[..., :3]
    z = interpolate(x0, eps, LEVEL.alpha, LEVEL.sigma)
    network = _Recorder(target(x0, eps, LEVEL.alpha, LEVEL.sigma, prediction))
    denoise = as_denoiser(network, prediction, cond=z, conditions=torch.ones(1, 4))
    torch.testing.assert_close(denoise(z, LEVEL), x0)


def test_eps_network_is_refused_at_zero_snr() -> None:
    z = _randn(1, 1, 2, 2, 2)
    denoise = as_denoiser(_Recorder(z), "eps", cond=z, conditions=torch.ones(1, 4))
    with pytest.raises(ConfigError, match="zero SNR"):
        denoise(z, ZERO_SNR)


def test_unknown_prediction_is_refused_when_the_denoiser_is_made() -> None:
    z = _randn(1, 1, 2, 2, 2)
    with pytest.raises(ConfigError, match="'score'"):
        as_denoiser(_Recorder(z), "score", cond=z, conditions=torch.ones(1, 4))  # type: ignore[arg-type]


def _constant(value: float) -> _Recorder:
    return _Recorder(torch.full((1, 1, 1, 1, 1), value))


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 2.0), (0.5, 2.5), (1.0, 3.0), (4.0, 6.0)])
def test_classifier_free_guidance_is_linear_in_its_weight(weight: float, expected: float) -> None:
    z = torch.zeros(1, 1, 1, 1, 1)
    denoise = classifier_free(_constant(3.0), _constant(2.0), weight)
    assert denoise(z, LEVEL).item() == pytest.approx(expected)


def test_weight_one_is_the_conditional_denoiser_alone() -> None:
    conditional, unconditional = _constant(3.0), _constant(math.nan)
    denoise = classifier_free(conditional, unconditional, 1.0)
    assert denoise is conditional
    denoise(torch.zeros(1, 1, 1, 1, 1), LEVEL)
    assert len(conditional.calls) == 1
    assert unconditional.calls == []
