"""One level of the Haar transform in three dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from medddpm.model.blocks import depth_to_space, space_to_depth


def haar(x: Tensor) -> Tensor:
    """(B, 1, X, Y, Z) of even sides -> orthonormal coefficients (B, 8, X/2, Y/2, Z/2).

    The first channel is the image at twice the spacing times sqrt(8); the others are the
    differences along each set of axes (Haar 1910).
    """
    with torch.autocast(x.device.type, enabled=False):  # its rounding would be noise to learn
        return torch.einsum("ij,bjxyz->bixyz", _matrix(x), space_to_depth(x, 2))


def image_of(coefficients: Tensor) -> Tensor:
    """The image of `haar` coefficients."""
    with torch.autocast(coefficients.device.type, enabled=False):
        blocks = torch.einsum("ij,bixyz->bjxyz", _matrix(coefficients), coefficients)
    return depth_to_space(blocks, 2)


def _matrix(like: Tensor) -> Tensor:
    """(8, 8), symmetric and orthonormal."""
    one = torch.tensor([[1.0, 1.0], [1.0, -1.0]]).to(like) / 2**0.5
    return torch.kron(torch.kron(one, one), one)
