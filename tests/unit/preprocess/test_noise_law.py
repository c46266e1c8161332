"""The noise law: a field has the spectrum that is asked for, and blocks the power of its sum."""

import numpy as np
import pytest

from medddpm.errors import ConfigError
from medddpm.preprocess.noise_law import WHITE, Colour, NoiseLaw

ELLIPSE = Colour((0.6, 0.7, 1.0), (0, 1), ((1.0, 0.9, 0.3), (1.0,), (1.0, 0.8)))


def frequencies(shape: tuple[int, ...]) -> list[np.ndarray]:
    return [np.fft.fftfreq(n) * 2 for n in shape]


def test_field_has_unit_variance_and_nothing_outside_its_support(rng) -> None:
    shape = (48, 40, 36)
    fields = [ELLIPSE.field(shape, rng) for _ in range(20)]
    assert np.mean(np.square(fields)) == pytest.approx(1, rel=0.02)
    power = np.mean([np.abs(np.fft.fftn(f)) ** 2 for f in fields], axis=0) / np.prod(shape)
    expected = ELLIPSE.power(frequencies(shape))
    expected = expected / expected.mean()
    assert power[expected == 0].max() < 1e-9
    inside = expected > 0
    assert np.mean(power[inside] / expected[inside]) == pytest.approx(1, rel=0.02)
    high = inside & (np.abs(frequencies(shape)[0])[:, None, None] > 0.5)
    assert np.mean(power[high] / expected[high]) == pytest.approx(1, rel=0.05)


def test_coefficients_of_blocks_have_the_std_that_is_said(rng) -> None:
    from scipy.fft import dctn

    shape = (64, 64, 64)
    blocks = []
    for _ in range(4):
        field = ELLIPSE.field(shape, rng)
        parts = field.reshape(16, 4, 16, 4, 16, 4).transpose(0, 2, 4, 1, 3, 5)
        blocks.append(dctn(parts, axes=(3, 4, 5), norm="ortho").reshape(-1, 64))
    measured = np.concatenate(blocks).std(axis=0)
    said = ELLIPSE.block_std(4)
    assert np.mean(said**2) == pytest.approx(1, rel=0.01)
    loud = said > 0.1
    np.testing.assert_allclose(measured[loud], said[loud], rtol=0.06)
    assert measured[~loud].max() < 0.13


def test_white_is_one_everywhere() -> None:
    assert WHITE.is_white
    assert not ELLIPSE.is_white
    np.testing.assert_array_equal(WHITE.block_std(4), np.ones(64, np.float32))
    flat = Colour(window=((2.0, 2.0), (1.0,), (1.0,)))
    np.testing.assert_allclose(flat.block_std(4), 1)


def test_a_crop_in_k_space_moves_the_edges() -> None:
    cropped = ELLIPSE.on_grid((0.6, 0.7, 1.0))
    np.testing.assert_allclose(cropped.edge, 1)
    assert cropped.elliptical == (0, 1)
    assert ELLIPSE.on_grid((0.5, 1, 1)).edge == (1.0, 0.7, 1.0)


def test_moved_axes_move_everything() -> None:
    moved = ELLIPSE.moved((2, 0, 1))
    assert moved.edge == (1.0, 0.6, 0.7)
    assert moved.elliptical == (1, 2)
    assert moved.window[1] == ELLIPSE.window[0]
    values = ELLIPSE.block_std(4).reshape(4, 4, 4).transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(moved.block_std(4), values, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"edge": (0.0, 1.0, 1.0)},
        {"edge": (1.2, 1.0, 1.0)},
        {"elliptical": (1,)},
        {"elliptical": (1, 3)},
        {"window": ((0.0,), (1.0,), (1.0,))},
        {"window": ((), (1.0,), (1.0,))},
    ],
)
def test_what_is_no_spectrum_is_refused(wrong) -> None:
    with pytest.raises(ConfigError):
        Colour(**wrong)


@pytest.mark.parametrize(("kind", "coils", "dof"), [("rician", 1, 2), ("ncchi", 4, 8)])
def test_magnitude_has_the_second_moment_of_its_law(kind, coils, dof, rng) -> None:
    law = NoiseLaw(kind, coils, 0.2, ELLIPSE)
    assert law.dof == dof
    signal = np.full((40, 40, 40), 0.5, np.float32)
    power = np.mean([np.mean(law.added_to(signal, rng) ** 2) for _ in range(6)])
    assert power == pytest.approx(0.25 + dof * 0.04, rel=0.02)


def test_gaussian_noise_has_no_bias(rng) -> None:
    law = NoiseLaw("gaussian", 1, np.float32(0.3), ELLIPSE)
    noisy = law.added_to(np.zeros((40, 40, 40), np.float32), rng)
    assert noisy.min() < -0.5
    assert np.std(noisy) == pytest.approx(0.3, rel=0.03)
