"""Noise levels of z = alpha * x0 + sigma * eps, from clean to pure noise.

A schedule is a list of levels. Variance-preserving kinds have alpha^2 + sigma^2 = 1 and
alpha^2 = alphas_cumprod ("abar" in the papers); rectified flow has alpha = 1 - t, sigma = t.
Everything downstream takes levels, never timesteps, so it holds for both families and at
zero terminal SNR, where alpha = 0. The variance-exploding noise level is sigma / alpha:
ve_sigma^2 = (1 - abar) / abar and z_vp = z_ve * sqrt(abar).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor

from medddpm.errors import ConfigError
from medddpm.named import named


@dataclass(frozen=True)
class NoiseLevel:
    """One level of z = alpha * x0 + sigma * eps.

    Attributes:
        alpha: Weight of the clean latent, 0 at zero SNR.
        sigma: Weight of the unit noise, 0 for the clean latent.
    """

    alpha: float
    sigma: float

    def __post_init__(self) -> None:
        if not (self.alpha >= 0 and self.sigma >= 0 and 0 < self.alpha + self.sigma < math.inf):
            raise ConfigError(
                "a noise level needs finite alpha and sigma, neither negative nor both 0, "
                f"got alpha {self.alpha} and sigma {self.sigma}"
            )

    @property
    def angle(self) -> float:
        """atan2(sigma, alpha) in [0, pi/2], what the network is conditioned on."""
        return math.atan2(self.sigma, self.alpha)

    @property
    def tau(self) -> float:
        """Rectified-flow time of the same SNR, sigma / (alpha + sigma) in [0, 1]."""
        return self.sigma / (self.alpha + self.sigma)

    @property
    def ve_sigma(self) -> float:
        """Noise per unit of signal, sigma / alpha; infinite at zero SNR."""
        return self.sigma / self.alpha if self.alpha > 0 else math.inf

    @property
    def snr(self) -> float:
        """alpha^2 / sigma^2; infinite for the clean latent."""
        return (self.alpha / self.sigma) ** 2 if self.sigma > 0 else math.inf


CLEAN = NoiseLevel(alpha=1.0, sigma=0.0)


def linear_alphas_cumprod(num_timesteps: int) -> Tensor:
    """Float64 (T,): betas evenly spaced, Ho et al. 2020, section 4.

    The paper's 1e-4 to 0.02 hold for T = 1000; other lengths scale them by 1000 / T, so that
    the total noise stays the same.
    """
    scale = 1000 / num_timesteps
    return _from_betas(_linspace(1e-4 * scale, 0.02 * scale, num_timesteps))


def scaled_linear_alphas_cumprod(num_timesteps: int) -> Tensor:
    """Float64 (T,): sqrt(beta) evenly spaced, 0.0015 to 0.0195, Rombach et al. 2022."""
    scale = 1000 / num_timesteps
    roots = _linspace(math.sqrt(0.0015 * scale), math.sqrt(0.0195 * scale), num_timesteps)
    return _from_betas(roots**2)


def cosine_alphas_cumprod(num_timesteps: int, offset: float = 0.008) -> Tensor:
    """Float64 (T,): abar(t) = f(t) / f(0), Nichol & Dhariwal 2021, eq. 17.

    f(t) = cos^2((t / T + offset) / (1 + offset) * pi / 2), betas clipped to 0.999.
    """
    t = _linspace(0.0, 1.0, num_timesteps + 1)
    f = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return _from_betas(1 - f[1:] / f[:-1])


def sigmoid_alphas_cumprod(
    num_timesteps: int, start: float = -3.0, end: float = 3.0, tau: float = 1.0
) -> Tensor:
    """Float64 (T,): a sigmoid in t scaled to fall from 1 to 0, Chen 2023, algorithm 1.

    Proposed by Jabri et al. 2022; abar is clipped below at 1e-9 as there.
    """
    t = _linspace(0.0, 1.0, num_timesteps + 1)[1:]
    ends = torch.sigmoid(torch.tensor([start / tau, end / tau], dtype=torch.float64))
    abar = (ends[1] - torch.sigmoid((t * (end - start) + start) / tau)) / (ends[1] - ends[0])
    return abar.clamp(1e-9, 1.0)


def shifted_cosine_alphas_cumprod(num_timesteps: int, shift: float = 3.0) -> Tensor:
    """Float64 (T,): sigma / alpha of the cosine times `shift`, Hoogeboom et al. 2023, section 3.1.

    For images of many voxels: their coarse parts stand out of more noise than one voxel does.
    """
    ve_sigma = shift * torch.tan(_linspace(0.0, math.pi / 2, num_timesteps + 1)[1:])
    return 1 / (1 + ve_sigma**2)


_ALPHAS_CUMPROD: Mapping[str, Callable[[int], Tensor]] = {
    "linear": linear_alphas_cumprod,
    "scaled_linear": scaled_linear_alphas_cumprod,
    "cosine": cosine_alphas_cumprod,
    "sigmoid": sigmoid_alphas_cumprod,
    "shifted_cosine": shifted_cosine_alphas_cumprod,
}


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """The same schedule with alphas_cumprod[-1] = 0, Lin et al. 2023, algorithm 1.

    sqrt(abar) is shifted to end at 0 and scaled to keep its first value.
    """
    root = alphas_cumprod.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def alphas_cumprod(kind: str, num_timesteps: int = 1000, zero_terminal_snr: bool = True) -> Tensor:
    """Float64 (T,), falling: alpha^2 of each timestep of a variance-preserving schedule.

    Args:
        kind: "linear", "scaled_linear", "cosine", "shifted_cosine", "sigmoid", or the import path
            of a function of T that returns them.
        num_timesteps: T, at least 2.
        zero_terminal_snr: Rescale so that the last level holds no signal at all.
    """
    function = named(kind, _ALPHAS_CUMPROD, "schedule kind", "medddpm.schedules")
    if num_timesteps < 2:
        raise ConfigError(f"a schedule needs at least 2 timesteps, got {num_timesteps}")
    abar = function(num_timesteps).double()
    if abar.shape != (num_timesteps,) or not bool((abar.diff() < 0).all() and abar[0] <= 1):
        raise ConfigError(
            f"schedule kind {kind!r} gives no alphas_cumprod: {num_timesteps} falling numbers of "
            "at most 1"
        )
    return rescale_zero_terminal_snr(abar) if zero_terminal_snr else abar


@dataclass(frozen=True)
class Schedule:
    """The noise levels t = 0 (least noise) to num_timesteps - 1 (most).

    Attributes:
        kind: A variance-preserving kind, see `alphas_cumprod`, or "rectified_flow".
        num_timesteps: How many levels.
        zero_terminal_snr: The last level is pure noise; rectified flow has no other form.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: str = "cosine"
    num_timesteps: Annotated[int, Interval(ge=2, le=100_000)] = 1000
    zero_terminal_snr: bool = True

    def __post_init__(self) -> None:
        if self.kind != "rectified_flow":
            named(self.kind, _ALPHAS_CUMPROD, "schedule kind", "medddpm.schedules")
        if self.num_timesteps < 2:
            raise ConfigError(f"a schedule needs at least 2 timesteps, got {self.num_timesteps}")
        if self.kind == "rectified_flow" and not self.zero_terminal_snr:
            raise ConfigError("rectified flow ends in pure noise; leave zero_terminal_snr on")

    def levels_tensor(self) -> tuple[Tensor, Tensor]:
        """Float64 alpha and sigma of all levels, each (T,)."""
        alpha, sigma = _levels(self.kind, self.num_timesteps, self.zero_terminal_snr)
        return alpha.clone(), sigma.clone()

    def level(self, t: int) -> NoiseLevel:
        """The level of timestep `t` in [0, num_timesteps)."""
        if not 0 <= t < self.num_timesteps:
            raise ConfigError(f"timestep {t} is outside [0, {self.num_timesteps})")
        alpha, sigma = _levels(self.kind, self.num_timesteps, self.zero_terminal_snr)
        return NoiseLevel(float(alpha[t]), float(sigma[t]))

    def at_angles(self, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma, each (B,), of any levels: `angle` (B,) is their atan2(sigma, alpha)."""
        alpha, sigma = angle.cos(), angle.sin()
        radius = alpha + sigma if self.kind == "rectified_flow" else 1.0
        return alpha / radius, sigma / radius

    @property
    def terminal(self) -> NoiseLevel:
        """The noisiest level; alpha = 0 under zero terminal SNR."""
        return self.level(self.num_timesteps - 1)

    def nearest(self, ve_sigma: float) -> NoiseLevel:
        """The level whose sigma / alpha is nearest `ve_sigma` (in angle; infinity allowed)."""
        if not ve_sigma >= 0:
            raise ConfigError(f"a noise level cannot be {ve_sigma}, give a number of at least 0")
        return self.level(self._index(math.atan(ve_sigma)))

    def steps(self, n: int, start: NoiseLevel | None = None) -> list[NoiseLevel]:
        """The n + 1 levels from `start` (default the terminal level) down to the clean one.

        Evenly spaced in timesteps and "trailing" (Lin et al. 2023, table 2): the first step
        starts at the start level itself. Levels between two timesteps are interpolated, so
        that a start at little noise has room for any n.
        """
        first = self.terminal if start is None else start
        if first.sigma == 0:
            raise ConfigError("sampling cannot start at the clean level: there is nothing to do")
        if n < 1:
            raise ConfigError(f"sampling needs at least 1 step, got {n}")
        position = self._position(first)
        return [first, *(self._at(position * (n - i) / n) for i in range(1, n)), CLEAN]

    def _position(self, level: NoiseLevel) -> float:
        """Where `level` lies among the timesteps: 0 is clean, t + 1 is timestep t."""
        tau = self._tau()
        found = min(level.tau, float(tau[-1]))
        i = min(int(torch.searchsorted(tau, found, right=True)) - 1, self.num_timesteps - 1)
        return i + float((found - tau[i]) / (tau[i + 1] - tau[i]))

    def _at(self, position: float) -> NoiseLevel:
        """The level at a position; between timesteps tau is linear."""
        whole = round(position)
        if whole >= 1 and abs(position - whole) < 1e-9:
            return self.level(whole - 1)
        tau = self._tau()
        i = int(position)
        t = float(torch.lerp(tau[i], tau[i + 1], position - i))
        radius = 1.0 if self.kind == "rectified_flow" else math.hypot(1 - t, t)
        return NoiseLevel((1 - t) / radius, t / radius)

    def _tau(self) -> Tensor:
        """Float64 (T + 1,), tau of the clean level and of every timestep."""
        alpha, sigma = _levels(self.kind, self.num_timesteps, self.zero_terminal_snr)
        return torch.nn.functional.pad(sigma / (alpha + sigma), (1, 0))

    def _index(self, angle: float) -> int:
        alpha, sigma = _levels(self.kind, self.num_timesteps, self.zero_terminal_snr)
        return int((torch.atan2(sigma, alpha) - angle).abs().argmin())


@lru_cache(maxsize=16)
def _levels(kind: str, num_timesteps: int, zero: bool) -> tuple[Tensor, Tensor]:
    if kind == "rectified_flow":
        t = _linspace(0.0, 1.0, num_timesteps + 1)[1:]
        return 1 - t, t
    abar = alphas_cumprod(kind, num_timesteps, zero)
    return abar.sqrt(), (1 - abar).sqrt()


def _linspace(start: float, end: float, num: int) -> Tensor:
    return torch.linspace(start, end, num, dtype=torch.float64)


def _from_betas(betas: Tensor) -> Tensor:
    return torch.cumprod(1 - betas.clamp(max=0.999), dim=0)
