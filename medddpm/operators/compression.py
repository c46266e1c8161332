"""Fewer, virtual coils that hold nearly all of the signal."""

from __future__ import annotations

import torch
from torch import Tensor

from medddpm.errors import ShapeError


def compression_matrix(kspace: Tensor, coils: int) -> Tensor:
    """(D, C), rows orthonormal: the D strongest principal components of the coils.

    Noise that is white over the coils stays so. Huang et al., Magn Reson Imaging 26:133, 2008.

    Args:
        kspace: (B, C, ...), whitened; its centre is enough.
        coils: D, at most C.

    Raises:
        ShapeError: There are not so many coils.
    """
    if not 1 <= coils <= kspace.shape[1]:
        raise ShapeError(f"{kspace.shape[1]} coils cannot be compressed to {coils}")
    flat = kspace.movedim(1, 0).flatten(1)
    _, vectors = torch.linalg.eigh(flat @ flat.conj().T)
    matrix: Tensor = vectors.flip(1)[:, :coils].conj().T.contiguous()
    return matrix
