"""The Fourier transform at samples that lie on no grid, and SENSE with it, by finufft, an extra.

finufft (Barnett et al., SIAM J Sci Comput 41:C479, 2019) is called directly: what mri-nufft adds
to it, coils, batches and norms, is what this room has already, and it imports two thousand modules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medddpm.errors import MissingExtraError, ShapeError, missing_extra

_PRECISION = 1e-6
_PIPE_STEPS = 15
"""Of the density compensation; radial and spiral weights then change by less than 1 % a step."""


def finufft() -> Any:
    """The finufft package.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import finufft as package
    except ImportError:
        raise MissingExtraError(missing_extra("finufft", "nufft")) from None
    return package


def nufft(image: Tensor, places: Tensor) -> Tensor:
    """sum_r x[r] exp(-2 pi i k . (r - N // 2) / N) / sqrt(voxels): `fft` at places between its own.

    Args:
        image: (..., X, Y, Z) complex.
        places: (M, 3) k along X, Y, Z in cycles per field of view: `fft` has -N // 2 up to N / 2.

    Returns:
        (..., M) complex64, without a gradient.

    Raises:
        MissingExtraError: finufft is not installed.
    """
    shape, before = image.shape[-3:], image.shape[:-3]
    flat = image.reshape(-1, *_long(shape)).to(torch.complex64)
    plan = _plan(2, shape, places, len(flat), threads=0)
    values = plan.execute(np.ascontiguousarray(flat.detach().cpu().numpy()))
    out: Tensor = torch.from_numpy(np.asarray(values)).reshape(*before, len(places))
    return out.to(image.device) / math.sqrt(math.prod(shape))


def nufft_adjoint(samples: Tensor, places: Tensor, shape: Sequence[int]) -> Tensor:
    """(..., X, Y, Z), the adjoint of `nufft`; on one thread, so that its bytes are repeatable.

    Args:
        samples: (..., M) complex.
        places: (M, 3), see `nufft`.
        shape: X, Y, Z.

    Raises:
        MissingExtraError: finufft is not installed.
    """
    flat = samples.reshape(-1, samples.shape[-1]).to(torch.complex64)
    plan = _plan(1, shape, places, len(flat), threads=1)
    values = plan.execute(np.ascontiguousarray(flat.detach().cpu().numpy()))
    out: Tensor = torch.from_numpy(np.asarray(values)).reshape(*samples.shape[:-1], *shape)
    return out.to(samples.device) / math.sqrt(math.prod(shape))


def _long(shape: Sequence[int]) -> list[int]:
    """The axes that are longer than 1; one at least."""
    return [n for n in shape if n > 1] or [1]


def _plan(kind: int, shape: Sequence[int], places: Tensor, count: int, threads: int) -> Any:
    sizes = _long(shape)
    axes = [axis for axis, n in enumerate(shape) if n > 1] or [0]
    sign = -1 if kind == 2 else 1
    plan = finufft().Plan(
        kind, tuple(sizes), count, _PRECISION, sign, dtype="complex64", nthreads=threads
    )
    turns = 2 * np.pi / np.asarray(sizes)
    points = places.detach().cpu().numpy().astype(np.float64)
    plan.setpts(
        *(
            np.ascontiguousarray(points[:, axis] * turn, np.float32)
            for axis, turn in zip(axes, turns, strict=True)
        )
    )
    return plan


def density_weights(places: Tensor, measured: Tensor, shape: Sequence[int]) -> Tensor:
    """(M,) share of a cell of k-space, 1 / field of view, that each sample stands for.

    w <- w / (K w), with K the correlation by sinc^2 along each axis, which is that of a field of
    view with itself (Pipe and Menon, Magn Reson Med 41:179, 1999, eq. 19; the kernel is that of
    Johnson and Pipe, Magn Reson Med 61:439, 2009). Where samples lie apart by more than 1 / field
    of view each stands for one cell, as in Cartesian undersampling, and no more.

    Args:
        places: (M, 3), see `nufft`.
        measured: (M,) 1 where a sample was measured, 0 elsewhere.
        shape: X, Y, Z of the image.

    Raises:
        ShapeError: Nothing was measured.
    """
    keep = measured.bool()
    if not bool(keep.any()):
        raise ShapeError("no sample of this trajectory was measured")
    there = places[keep]
    double = [2 * n if n > 1 else 1 for n in shape]
    window = torch.ones(double)
    for axis, length in enumerate(double):
        if length > 1:
            ramp = 1 - (torch.arange(length) - length // 2).abs() / (length / 2)
            window = window * ramp.reshape([-1 if a == axis else 1 for a in range(3)])
    window = window / window.mean()
    # a field of view twice as wide has twice as many cycles between the same two samples
    wide = there * 2
    weights = torch.ones(len(there), dtype=torch.complex64)
    for _ in range(_PIPE_STEPS):
        seen = nufft(window * nufft_adjoint(weights, wide, double), wide)
        weights = weights / seen.abs().clamp_min(1e-12)
    out = torch.zeros(len(places))
    out[keep] = weights.real
    return out


@dataclass(frozen=True)
class NufftSense:
    """A = W F S with samples on no grid (Pruessmann et al., Magn Reson Med 46:638, 2001).

    W are the square roots of the density weights, so that A^H A is near the identity where k-space
    is measured, and A^H is gridding. A^H A is one product on a grid of twice the size (Fessler et
    al., IEEE Trans Signal Process 53:3393, 2005), as for `Sense` without finufft.

    Attributes:
        maps: (B or 1, C, X, Y, Z) sensitivities.
        mask: (B or 1, n, m, p) square roots of the weights, 0 where nothing was measured.
        places: (B or 1, n, m, p, 3), see `nufft`.
    """

    maps: Tensor
    mask: Tensor
    places: Tensor
    _kernels: list[Tensor] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.maps.ndim != 5 or self.mask.ndim != 4 or self.places.ndim != 5:
            raise ShapeError(
                "maps are (B, C, X, Y, Z), a mask is (B, n, m, p) and places (B, n, m, p, 3), got "
                f"{tuple(self.maps.shape)}, {tuple(self.mask.shape)}, {tuple(self.places.shape)}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, X, Y, Z) to weighted samples (B, C, n, m, p)."""
        seen = self.maps * x[:, None]
        if len(self.places) == 1:
            out = nufft(seen, self.places.reshape(-1, 3))
        else:
            each = zip(seen, self.places, strict=True)
            out = torch.stack([nufft(one, k.reshape(-1, 3)) for one, k in each])
        return out.reshape(*seen.shape[:2], *self.mask.shape[1:]) * self.mask[:, None]

    def adjoint(self, y: Tensor) -> Tensor:
        """Weighted samples (B, C, n, m, p) to (B, X, Y, Z)."""
        flat, shape = (y * self.mask[:, None]).flatten(2), self.maps.shape[2:]
        if len(self.places) == 1:
            coils = nufft_adjoint(flat, self.places.reshape(-1, 3), shape)
        else:
            each = zip(flat, self.places, strict=True)
            coils = torch.stack([nufft_adjoint(one, k.reshape(-1, 3), shape) for one, k in each])
        return (self.maps.conj() * coils).sum(dim=1)

    def normal(self, x: Tensor) -> Tensor:
        """A^H A x, by two transforms a coil on a grid of twice the size."""
        kernel = self._kernel().to(x.device)
        sizes, axes = kernel.shape[1:], (-3, -2, -1)
        x_, y_, z_ = x.shape[1:]
        out = torch.zeros_like(x)
        for c in range(self.maps.shape[1]):
            seen = torch.fft.fftn(self.maps[:, c] * x, s=tuple(sizes), dim=axes)
            seen *= kernel
            back = torch.fft.ifftn(seen, dim=axes)[:, :x_, :y_, :z_]
            out += self.maps[:, c].conj() * back
        return out

    def masked(self, mask: Tensor) -> NufftSense:
        """The same with other weights, such as those of some readouts alone."""
        return replace(self, mask=mask, _kernels=[])

    def _kernel(self) -> Tensor:
        """(B or 1, 2X, 2Y, 2Z) real: what the doubled grid is multiplied by."""
        if not self._kernels:
            shape = self.maps.shape[2:]
            count = max(len(self.mask), len(self.places))
            mask = self.mask.expand(count, *self.mask.shape[1:]).flatten(1)
            places = self.places.expand(count, *self.places.shape[1:]).flatten(1, 3)
            each = zip(mask, places, strict=True)
            self._kernels.append(torch.stack([_toeplitz(m.square(), k, shape) for m, k in each]))
        return self._kernels[0]


def _toeplitz(weights: Tensor, places: Tensor, shape: Sequence[int]) -> Tensor:
    """The transform of sum_k w exp(2 pi i k . d / N) / voxels over all distances d of voxels."""
    double = [2 * n if n > 1 else 1 for n in shape]
    spread = nufft_adjoint(weights.to(torch.complex64), places * 2, double)
    scale = math.sqrt(math.prod(double)) / math.prod(shape)
    centred = torch.fft.ifftshift(spread, dim=(-3, -2, -1))
    for axis, length in enumerate(double):
        if length > 1:  # the distance of a whole field of view occurs nowhere
            centred.select(axis, length // 2).zero_()
    out: Tensor = torch.fft.fftn(centred, dim=(-3, -2, -1)).real * scale
    return out
