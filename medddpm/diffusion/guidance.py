"""Guidance by the measurement: the likelihood of a noisy scan pulls on the denoised latent.

With y the scan, x the noise-free image, sigma the noise of each real and imaginary channel,
n the number of coils (1: Rician, Rice 1944) and z = x * y / sigma^2, a magnitude image has
the non-central chi density (Constantinides et al. 1997, eq. 4)

    p(y | x) = y^n / (sigma^2 x^(n-1)) exp(-(x^2 + y^2) / (2 sigma^2)) I_{n-1}(z)

in which x^(n-1) and I_{n-1} both vanish at x = 0 and I_{n-1} overflows at high SNR. Both go
once it is written with g_m(z) = log(I_m(z) z^-m) - z, a smooth and slowly varying function:

    log p = (2n - 1) log y - 2n log sigma - (y - x)^2 / (2 sigma^2) + g_{n-1}(z)
    d/dx log p = (y - x) / sigma^2 + y / sigma^2 * (I_n(z) / I_{n-1}(z) - 1)

That is white noise. Where neighbours share it, with the spectrum S of mean 1, the covariance is
sigma F^H S F sigma, and the gradient in units of 1 / sigma is divided by S frequency by
frequency: exact for Gaussian noise, and for a magnitude as far as it is nearly so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medddpm.diffusion.denoiser import Denoiser
from medddpm.diffusion.schedule import NoiseLevel
from medddpm.errors import ConfigError
from medddpm.preprocess.noise_law import RICIAN, NoiseLaw

_LEAST_POWER = 0.1
"""Of the mean: where there is next to no noise, a scan is not believed without bound."""
_RATIO_TERMS = 32
_PROBE_RMS = 1e-2


def log_likelihood(
    x: Tensor,
    y: Tensor,
    sigma: float | Tensor,
    law: NoiseLaw = RICIAN,
) -> Tensor:
    """The log of p(y | x), summed over all but the batch axis, (B,).

    Args:
        x: (B, ...), noise-free image. The magnitude kinds depend on |x| only.
        y: The noisy scan, in the shape of x. Minus infinity where a magnitude is 0 or less,
            which it never is; the gradient with respect to x stays finite.
        sigma: Noise in the units of x, a number or a map that broadcasts to x.
        law: Kind and coils of the noise.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, y = x.to(dtype), y.to(dtype)
    sigma = torch.as_tensor(sigma, dtype=dtype, device=x.device)
    if not bool((sigma > 0).all()):
        raise ConfigError("the likelihood of a scan needs sigma > 0 everywhere")
    n = law.num_coils
    if n == 0:
        log_p = -(((y - x) / sigma) ** 2) / 2 - sigma.log() - math.log(2 * math.pi) / 2
    else:
        x = x.abs()
        log_p = (2 * n - 1) * y.clamp(min=0).log() - 2 * n * sigma.log()
        log_p = log_p - ((y - x) / sigma) ** 2 / 2 + log_bessel(x * y / sigma**2, n - 1)
    return log_p.flatten(1).sum(1)


def log_bessel(z: Tensor, order: int) -> Tensor:
    """g_m(z) = log(I_m(z) z^-m) - |z|, for order m >= 0; finite for every finite z."""
    result: Tensor = _LogBessel.apply(z.abs(), order)  # type: ignore[no-untyped-call]
    return result


def guided(
    denoiser: Denoiser,
    decode: Callable[[Tensor], Tensor],
    y: Tensor,
    sigma: float | Tensor,
    *,
    law: NoiseLaw = RICIAN,
    scale: float = 1.0,
) -> Denoiser:
    """A denoiser whose x0 is moved towards the measurement.

        x0' = x0 + scale * s * g,    g = grad_x0 log p(y | D(x0))
        s = r^2 / (1 + r^2 * k),     k = |J g / sigma|^2 / |g|^2

    Tweedie's formula for p(z | y) adds Cov[x0 | z] grad log p(y | z) to x0 (Chung et al. 2023).
    For unit latents the covariance is taken as r^2 = sigma_z^2 / (alpha_z^2 + sigma_z^2) times
    the identity (Song et al. 2023, section 3.3), which also replaces the Jacobian of the
    U-Net: backpropagation stops at x0 and costs one decoder pass, where DPS needs the
    activations of the whole U-Net. s is the exact minimiser along g of the quadratic model
    (J the decoder's Jacobian, 1 / sigma^2 no less than the Fisher information of any kind), so
    it neither overshoots at low noise nor needs tuning. For a linear decoder with equal
    singular values and Gaussian noise, scale 1 is the exact posterior mean. A conditional
    model has seen y already; scales below 1 count it less twice.

    Args:
        denoiser: What is guided.
        decode: Latent (B, C, X, Y, Z) to image, differentiable, in float32 or better.
        y: The noisy scan, in the shape of an image of the batch.
        sigma: Its noise, in units of the decoded image, a number or a map.
        law: Its kind, coils and colour, on the grid of the image.
        scale: 0 is no guidance.
    """
    if scale == 0:
        return denoiser

    def denoise(z: Tensor, level: NoiseLevel) -> Tensor:
        x0 = denoiser(z, level)
        device = x0.device.type  # differences of the decoder need more than autocast's digits
        with torch.inference_mode(False), torch.autocast(device, enabled=False):
            guess, scan, noise = (_copy(tensor, x0) for tensor in (x0, y, sigma))
            weights = _weights(law, scan)
            image, gradient = _gradient(guess, decode, scan, noise, law, weights)
            curvature = _curvature(guess, gradient, image, decode, noise, weights)
        r2 = level.sigma**2 / (level.alpha**2 + level.sigma**2)
        step: Tensor = scale * r2 / (1 + r2 * curvature)
        return x0 + step * gradient

    return denoise


def _copy(value: float | Tensor, like: Tensor) -> Tensor:
    """A copy on the device of `like`, in float32 or better, that autograd may keep."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.as_tensor(value).detach().to(like.device, dtype, copy=True)


def _gradient(
    x0: Tensor,
    decode: Callable[[Tensor], Tensor],
    y: Tensor,
    sigma: Tensor,
    law: NoiseLaw,
    weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """D(x0) and the gradient at x0 of log p(y | D(x0)); a magnitude below 0 counts as 0."""
    with torch.enable_grad():
        x0 = x0.requires_grad_()
        image = decode(x0)
        seen = image.detach().requires_grad_()
        magnitude = seen.clamp(min=0) if law.is_magnitude else seen
        log_p = log_likelihood(magnitude, y.expand_as(seen), sigma, law)
        (score,) = torch.autograd.grad(log_p.sum(), seen)
        if weights is not None:
            score = _weighed(score * sigma, weights) / sigma
        (gradient,) = torch.autograd.grad(image, x0, score)
    return image.detach(), gradient


def _weights(law: NoiseLaw, y: Tensor) -> Tensor | None:
    """1 / S at the frequencies of `rfftn`, (X, Y, Z // 2 + 1); None for white noise."""
    if law.colour.is_white:
        return None
    power = law.colour.power([np.fft.fftfreq(n) * 2 for n in y.shape[-3:]])
    inverse = 1 / np.maximum(power / power.mean(dtype=np.float64), _LEAST_POWER)
    return torch.from_numpy(inverse[..., : y.shape[-1] // 2 + 1]).to(y)


def _weighed(image: Tensor, weights: Tensor) -> Tensor:
    """(B, 1, X, Y, Z) times the weights in k-space."""
    axes, shape = (-3, -2, -1), image.shape[-3:]
    out: Tensor = torch.fft.irfftn(torch.fft.rfftn(image, dim=axes) * weights, s=shape, dim=axes)
    return out


@torch.no_grad()
def _curvature(
    x0: Tensor,
    direction: Tensor,
    image: Tensor,
    decode: Callable[[Tensor], Tensor],
    sigma: Tensor,
    weights: Tensor | None,
) -> Tensor:
    """|J d / sigma|^2 / |d|^2 by a forward difference of the decoder, (B, 1, ..., 1)."""
    axes = tuple(range(1, direction.ndim))
    rms = direction.square().mean(axes, keepdim=True).sqrt()
    probe = _PROBE_RMS * direction / rms.clamp(min=torch.finfo(direction.dtype).tiny)
    change = (decode(x0 + probe) - image) / sigma
    if weights is not None:
        change = _weighed(change, weights.sqrt())
    length = _PROBE_RMS**2 * direction[0].numel()
    return change.square().flatten(1).sum(1).reshape(rms.shape) / length


class _LogBessel(torch.autograd.Function):
    """g_m(z) and its derivative I_{m+1}(z) / I_m(z) - 1, for z >= 0."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, order: int) -> Tensor:
        value: Tensor = torch.special.i0e(z).log()
        if order == 0:
            ratio = torch.special.i1e(z) / torch.special.i0e(z)
        else:
            quotients = _bessel_quotients(z, order)
            value = value + torch.stack(quotients[:-1]).log().sum(0)
            ratio = z * quotients[-1]
        ctx.save_for_backward(ratio)
        return value

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (ratio,) = ctx.saved_tensors
        return grad_outputs[0] * (ratio - 1), None


def _bessel_quotients(z: Tensor, order: int) -> list[Tensor]:
    """q_m = I_{m+1}(z) / (z I_m(z)) for m = 0 to `order`.

    The recurrence q_m = 1 / (2 (m + 1) + z^2 q_{m+1}) (DLMF 10.29.1) runs downwards, where
    all its terms are positive and errors shrink. It starts a few orders higher from the
    Riccati equation r' = 1 - (2m + 1) r / z - r^2 of r = z q_m, whose slowly varying solution
    r = (s - a) / z, with a = m + 1/2 and s^2 = a^2 + z^2, is put into r' once. The relative
    error is below 1e-7 for all z and m (float64).
    """
    top = order + _RATIO_TERMS
    a = top + 0.5
    s = torch.sqrt(a**2 + z**2)
    c = 1 - a / (s * (s + a))
    q = c / (a + torch.sqrt(a**2 + c * z**2))
    quotients = []
    for m in reversed(range(top)):
        q = 1 / (2 * (m + 1) + z**2 * q)
        if m <= order:
            quotients.append(q)
    return quotients[::-1]
