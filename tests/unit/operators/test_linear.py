from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from medddpm.errors import ShapeError
from medddpm.operators.fourier import cropped, fft, ifft, on_matrix, without_oversampling
from medddpm.operators.linear import (
    Coils,
    Composed,
    Fourier,
    Linear,
    Sampling,
    Sense,
    hybrid,
)
from medddpm.operators.solve import conjugate_gradients, inner, largest_eigenvalue

SHAPE = (6, 7, 4)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def unit_maps(coils: int = 3, shape: tuple[int, ...] = SHAPE) -> Tensor:
    maps = noise(1, coils, *shape, seed=5)
    return maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)


def lines(*, every: int = 2) -> Tensor:
    mask = torch.zeros(1, *SHAPE)
    mask[:, :, ::every] = 1
    return mask


CASES: dict[str, tuple[Callable[[], Linear], tuple[int, ...], tuple[int, ...]]] = {
    "fourier": (Fourier, (2, *SHAPE), (2, *SHAPE)),
    "fourier along y": (lambda: Fourier((-2,)), (2, *SHAPE), (2, *SHAPE)),
    "coils": (lambda: Coils(unit_maps()), (2, *SHAPE), (2, 3, *SHAPE)),
    "sampling": (lambda: Sampling(lines()), (2, 3, *SHAPE), (2, 3, *SHAPE)),
    "sense": (lambda: Sense(unit_maps(), lines()), (2, *SHAPE), (2, 3, *SHAPE)),
    "sense, hybrid": (
        lambda: Sense(unit_maps(), lines()[:, :1, :, :1], (-2,)),
        (2, *SHAPE),
        (2, 3, *SHAPE),
    ),
    "composed": (
        lambda: Composed([Coils(unit_maps()), Fourier(), Sampling(lines())]),
        (2, *SHAPE),
        (2, 3, *SHAPE),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_adjoint_and_normal_belong_to_the_operator(name: str) -> None:
    make, domain, target = CASES[name]
    operator, x, y = make(), noise(*domain), noise(*target, seed=1)
    there, back = inner(operator.forward(x), y), inner(x, operator.adjoint(y))
    size = torch.linalg.vector_norm(x) * torch.linalg.vector_norm(y)
    assert float((there - back).abs().max() / size) < 1e-5
    twice = operator.adjoint(operator.forward(x))
    torch.testing.assert_close(operator.normal(x), twice, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_operators_are_linear(name: str) -> None:
    make, domain, _ = CASES[name]
    operator, x, z = make(), noise(*domain), noise(*domain, seed=2)
    whole = operator.forward(2j * x + z)
    torch.testing.assert_close(whole, 2j * operator.forward(x) + operator.forward(z))


@pytest.mark.parametrize("name", CASES)
def test_norms_are_at_most_one_for_unit_maps(name: str) -> None:
    make, domain, _ = CASES[name]
    assert largest_eigenvalue(make().normal, noise(*domain), 60) == pytest.approx(1, abs=0.02)


def test_transform_is_unitary_centred_and_inverted() -> None:
    x = noise(2, *SHAPE)
    k = fft(x)
    torch.testing.assert_close(ifft(k), x)
    assert torch.linalg.vector_norm(k).item() == pytest.approx(
        torch.linalg.vector_norm(x).item(), rel=1e-5
    )
    point = torch.zeros(SHAPE, dtype=torch.complex64)
    point[3, 3, 2] = 1  # the centre N // 2
    torch.testing.assert_close(fft(point), torch.full(SHAPE, 168**-0.5 + 0j))


def test_sense_is_the_composition_of_its_parts() -> None:
    x = noise(2, *SHAPE)
    parts = Composed([Coils(unit_maps()), Fourier(), Sampling(lines())])
    whole = Sense(unit_maps(), lines())
    torch.testing.assert_close(whole.forward(x), parts.forward(x))
    torch.testing.assert_close(whole.normal(x), parts.normal(x))


def test_hybrid_space_has_the_same_normal_equations() -> None:
    kspace, mask = noise(1, 3, *SHAPE), lines()
    data, short, axes = hybrid(kspace * mask[:, None], mask)
    assert axes == (-2,)
    assert short.shape == (1, 1, 7, 1)
    whole, fast = Sense(unit_maps(), mask), Sense(unit_maps(), short, axes)
    torch.testing.assert_close(fast.adjoint(data), whole.adjoint(kspace), rtol=1e-4, atol=1e-5)
    x = noise(1, *SHAPE, seed=3)
    torch.testing.assert_close(fast.normal(x), whole.normal(x), rtol=1e-4, atol=1e-5)


def test_sense_refuses_shapes_without_coils() -> None:
    with pytest.raises(ShapeError, match="maps are"):
        Sense(noise(3, *SHAPE), lines())


def test_conjugate_gradients_solve_each_item_of_a_batch() -> None:
    factor = noise(3, 8, 8)
    matrix = factor @ factor.conj().transpose(1, 2) + 0.5 * torch.eye(8)
    truth = noise(3, 8, seed=4)
    truth[1] = 0
    right = torch.einsum("bij,bj->bi", matrix, truth)
    found = conjugate_gradients(
        lambda x: torch.einsum("bij,bj->bi", matrix, x), right, iterations=60
    )
    torch.testing.assert_close(found, truth, rtol=1e-3, atol=1e-3)


def test_a_start_at_the_solution_stays_there() -> None:
    right = noise(2, 5)
    calls = []

    def apply(x: Tensor) -> Tensor:
        calls.append(1)
        return 2 * x

    torch.testing.assert_close(conjugate_gradients(apply, right, right / 2), right / 2)
    assert len(calls) == 1


@pytest.mark.parametrize(("old", "new"), [(8, 6), (8, 5), (7, 4), (6, 9), (5, 8)])
def test_cropping_keeps_the_centre(old: int, new: int) -> None:
    array = torch.zeros(old)
    array[old // 2] = 1
    assert int(cropped(array, (new,), (0,)).argmax()) == new // 2


def test_cropping_to_nothing_is_refused() -> None:
    with pytest.raises(ShapeError, match="cropped"):
        cropped(torch.zeros(4), (0,), (0,))


def test_oversampling_is_removed_by_cropping_the_image() -> None:
    wide = torch.zeros(1, 1, 16, 4, 1, dtype=torch.complex64)
    wide[:, :, 5:11] = noise(1, 1, 6, 4, 1)
    narrow = without_oversampling(fft(wide), 8)
    torch.testing.assert_close(ifft(narrow), wide[:, :, 4:12], atol=1e-5, rtol=1e-4)
    assert without_oversampling(narrow, 9) is narrow


def test_a_finer_matrix_keeps_a_smooth_image() -> None:
    place = (torch.arange(8) - 4) / 8 * 2 * torch.pi
    image = (1 + 0.5 * torch.cos(place)).to(torch.complex64)[:, None, None]
    fine = on_matrix(image, (16, 1, 1))
    torch.testing.assert_close(fine[::2], image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(on_matrix(fine, (8, 1, 1)), image, atol=1e-5, rtol=1e-5)
