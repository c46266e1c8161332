"""The centred, unitary Fourier transform, and changes of field of view and matrix by it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medddpm.errors import ShapeError

SPATIAL = (-3, -2, -1)
"""Axes X, Y, Z of an image or of k-space, whatever stands before them."""


def fft(image: Tensor, axes: Sequence[int] = SPATIAL) -> Tensor:
    """Image to k-space along `axes`, both with their centre at index N // 2; unitary.

    Args:
        image: (..., X, Y, Z) complex.
        axes: Those that are transformed.
    """
    shifted = torch.fft.ifftshift(image, dim=tuple(axes))
    out: Tensor = torch.fft.fftshift(
        torch.fft.fftn(shifted, dim=tuple(axes), norm="ortho"), tuple(axes)
    )
    return out


def ifft(kspace: Tensor, axes: Sequence[int] = SPATIAL) -> Tensor:
    """K-space to image along `axes`: the inverse and the adjoint of `fft`."""
    shifted = torch.fft.ifftshift(kspace, dim=tuple(axes))
    out: Tensor = torch.fft.fftshift(
        torch.fft.ifftn(shifted, dim=tuple(axes), norm="ortho"), tuple(axes)
    )
    return out


def cropped(array: Tensor, sizes: Sequence[int], axes: Sequence[int] = SPATIAL) -> Tensor:
    """The middle of an array, so that the centre N // 2 stays the centre; zeros where it grows.

    Args:
        array: Of any shape.
        sizes: New length of each of `axes`.
        axes: Axes that change.

    Raises:
        ShapeError: A size is below one.
    """
    if min(sizes) < 1:
        raise ShapeError(f"an array cannot be cropped to {tuple(sizes)}")
    for axis, size in zip(axes, sizes, strict=True):
        length = array.shape[axis]
        if size == length:
            continue
        start = length // 2 - size // 2
        if size < length:
            array = array.narrow(axis, start, size)
            continue
        shape = list(array.shape)
        shape[axis] = size
        larger = array.new_zeros(shape)
        larger.narrow(axis, -start, length).copy_(array)
        array = larger
    return array


def without_oversampling(kspace: Tensor, size: int, axis: int = -3) -> Tensor:
    """K-space of the middle `size` voxels along an axis, of which all samples are there.

    The noise of a sample keeps its standard deviation: the transforms are unitary.
    """
    if size >= kspace.shape[axis]:
        return kspace
    return fft(cropped(ifft(kspace, (axis,)), (size,), (axis,)), (axis,))


def on_matrix(image: Tensor, sizes: Sequence[int]) -> Tensor:
    """The same field of view on another matrix, by cropping k-space or filling it with zeros.

    Args:
        image: (..., X, Y, Z); its intensities are kept.
        sizes: The new X, Y, Z.
    """
    if tuple(image.shape[-3:]) == tuple(sizes):
        return image
    gain = 1.0
    for new, old in zip(sizes, image.shape[-3:], strict=True):
        gain *= (new / old) ** 0.5
    return ifft(cropped(fft(image), sizes)) * gain


def root_sum_squares(x: Tensor, dim: int = 0) -> Tensor:
    """sqrt(sum |x|^2) along an axis, ten times as fast as torch's norm of complex numbers."""
    square = x.real.square() + x.imag.square() if x.is_complex() else x.square()
    return square.sum(dim=dim).sqrt()
