from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from medddpm.operators.phase import linear_phase, object_phase

SHAPE = (32, 36, 24)


def grid() -> tuple[Tensor, Tensor, Tensor]:
    x, y, z = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return x, y, z


def ball() -> Tensor:
    x, y, z = grid()
    return (x**2 + y**2 + z**2 < 0.7).float()


def noisy(phase: Tensor, sigma: float = 0.15) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(SHAPE, dtype=torch.complex64, generator=generator) * 2**0.5
    return (ball() * torch.polar(torch.ones(SHAPE), phase) + sigma * noise)[None]


def error(found: Tensor, phase: Tensor) -> float:
    """Root mean square of the phase that is left inside of the ball, in radians."""
    left = torch.angle(found[0] * torch.polar(torch.ones(SHAPE), -phase))
    x, y, z = grid()
    return float(left[x**2 + y**2 + z**2 < 0.5].square().mean().sqrt())


def test_a_smooth_phase_is_found_in_noise() -> None:
    x, y, z = grid()
    phase = 1.5 * x - y + 0.8 * z * z + x * y
    assert error(object_phase(noisy(phase)), phase) < 0.1


@pytest.mark.parametrize("step", [np.pi, 2.0, -0.7])
def test_a_steep_ramp_is_found_up_to_a_sign_that_changes_from_voxel_to_voxel(step: float) -> None:
    x, _, _ = grid()
    ramp = step * torch.arange(SHAPE[2]).float().expand(SHAPE)
    found = object_phase(noisy(ramp + x))
    assert error(found, ramp + x) < 0.1


def test_slices_with_phases_of_their_own_are_taken_one_by_one() -> None:
    x, y, _ = grid()
    own = torch.linspace(0, 300, SHAPE[2]) ** 2  # radians: nothing to do with each other
    phase = own.expand(SHAPE) + 0.5 * x + 0.5 * y
    assert error(object_phase(noisy(phase)), phase) < 0.15


def test_the_ramp_of_each_item_of_a_batch_is_its_own() -> None:
    lines = torch.arange(SHAPE[0]).float().reshape(-1, 1, 1).expand(SHAPE)
    batch = torch.stack([torch.polar(torch.ones(SHAPE), step * lines) for step in (0.3, -1.0)])
    left = linear_phase(batch) * batch.conj()
    steps = left[:, 1:] * left[:, :-1].conj()
    torch.testing.assert_close(steps, torch.ones_like(steps), atol=1e-3, rtol=0)


def test_a_blank_image_and_a_single_slice_have_a_phase() -> None:
    assert torch.isfinite(torch.view_as_real(object_phase(torch.zeros(1, 8, 8, 8) + 0j))).all()
    flat = torch.ones(1, 16, 16, 1, dtype=torch.complex64) * 1j
    torch.testing.assert_close(object_phase(flat), flat)
