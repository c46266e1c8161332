"""The noise of a receiver: its covariance over the coils, and k-space in units of it."""

from __future__ import annotations

import torch
from torch import Tensor

from medddpm.errors import ShapeError

_EDGE = 0.06
"""Of each end of an encoded axis: where k-space holds the least signal."""


def noise_covariance(samples: Tensor) -> Tensor:
    """(C, C) covariance of the complex noise, so that its diagonal is twice sigma^2.

    Args:
        samples: (C, N) of a noise scan, N > C.

    Raises:
        ShapeError: There are too few samples to know a covariance.
    """
    coils, count = samples.shape
    if count <= coils:
        raise ShapeError(f"{count} noise samples of {coils} coils say nothing of their covariance")
    centred = samples - samples.mean(dim=1, keepdim=True)
    covariance: Tensor = centred @ centred.conj().T / (count - 1)
    return covariance


def whitening_matrix(covariance: Tensor) -> Tensor:
    """(C, C) W with W cov W^H = 2: noise of sigma 1 a real component (Roemer et al. 1990).

    Raises:
        ShapeError: The covariance is singular, as that of a coil that gave nothing.
    """
    size = len(covariance)
    scale = covariance.diagonal().real.mean()
    if not torch.isfinite(covariance).all() or float(scale) <= 0:
        raise ShapeError("the noise samples are all zero, or not finite; leave them out")
    values = torch.linalg.eigvalsh(covariance)
    if float(values.min()) < 1e-8 * float(scale):
        raise ShapeError("the noise of the coils is dependent: one of them gave nothing")
    lower = torch.linalg.cholesky(covariance)
    eye = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    whitener: Tensor = 2**0.5 * torch.linalg.solve_triangular(lower, eye, upper=False)
    return whitener


def mixed(kspace: Tensor, matrix: Tensor) -> Tensor:
    """Other coils, each a sum of the given ones.

    Args:
        kspace: (B, C, ...).
        matrix: (D, C).

    Returns:
        (B, D, ...).
    """
    flat = kspace.flatten(2)
    out = torch.matmul(matrix.to(flat.dtype), flat)
    return out.reshape(len(kspace), len(matrix), *kspace.shape[2:])


def edge_samples(kspace: Tensor, mask: Tensor) -> Tensor:
    """(C, N) samples at the ends of all encoded axes, where there is nearly no signal.

    Args:
        kspace: (B, C, X, Y, Z).
        mask: (B or 1, X, Y, Z), what was measured.
    """
    edge = torch.ones(kspace.shape[2:], dtype=torch.bool, device=kspace.device)
    for axis, length in enumerate(edge.shape):
        if length > 1:
            place = torch.arange(length, device=kspace.device)
            wide = max(1, int(_EDGE * length))
            ends = (place < wide) | (place >= length - wide)
            edge &= ends.reshape([-1 if a == axis else 1 for a in range(3)])
    chosen = (mask.bool() & edge).expand(len(kspace), *edge.shape)
    return kspace.movedim(1, 0)[:, chosen]
