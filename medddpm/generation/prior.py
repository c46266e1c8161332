"""The prior over whole heads: a diffusion network on their wavelet coefficients."""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medddpm.diffusion.denoiser import Denoiser, as_denoiser
from medddpm.diffusion.prediction import Prediction, target
from medddpm.diffusion.schedule import Schedule
from medddpm.generation.options import PriorSpec
from medddpm.model.spec import DiffusionSpec
from medddpm.model.unet import LatentUNet
from medddpm.model.wavelet import haar, image_of

SCHEDULE = Schedule("cosine")
PREDICTION: Prediction = "v"
STATISTICS = ("mean", "unit", "spread")
"""Buffers that hold what was measured of the training set."""
CHANNELS = 8
"""Haar coefficients of each block of 2 x 2 x 2 voxels."""
Window = tuple[slice, slice, slice]
_NUM_PLACES = 3
_BLUR = 0.7
"""Voxels, see `blurred`."""
_LOUD, _SHARP = 2.0, 16.0
"""Over the deviation of a head within its body, and of what is sharp in it."""
_TAPS, _EQUATIONS, _RIDGE, _BODY = 5, 50_000, 1e-7, 0.05
"""Of the linear filter: its edge, the places it is fitted at, and which of them are in the body."""
_LEAST_SPREAD = 1e-4
"""Of the mean variance among heads: no place is wholly fixed."""


class HeadPrior(nn.Module):
    """Wavelet diffusion of one field of view (Friedrich et al. 2024, "WDM"), by itself.

    What is drawn is the difference of the Haar coefficients from those of the mean head of the
    training set: the transform is orthonormal, so white noise on them is white noise in the image,
    and the coarse shape, which stands out of the noise longest, is drawn first. The network
    is told where each place lies and what the mean head holds there, so that a convolution knows
    front from back.

    What follows from the variance among heads at each place alone, a Wiener filter, is in closed
    form; the network learns the rest, in units of what that leaves open (the preconditioning of
    Karras et al. 2022, section 5, with a sigma_data for each element). Where all heads are alike,
    as in the air, nothing is left to draw.

    Args:
        spec: Network and grid.
        prediction: What the network answers.
    """

    drawn: ClassVar[int] = CHANNELS
    """Channels that are drawn."""
    told: ClassVar[int] = 0
    """Channels of `coarse`, what is known of the head at twice the spacing."""

    def __init__(self, spec: PriorSpec, *, prediction: Prediction = PREDICTION) -> None:
        super().__init__()
        self.spec, self.prediction = spec, prediction
        self.grid = tuple(n // 2 for n in spec.shape)
        network = DiffusionSpec(
            channels=spec.channels,
            num_blocks=spec.num_blocks,
            embedding_width=spec.embedding_width,
            coloured=True,  # filters of unit norm
        )
        seen = _NUM_PLACES + self.drawn + self.told
        self.unet = LatentUNet(network, self.drawn, seen, guess_gain=0.0, num_conditions=0)
        self.mean: Tensor
        self.unit: Tensor
        self.spread: Tensor
        self.places: Tensor
        self.register_buffer("mean", torch.zeros(self.drawn, *self.grid))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("spread", torch.ones(self.drawn, *self.grid))
        axes = [torch.linspace(-1, 1, n) for n in self.grid]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        self.register_buffer("places", places, persistent=False)

    @torch.no_grad()
    def set_statistics(
        self,
        straight: Tensor,
        posed: Tensor,
        coarse: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        """Store the mean head, and the variance around it in all and, smoothed, at each place.

        Args:
            straight: (N, 1, *shape), the training set.
            posed: (M, 1, *shape), the same in random poses.
            coarse: What is known of each.
        """
        self._prepare(straight, coarse[0])
        self.mean.copy_(self._coefficients(straight, coarse[0]).mean(0))
        differences = self._coefficients(posed, coarse[1]) - self.mean
        self.unit.copy_(differences.square().mean().sqrt().clamp_min(1e-12))
        variance = (differences / self.unit).square().mean(0)
        smooth = F.avg_pool3d(variance, 3, stride=1, padding=1, count_include_pad=False)
        self.spread.copy_(smooth.clamp_min(_LEAST_SPREAD))

    @torch.no_grad()
    def take_statistics(self, other: HeadPrior) -> None:
        """Take what was measured of the training set, and nothing of what was learned."""
        for name in STATISTICS:
            getattr(self, name).copy_(getattr(other, name))

    def standardised(self, x: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Images (B, 1, *shape) as differences (B, C, *grid) from the mean head, of variance 1."""
        return (self._coefficients(x, coarse) - self.mean) / self.unit

    def image(self, u: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Images (B, 1, *shape), not below 0, of standardised differences and what is known."""
        return image_of(self._whole(u.float() * self.unit + self.mean, coarse)).clamp_min(0)

    def seen_of(self, image: Tensor, generator: torch.Generator) -> Tensor | None:
        """`coarse` for a draw: what this scale is told of the image that the last one drew."""
        del image, generator
        return None

    def _prepare(self, straight: Tensor, coarse: Tensor | None) -> None:
        """Measure what the differences from the mean head depend on."""

    def _coefficients(self, x: Tensor, coarse: Tensor | None) -> Tensor:
        """What is drawn of images (B, 1, *shape), in their own units."""
        del coarse
        return haar(x)

    def _whole(self, z: Tensor, coarse: Tensor | None) -> Tensor:
        """All Haar coefficients of what is drawn."""
        del coarse
        return z

    def forward(
        self,
        u: Tensor,
        angle: Tensor,
        coarse: Tensor | None = None,
        window: Window | None = None,
    ) -> Tensor:
        """Prediction (B, C, *grid) of noisy differences.

        Args:
            u: (B, C, *grid), or the part of it in `window`.
            angle: (B,), atan2(sigma, alpha).
            coarse: (B, T, *grid), what is known of the head, in the same window.
            window: Of the grid; all of it if not given.
        """
        alpha, sigma = self._levels(angle.float()[:, None, None, None, None])
        spread = cut(self.spread, window)
        total = alpha.square() * spread + sigma.square()
        none = torch.zeros(len(u), 0, device=u.device)
        seen = self.condition(len(u), coarse, window)
        out = self.unet(u / total.sqrt(), angle, seen, none)
        x0, eps = alpha * spread / total * u, sigma / total * u
        guess = target(x0, eps, alpha, sigma, self.prediction)
        answer: Tensor = guess + (spread / total).sqrt() * out
        return answer

    def condition(
        self, batch: int, coarse: Tensor | None = None, window: Window | None = None
    ) -> Tensor:
        """(B, 3 + C + T, *grid): place, mean head, and what is known; or a window of it."""
        known = cut(torch.cat([self.places, self.mean]), window).expand(batch, -1, -1, -1, -1)
        return known if coarse is None else torch.cat([known, coarse], dim=1)

    def left_open(self, angle: Tensor, window: Window | None = None) -> Tensor:
        """(B,): variance of what is predicted at angles (B,) that the closed form leaves open."""
        alpha, sigma = self._levels(angle.float()[:, None, None, None, None])
        spread = cut(self.spread, window)
        return (spread / (alpha.square() * spread + sigma.square())).flatten(1).mean(1)

    def _levels(self, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma: their squares add up to 1, or for a flow they themselves."""
        alpha, sigma = angle.cos(), angle.sin()
        scale = alpha + sigma if self.prediction == "flow" else 1.0
        return alpha / scale, sigma / scale

    def denoiser(self, batch: int, coarse: Tensor | None = None) -> Denoiser:
        """The denoiser that a sampler takes, of `batch` draws at once."""
        none = torch.zeros(batch, 0, device=self.mean.device)

        def network(u: Tensor, angle: Tensor, _: Tensor, __: Tensor) -> Tensor:
            answer: Tensor = self(u, angle, coarse)
            return answer

        return as_denoiser(network, self.prediction, cond=none, conditions=none)


class FineStructure(HeadPrior):
    """The seven channels of differences of a head, whose means over blocks are known.

    A scale of a cascade (Guth et al. 2022, "Wavelet score-based generative modeling", section 3).
    `coarse` is (B, 1, *grid), the head at twice the spacing.
    """

    drawn = CHANNELS - 1
    told = 1

    def seen_of(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The image itself."""
        del generator
        return image

    def _coefficients(self, x: Tensor, coarse: Tensor | None) -> Tensor:
        del coarse
        return haar(x)[:, 1:]

    def _whole(self, z: Tensor, coarse: Tensor | None) -> Tensor:
        assert coarse is not None
        return torch.cat([coarse * CHANNELS**0.5, z], dim=1)


class Sharpening(HeadPrior):
    """A head of which a blurred and noisy copy at twice the spacing is known: all is drawn anew.

    The noise hides the grain that the scale before has drawn, so that it is not taken for anatomy
    (Ho et al. 2022, "Cascaded diffusion models", section 4.2). What a linear filter tells of the
    copy, by least squares, is in closed form; what is drawn is the difference from that.
    `coarse` is (B, 2, *grid): the copy, and what is sharp in it, both of about unit size, so that
    a young network sees them beside the noise.
    """

    told = 2
    level: ClassVar[float] = 0.02
    """Of the noise, as a fraction of the intensity scale."""

    def __init__(self, spec: PriorSpec) -> None:
        super().__init__(spec)
        self.filter: Tensor
        self.register_buffer("filter", torch.zeros(CHANNELS, 1, _TAPS, _TAPS, _TAPS))

    def _prepare(self, straight: Tensor, coarse: Tensor | None) -> None:
        """Fit the linear filter."""
        assert coarse is not None
        self.filter.copy_(_least_squares(coarse[:, :1] / _LOUD, haar(straight)))

    def seen_of(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The image with noise of `level`."""
        return self.with_noise(image, torch.randn(image.shape, generator=generator).to(image))

    def with_noise(self, image: Tensor, eps: Tensor) -> Tensor:
        """`coarse` of images (B, 1, *grid) and white noise."""
        copy = image + self.level * eps
        sharp = copy - F.avg_pool3d(copy, 3, stride=1, padding=1)
        return torch.cat([_LOUD * copy, _SHARP * sharp], dim=1)

    def _coefficients(self, x: Tensor, coarse: Tensor | None) -> Tensor:
        return haar(x) - self._filtered(coarse)

    def _whole(self, z: Tensor, coarse: Tensor | None) -> Tensor:
        return z + self._filtered(coarse)

    def _filtered(self, coarse: Tensor | None) -> Tensor:
        assert coarse is not None
        with torch.autocast(coarse.device.type, enabled=False):
            return F.conv3d(coarse[:, :1].float() / _LOUD, self.filter, padding=_TAPS // 2)


def _least_squares(copies: Tensor, wanted: Tensor) -> Tensor:
    """The filter (C, 1, K, K, K) of copies (N, 1, *grid) that comes nearest to (N, C, *grid)."""
    generator = torch.Generator().manual_seed(5)
    places = torch.nonzero(copies[:, 0] > _BODY)
    if len(places) == 0:
        places = torch.nonzero(torch.ones_like(copies[:, 0]))
    places = places[torch.randperm(len(places), generator=generator)[:_EQUATIONS]]
    around = F.pad(copies[:, 0], [_TAPS // 2] * 6)
    n, x, y, z = places.T
    taps = itertools.product(range(_TAPS), repeat=3)
    rows = torch.stack([around[n, x + i, y + j, z + k] for i, j, k in taps], dim=1).double()
    normal = rows.T @ rows
    normal += _RIDGE * normal.diagonal().mean() * torch.eye(len(normal)).to(normal)
    found = torch.linalg.solve(normal, rows.T @ wanted[n, :, x, y, z].double())
    taken: Tensor = found.T.reshape(-1, 1, _TAPS, _TAPS, _TAPS).float()
    return taken


def halved(x: Tensor) -> Tensor:
    """Images (B, 1, *shape) at twice the spacing: the mean of each block of 2 x 2 x 2 voxels."""
    return F.avg_pool3d(x, 2)


def blurred(x: Tensor) -> Tensor:
    """Images (B, 1, *shape) at twice the spacing, as smooth as scans that are put on that grid.

    `heads.head_of` smooths by a Gaussian, and `halved` by a narrower block; this is the rest.
    """
    reach = torch.arange(-3, 4, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (reach / _BLUR) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(reach)
        pad = [0, 0, 0]
        pad[axis] = len(reach) // 2
        with torch.autocast(x.device.type, enabled=False):
            x = F.conv3d(x, kernel.view(*shape), padding=pad)
    return halved(x)


def cut(x: Tensor, window: Window | None) -> Tensor:
    """The part of (..., *grid) in a window."""
    return x if window is None else x[(..., *window)]
