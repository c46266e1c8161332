from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from medddpm.errors import ShapeError
from medddpm.operators.compression import compression_matrix
from medddpm.operators.espirit import espirit_maps
from medddpm.operators.fourier import cropped, fft
from medddpm.operators.gfactor import replica_g_factor, sense_g_factor
from medddpm.operators.linear import Sense, hybrid
from medddpm.operators.solve import conjugate_gradients
from medddpm.operators.whitening import (
    edge_samples,
    mixed,
    noise_covariance,
    whitening_matrix,
)
from medddpm.preprocess.acquisition import simulated_coils


def coils(shape: tuple[int, int, int], count: int = 4) -> Tensor:
    return torch.from_numpy(simulated_coils(shape, count, np.random.default_rng(3)))


def disc(shape: tuple[int, int, int]) -> Tensor:
    axes = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    return ((x / 0.7) ** 2 + (y / 0.8) ** 2 + (z / 0.8) ** 2 < 1).to(torch.complex64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(32, 36, 1), (20, 18, 22)])
def test_espirit_finds_the_coils_up_to_a_phase(shape: tuple[int, int, int]) -> None:
    truth, object_ = coils(shape), disc(shape)
    object_ = object_ * torch.exp(0.5j * torch.linspace(-1, 1, shape[0]))[:, None, None]
    kspace = fft(truth * object_)
    centre = cropped(kspace, [min(n, 16) for n in shape])
    maps = espirit_maps(centre, shape, kernel=4)
    inside = object_.abs() > 0
    agreement = (maps.conj() * truth).sum(dim=0).abs()[inside]
    assert float(agreement.mean()) > 0.999
    power = maps.abs().square().sum(dim=0)
    torch.testing.assert_close(power[inside], torch.ones_like(power[inside]), atol=1e-4, rtol=0)
    assert bool(((power - 1).abs() < 1e-4).logical_or(power == 0).all())


def test_maps_are_zero_far_from_all_signal() -> None:
    shape = (48, 48, 1)
    small = disc((16, 16, 1))
    object_ = cropped(small, shape)
    maps = espirit_maps(cropped(fft(coils(shape) * object_), (24, 24, 1)), shape)
    power = maps.abs().square().sum(dim=0)
    assert float(power[:6].max()) == 0
    assert float(power[object_.abs() > 0].min()) > 0.99


def test_espirit_makes_the_first_principal_coil_real() -> None:
    shape = (24, 24, 1)
    kspace = fft(coils(shape) * disc(shape))
    centre = cropped(kspace, (16, 16, 1))
    maps = espirit_maps(centre, shape, kernel=4)
    first = mixed(maps[None], compression_matrix(centre[None], 1))[0, 0]
    assert float(first.imag.abs().max()) < 1e-4
    assert float(first.real.min()) > -1e-4


def test_one_coil_has_a_map_of_one() -> None:
    shape = (24, 24, 1)
    maps = espirit_maps(cropped(fft(disc(shape))[None], (16, 16, 1)), shape, kernel=4)
    torch.testing.assert_close(maps[0][disc(shape).abs() > 0].abs().mean(), torch.tensor(1.0))


def test_too_small_or_blank_a_centre_is_refused() -> None:
    with pytest.raises(ShapeError, match="11 lines"):
        espirit_maps(randn(2, 8, 8, 1), (32, 32, 1))
    with pytest.raises(ShapeError, match="blank"):
        espirit_maps(torch.zeros(2, 16, 16, 1, dtype=torch.complex64), (32, 32, 1))


def test_whitened_noise_is_white_and_of_unit_sigma() -> None:
    mixing = randn(4, 4, seed=1) + 2 * torch.eye(4)
    matrix = whitening_matrix(noise_covariance(mixing @ randn(4, 20000)))
    again = mixed((mixing @ randn(4, 20000, seed=7))[None], matrix)[0]
    covariance = noise_covariance(again)
    torch.testing.assert_close(covariance, 2 * torch.eye(4) + 0j, atol=0.1, rtol=0)
    assert float(again.real.std()) == pytest.approx(1, abs=0.02)


def test_noise_that_says_nothing_is_refused() -> None:
    with pytest.raises(ShapeError, match="3 noise samples of 4 coils"):
        noise_covariance(randn(4, 3))
    with pytest.raises(ShapeError, match="all zero"):
        whitening_matrix(torch.zeros(2, 2, dtype=torch.complex64))
    dead = randn(2, 100)
    dead[1] = dead[0]
    with pytest.raises(ShapeError, match="dependent"):
        whitening_matrix(noise_covariance(dead))


def test_edges_of_kspace_are_far_from_its_centre() -> None:
    kspace = torch.zeros(1, 2, 40, 40, 1, dtype=torch.complex64)
    kspace[:, :, 3:37, 3:37] = 100
    found = edge_samples(kspace, torch.ones(1, 40, 40, 1))
    assert found.shape == (2, 16)
    assert float(found.abs().max()) == 0


def test_compression_keeps_the_signal_of_dependent_coils() -> None:
    few = randn(1, 2, 8, 8, 1)
    many = mixed(few, randn(5, 2, seed=2))
    matrix = compression_matrix(many, 2)
    torch.testing.assert_close(matrix @ matrix.conj().T, torch.eye(2) + 0j, atol=1e-5, rtol=0)
    kept = mixed(many, matrix)
    torch.testing.assert_close(torch.linalg.vector_norm(kept), torch.linalg.vector_norm(many))
    with pytest.raises(ShapeError, match="compressed to 6"):
        compression_matrix(many, 6)


def test_both_g_factors_agree_within_five_percent() -> None:
    shape = (2, 24, 1)
    maps = coils(shape, 4)
    mask = torch.zeros(1, 2, 24, 1)
    mask[:, :, ::2] = 1
    analytic = sense_g_factor(maps, (1, 2, 1))

    def solved(mask: Tensor) -> Tensor:
        def run(kspace: Tensor) -> Tensor:
            data, short, axes = hybrid(kspace * mask[:, None], mask)
            sense = Sense(maps[None], short, axes)
            return conjugate_gradients(sense.normal, sense.adjoint(data), iterations=30)

        return run

    blank = torch.zeros(6, 4, *shape) + 0j  # six at once: 600 replicas
    each = replica_g_factor(solved(mask), solved(torch.ones(1, *shape)), blank, 2, replicas=100)
    found = each.square().mean(dim=0).sqrt()
    assert float(analytic.min()) > 0.99
    assert float(analytic.max()) > 1.02  # there is something to agree on
    assert float((found / analytic).mean()) == pytest.approx(1, abs=0.02)
    assert float((found / analytic - 1).abs().mean()) < 0.05


def test_g_is_one_without_acceleration_and_zero_without_coils() -> None:
    maps = coils((6, 6, 4)).clone()
    maps[:, :2] = 0
    g = sense_g_factor(maps, (1, 1, 1))
    torch.testing.assert_close(g[2:], torch.ones(4, 6, 4), atol=1e-4, rtol=0)
    assert float(g[:2].max()) == 0
    alike = maps[:1].expand(2, 6, 6, 4)  # no coil tells folded voxels apart
    assert float(sense_g_factor(alike, (1, 2, 1)).max()) > 100
    with pytest.raises(ShapeError, match="no multiple"):
        sense_g_factor(maps, (1, 4, 1))
