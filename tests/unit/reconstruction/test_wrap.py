from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medddpm.operators.fourier import cropped, fft
from medddpm.preprocess.acquisition import simulated_coils
from medddpm.reconstruction.problem import Problem, make_problem
from medddpm.reconstruction.wrap import edge_shares, wrap_notices

SHAPE = (24, 32, 28)


def problem(radii: tuple[float, float, float]) -> Problem:
    """An ellipsoid, whose field of view has half-widths of 1."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = (x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2 < 1
    maps = torch.from_numpy(simulated_coils(SHAPE, 3, np.random.default_rng(0)))
    kspace = fft(maps * torch.from_numpy(inside.astype(np.float32)))[None]
    white = 1e-3 * torch.randn(3, 500, dtype=torch.complex64)
    return make_problem(
        kspace, torch.ones(1, *SHAPE, dtype=torch.bool), (1, 1, 1), noise=white, maps=maps[None]
    )


@pytest.mark.parametrize(
    ("radii", "expected"),
    [
        ((0.7, 0.8, 0.75), []),
        ((0.7, 1.5, 0.75), ["phase encoding (y)"]),
        ((0.7, 0.8, 1.5), ["second phase encoding (z)"]),
        ((2.0, 0.8, 0.75), []),  # read out: it does not fold
        ((0.7, 1.8, 1.8), ["phase encoding (y)", "second phase encoding (z)"]),
    ],
)
def test_axes_that_the_object_fills_are_named(
    radii: tuple[float, float, float], expected: list[str]
) -> None:
    notices = wrap_notices(problem(radii))
    assert len(notices) == len(expected)
    for notice, name in zip(notices, expected, strict=True):
        assert f"along {name} (" in notice


def test_one_edge_alone_does_not_fold() -> None:
    """The neck goes out of the field of view, and there is air above the head."""
    image = torch.zeros(SHAPE, dtype=torch.complex64)
    image[6:18, 8:, 8:20] = 1
    assert edge_shares(cropped(fft(image), (24, 24, 24))[None, None])[1] < 0.05
    image[6:18, :, 8:20] = 1
    assert edge_shares(cropped(fft(image), (24, 24, 24))[None, None])[1] > 0.15


def test_slices_have_no_edge_across() -> None:
    flat = problem((0.7, 0.8, 0.75))
    one = replace(flat, centre=flat.centre[..., 12:13])
    assert edge_shares(one.centre)[2] == 0
