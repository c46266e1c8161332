from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medddpm.errors import MissingExtraError, ShapeError
from medddpm.io.raw_bart import read_cfl, write_cfl
from medddpm.operators.fourier import fft
from medddpm.operators.nufft import NufftSense, density_weights, nufft, nufft_adjoint
from medddpm.operators.solve import inner, largest_eigenvalue

SHAPES = [(6, 7, 4), (7, 8, 1)]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def scattered(shape: tuple[int, ...], *count: int, seed: int = 3) -> Tensor:
    """Places at random within the encoded matrix."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*count, 3, generator=generator) - 0.5) * torch.tensor(shape)


def spokes(length: int, count: int) -> Tensor:
    """(M, 3), read twice as densely as the field of view asks for."""
    angle = torch.arange(count) * torch.pi / count
    radius = (torch.arange(2 * length) - length) / 2
    flat = [radius[:, None] * angle.cos(), radius[:, None] * angle.sin()]
    return torch.stack([*flat, torch.zeros_like(flat[0])], dim=-1).reshape(-1, 3)


def finufft() -> None:
    pytest.importorskip("finufft", reason="needs the extra nufft")


@pytest.mark.parametrize("shape", SHAPES)
def test_on_the_grid_it_is_the_centred_transform(shape: tuple[int, ...]) -> None:
    finufft()
    grid = torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij")
    x = randn(2, *shape)
    found = nufft(x, torch.stack(grid, dim=-1).reshape(-1, 3).float())
    torch.testing.assert_close(found.reshape(x.shape), fft(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_off_the_grid_it_is_the_sum_of_waves(shape: tuple[int, ...]) -> None:
    finufft()
    x, places = randn(*shape), scattered(shape, 11)
    voxels = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij"), -1)
    turns = voxels.reshape(-1, 3) / np.asarray(shape) @ places.numpy().T
    expected = x.numpy().ravel() @ np.exp(-2j * np.pi * turns) / np.prod(shape) ** 0.5
    np.testing.assert_allclose(nufft(x, places).numpy(), expected, atol=1e-5)


def operator(shape: tuple[int, ...], trajectories: int) -> NufftSense:
    maps = randn(1, 3, *shape, seed=5)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    weights = torch.rand(trajectories, 9, 5, 1, generator=torch.Generator().manual_seed(1))
    weights[:, 3] = 0
    return NufftSense(maps, weights, scattered(shape, trajectories, 9, 5, 1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("trajectories", [1, 2])
def test_adjoint_and_normal_belong_to_the_operator(
    shape: tuple[int, ...], trajectories: int
) -> None:
    finufft()
    a = operator(shape, trajectories)
    x, y = randn(2, *shape), randn(2, 3, 9, 5, 1, seed=1)
    there, back = inner(a.forward(x), y), inner(x, a.adjoint(y))
    size = torch.linalg.vector_norm(x) * torch.linalg.vector_norm(y)
    assert float((there - back).abs().max() / size) < 1e-5
    assert float(there.abs().min()) > 1e-2
    torch.testing.assert_close(a.normal(x), a.adjoint(a.forward(x)), rtol=1e-5, atol=1e-5)


def test_other_weights_are_used_by_the_normal_operator_too() -> None:
    finufft()
    a = operator((7, 8, 1), 1)
    x = randn(1, 7, 8, 1)
    a.normal(x)  # keeps its kernel
    b = a.masked(a.mask * (torch.arange(5) < 2)[:, None])
    torch.testing.assert_close(b.normal(x), b.adjoint(b.forward(x)), rtol=1e-5, atol=1e-5)
    assert float((b.normal(x) - a.normal(x)).abs().max()) > 0.1


def test_weights_of_a_grid_are_one() -> None:
    finufft()
    grid = torch.meshgrid(*(torch.arange(n) - n // 2 for n in (8, 10, 1)), indexing="ij")
    places = torch.stack(grid, dim=-1).reshape(-1, 3).float()
    whole = density_weights(places, torch.ones(80), (8, 10, 1))
    torch.testing.assert_close(whole, torch.ones(80), rtol=1e-4, atol=1e-4)
    half = density_weights(places, (torch.arange(80) % 2 == 0).float(), (8, 10, 1))
    torch.testing.assert_close(half[::2], torch.ones(40), rtol=1e-4, atol=1e-4)
    assert not half[1::2].any()
    with pytest.raises(ShapeError, match="no sample"):
        density_weights(places, torch.zeros(80), (8, 10, 1))


def test_weights_of_spokes_are_their_areas() -> None:
    """Half a cell along a spoke, and across it the arc up to the next one."""
    finufft()
    length, count = 48, 76
    weights = density_weights(spokes(length, count), torch.ones(2 * length * count), (48, 48, 1))
    radius = (torch.arange(2 * length) - length).abs() / 2
    area = radius * torch.pi / count / 2
    between = (radius > 3) & (radius < 20)
    found = weights.reshape(2 * length, count).mean(dim=1)
    torch.testing.assert_close(found[between], area[between], rtol=0.1, atol=0)


def test_gridding_keeps_an_object_in_the_middle_as_it_is() -> None:
    finufft()
    places = spokes(48, 76)
    weights = density_weights(places, torch.ones(len(places)), (48, 48, 1))
    x, y = torch.meshgrid(torch.arange(48) - 24, torch.arange(48) - 24, indexing="ij")
    smooth = torch.exp(-(x**2 + y**2) / 40.0)[..., None].to(torch.complex64)
    back = nufft_adjoint(weights * nufft(smooth, places), places, (48, 48, 1))
    torch.testing.assert_close(back, smooth, rtol=0, atol=0.03)
    disc = ((x**2 + y**2) < 20**2).to(torch.complex64)[None, None, ..., None]
    a = NufftSense(disc, weights.sqrt().reshape(1, 96, 76, 1), places.reshape(1, 96, 76, 1, 3))
    assert 0.9 < largest_eigenvalue(a.normal, randn(1, 48, 48, 1), 40) < 1.15


def test_without_finufft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "finufft", None)
    with pytest.raises(MissingExtraError, match=r"finufft.*nufft"):
        nufft(randn(4, 4, 1), torch.zeros(3, 3))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="places"):
        NufftSense(randn(1, 2, 4, 4, 1), torch.ones(1, 3, 2, 1), torch.zeros(1, 6, 3))


def test_bart_has_the_same_samples(tmp_path: Path) -> None:
    """`bart nufft`, whose transform is unitary too, and takes places in the same unit."""
    finufft()
    bart = shutil.which("bart")
    if bart is None:
        pytest.skip("bart is not installed: apt-get install bart")
    x, places = randn(32, 24, 1), spokes(32, 20) * torch.tensor([0.9, 0.65, 1])
    write_cfl(x.numpy(), tmp_path / "image")
    write_cfl(places.numpy().T.reshape(3, 64, 20).astype(np.complex64), tmp_path / "places")
    names = [str(tmp_path / name) for name in ("places", "image", "samples")]
    subprocess.run([bart, "nufft", *names], check=True, capture_output=True)
    expected = read_cfl(tmp_path / "samples").ravel()
    found = nufft(x, places).numpy()
    assert np.linalg.norm(found - expected) < 2e-3 * np.linalg.norm(expected)
    write_cfl(found.reshape(1, 64, 20), tmp_path / "found")
    names = [str(tmp_path / name) for name in ("places", "found", "back")]
    subprocess.run([bart, "nufft", "-a", "-d32:24:1", *names], check=True, capture_output=True)
    back = nufft_adjoint(torch.from_numpy(found), places, (32, 24, 1)).numpy()[..., 0]
    gap = read_cfl(tmp_path / "back").reshape(32, 24) - back
    assert np.linalg.norm(gap) < 2e-3 * np.linalg.norm(back)
