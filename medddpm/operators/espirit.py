"""Sensitivity maps from the fully measured centre of k-space: ESPIRiT.

Uecker et al., Magn Reson Med 71:990, 2014. The calibration matrix holds every block of the centre
as a row; its row space, seen as convolution kernels, is in image space a C x C matrix at each
voxel, and the eigenvector of that with eigenvalue 1 is the sensitivity there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medddpm.errors import ShapeError
from medddpm.operators.fourier import root_sum_squares

_THRESHOLD = 0.001
"""Least eigenvalue of the calibration's Gram matrix, over the largest, that counts as signal."""
_CROP = 0.8
"""Least eigenvalue at a voxel; below it no sensitivity is known, and the maps are 0."""
_POWERS = 15
"""Steps of the power iteration; the second eigenvalue is far below the first where maps are."""


def espirit_maps(
    centre: Tensor,
    shape: Sequence[int],
    *,
    kernel: int = 6,
    threshold: float = _THRESHOLD,
    crop: float = _CROP,
) -> Tensor:
    """(C, X, Y, Z) maps with a sum of squares of 1, or all 0 where there is no signal.

    Their common phase is such that the first principal component of the coils is real.

    Args:
        centre: (C, x, y, z) the middle of k-space, all measured.
        shape: X, Y, Z of the image.
        kernel: Edge of the kernels in samples; less along an axis that is shorter.
        threshold: See `_THRESHOLD`.
        crop: See `_CROP`.

    Raises:
        ShapeError: The centre is smaller than a kernel, or blank.
    """
    sizes = [min(kernel, n) for n in centre.shape[1:]]
    if any(n < 2 * k - 1 and n > 1 for n, k in zip(centre.shape[1:], sizes, strict=True)):
        raise ShapeError(
            f"the fully measured centre of k-space is {tuple(centre.shape[1:])}; maps need "
            f"{2 * kernel - 1} lines or more along each encoded axis"
        )
    correlation = _kernel_correlation(centre, sizes, threshold)
    waves = [_waves(n, k, centre) for n, k in zip(shape, sizes, strict=True)]
    planes = [_plane(correlation, wave, waves[1], waves[2], crop) for wave in waves[0]]
    maps = torch.stack(planes, dim=1)
    return maps * _common_phase(maps, centre)


def _kernel_correlation(centre: Tensor, sizes: Sequence[int], threshold: float) -> Tensor:
    """(C, C, 2k-1, 2k-1, 2k-1), the summed correlations of all kernels of the row space."""
    coils = len(centre)
    blocks = centre
    for axis, size in enumerate(sizes):
        blocks = blocks.unfold(axis + 1, size, 1)
    rows = blocks.permute(1, 2, 3, 0, 4, 5, 6).reshape(-1, coils * sizes[0] * sizes[1] * sizes[2])
    values, vectors = torch.linalg.eigh(rows.conj().T @ rows)
    if float(values[-1]) <= 0:
        raise ShapeError("the centre of k-space is blank")
    kernels = vectors[:, values > threshold * values[-1]].conj().T.reshape(-1, coils, *sizes)
    padded = [2 * k - 1 for k in sizes]
    seen = torch.fft.fftn(kernels, s=padded, dim=(-3, -2, -1))
    power = torch.einsum("kaxyz,kbxyz->abxyz", seen, seen.conj())
    out: Tensor = torch.fft.ifftn(power, dim=(-3, -2, -1))
    return out


def _waves(length: int, kernel: int, like: Tensor) -> Tensor:
    """(N, 2k-1): the waves whose sum turns lags 0, 1, ... -1 into N voxels about the centre."""
    lags = torch.arange(2 * kernel - 1)
    lags = torch.where(lags >= kernel, lags - (2 * kernel - 1), lags).double()
    place = (torch.arange(length) - length // 2).double() / length
    phase = 2j * torch.pi * place[:, None] * lags
    return (torch.exp(phase) / kernel).to(like)


def _plane(
    correlation: Tensor, wave: Tensor, y_waves: Tensor, z_waves: Tensor, crop: float
) -> Tensor:
    """(C, Y, Z) maps of one plane of voxels."""
    here = torch.einsum("abijk,i->abjk", correlation, wave)
    here = torch.einsum("abjk,yj->abyk", here, y_waves)
    matrix = torch.einsum("abyk,zk->abyz", here, z_waves)
    vector, value = _leading(matrix)
    return vector * (value > crop)


def _leading(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The first eigenvector and eigenvalue of Hermitian (C, C, Y, Z): power iteration."""
    strongest = matrix.diagonal(dim1=0, dim2=1).real.argmax(dim=-1)
    vector = matrix.gather(1, strongest[None, None].expand(len(matrix), 1, -1, -1))[:, 0]
    value = vector.abs()[0]
    for _ in range(_POWERS):
        before = vector / root_sum_squares(vector).clamp_min(1e-30)
        vector = torch.zeros_like(before)
        for column, factor in zip(matrix.unbind(dim=1), before, strict=True):
            vector.addcmul_(column, factor)
        value = root_sum_squares(vector)
    return vector / value.clamp_min(1e-30), value


def _common_phase(maps: Tensor, centre: Tensor) -> Tensor:
    """(X, Y, Z) of magnitude 1: makes the first principal coil of the calibration real."""
    flat = centre.flatten(1)
    _, vectors = torch.linalg.eigh(flat @ flat.conj().T)
    first = torch.einsum("c,cxyz->xyz", vectors[:, -1].conj(), maps)
    return torch.where(first.abs() > 0, first.conj() / first.abs().clamp_min(1e-30), 1)
