"""What a network predicts, and the clean latent that follows from it.

For z = alpha * x0 + sigma * eps with any alpha and sigma:

    eps:   x0 = (z - sigma * eps) / alpha                              (Ho et al. 2020, eq. 15)
    x0:    itself
    v:     v = alpha * eps - sigma * x0                                (Salimans & Ho 2022, app. D)
           x0 = (alpha * z - sigma * v) / (alpha^2 + sigma^2)
    flow:  u = eps - x0,  x0 = (z - sigma * u) / (alpha + sigma)       (Liu et al. 2022, eq. 1)

Only the first divides by something that can be zero. Alpha and sigma are numbers or (B,)
tensors, which broadcast over the batch axis.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from medddpm.errors import ConfigError

Prediction = Literal["eps", "x0", "v", "flow"]
Scalar = float | Tensor
TERMINAL_SHARE: dict[Prediction, float] = {"eps": 0.0, "x0": 1.0, "v": -1.0, "flow": -1.0}
"""How much of x0 is in each prediction where z is all noise."""


def interpolate(x0: Tensor, eps: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
    """The noisy latent z = alpha * x0 + sigma * eps."""
    alpha, sigma = _over_batch(alpha, x0), _over_batch(sigma, x0)
    return alpha * x0 + sigma * eps


def target(x0: Tensor, eps: Tensor, alpha: Scalar, sigma: Scalar, prediction: Prediction) -> Tensor:
    """What a network with this prediction should answer."""
    require_known(prediction)
    alpha, sigma = _over_batch(alpha, x0), _over_batch(sigma, x0)
    if prediction == "eps":
        require_signal(alpha)
        return eps
    if prediction == "x0":
        return x0
    if prediction == "v":
        return alpha * eps - sigma * x0
    return eps - x0


def to_x0(
    output: Tensor, z: Tensor, alpha: Scalar, sigma: Scalar, prediction: Prediction
) -> Tensor:
    """The clean latent that a network's output on `z` stands for."""
    require_known(prediction)
    alpha, sigma = _over_batch(alpha, z), _over_batch(sigma, z)
    if prediction == "eps":
        require_signal(alpha)
        return (z - sigma * output) / alpha
    if prediction == "x0":
        return output
    if prediction == "v":
        return (alpha * z - sigma * output) / (alpha**2 + sigma**2)
    return (z - sigma * output) / (alpha + sigma)


def to_eps(x0: Tensor, z: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
    """The noise that is left in `z` once alpha * x0 is taken out; needs sigma > 0."""
    alpha, sigma = _over_batch(alpha, z), _over_batch(sigma, z)
    if _any_zero(sigma):
        raise ConfigError("the clean level holds no noise, so eps is not defined there")
    return (z - alpha * x0) / sigma


def require_known(prediction: str) -> None:
    """Raise ConfigError unless `prediction` is one of those of this module."""
    if prediction not in get_args(Prediction):
        raise ConfigError(
            f"prediction {prediction!r} is unknown, use one of {list(get_args(Prediction))}"
        )


def require_signal(alpha: Scalar) -> None:
    """Raise ConfigError where alpha is 0: from pure noise, eps says nothing of x0."""
    if _any_zero(alpha):
        raise ConfigError(
            "eps prediction is undefined at zero SNR (alpha = 0); predict v, x0 or flow, "
            "or set zero_terminal_snr to false"
        )


def _any_zero(value: Scalar) -> bool:
    return bool((value == 0).any()) if isinstance(value, Tensor) else value == 0


def _over_batch(value: Scalar, like: Tensor) -> Scalar:
    """A (B,) tensor as (B, 1, ..., 1) in the dtype and on the device of `like`."""
    if not isinstance(value, Tensor):
        return value
    dtype = torch.promote_types(like.dtype, torch.float32)
    value = value.to(device=like.device, dtype=dtype)
    return value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim == 1 else value
