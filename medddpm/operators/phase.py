"""The smooth phase of an object, which its coils, its field and the timing of its echo give it."""

from __future__ import annotations

import torch
from torch import Tensor

from medddpm.operators.fourier import SPATIAL, fft, ifft

_PASSED = 0.2
"""Of Nyquist along each axis: the object's phase is taken from lower frequencies."""
_APART = 0.5
"""Planes whose phases agree by less than this, relative to neighbours within them, have each a
phase of their own: slices that were excited one by one, as in diffusion."""


def object_phase(x: Tensor) -> Tensor:
    """exp(i phase) of an image, (B, X, Y, Z): its phase ramp times what is smooth beside it.

    A ramp is what an echo off the centre of k-space leaves, and a change of sign from voxel to
    voxel, as some scanners write it, is the steepest of them. Where the planes along one axis do
    not agree, each has its phase estimated alone.

    Args:
        x: (B, X, Y, Z) complex.
    """
    agree = [_agreement(x, axis) for axis in SPATIAL]
    known = [value for value in agree if value is not None]
    least = min(known, default=1.0)
    if least < _APART * max(known, default=0.0):
        axis = SPATIAL[agree.index(least)]
        planes = x.movedim(axis, 1)
        alone = object_phase(planes.flatten(0, 1).unsqueeze(axis)).squeeze(axis)
        return alone.reshape(planes.shape).movedim(1, axis)
    ramp = linear_phase(x)
    return ramp * smooth_phase(x * ramp.conj())


def smooth_phase(x: Tensor) -> Tensor:
    """exp(i phase) of the low frequencies of an image, (B, X, Y, Z)."""
    low = fft(x)
    for axis in SPATIAL:
        length = x.shape[axis]
        place = (torch.arange(length, device=x.device) - length // 2).abs() / max(length / 2, 1)
        window = (0.5 + 0.5 * torch.cos(torch.pi * (place / _PASSED).clamp_max(1))).to(x.real.dtype)
        if length > 1:
            low = low * window.reshape([-1 if a == axis else 1 for a in SPATIAL])
    low = ifft(low)
    return torch.where(low.abs() > 0, low / low.abs().clamp_min(1e-30), 1)


def linear_phase(x: Tensor) -> Tensor:
    """exp(i ramp) of an image (B, X, Y, Z): the mean step of its phase along each axis.

    The step is the angle of the correlation of neighbours (Ahn and Cho, IEEE Trans Med Imaging
    6:32, 1987, eq. 7), each item of the batch on its own.
    """
    out = torch.ones_like(x)
    for axis in SPATIAL:
        length = x.shape[axis]
        if length < 2:
            continue
        step = torch.angle(_neighbours(x, axis))
        place = torch.arange(length, device=x.device) - length // 2
        line = place.reshape([-1 if a == axis else 1 for a in SPATIAL])
        angle = step.reshape(-1, 1, 1, 1) * line
        out = out * torch.polar(torch.ones_like(angle), angle)
    return out


def _neighbours(x: Tensor, axis: int) -> Tensor:
    """(B,) sum of conj(x) times the next voxel along an axis."""
    length = x.shape[axis]
    first, second = x.narrow(axis, 0, length - 1), x.narrow(axis, 1, length - 1)
    return (first.conj() * second).flatten(1).sum(dim=1)


def _agreement(x: Tensor, axis: int) -> float | None:
    """How far neighbours along an axis have one step of phase: 1 if all; None if there is one."""
    length = x.shape[axis]
    if length < 2:
        return None
    size = x.abs()
    whole = size.narrow(axis, 0, length - 1) * size.narrow(axis, 1, length - 1)
    return float(_neighbours(x, axis).abs().sum() / whole.sum().clamp_min(1e-30))
