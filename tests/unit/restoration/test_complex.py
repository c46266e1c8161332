from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.errors import ShapeError, VolumeReadError
from medddpm.preprocess.noise_law import WHITE, Colour
from medddpm.restoration.restorer import Restored, RestoreOptions, Restorer
from medddpm.volume import ComplexVolume, Geometry, Volume

FAST = RestoreOptions(tile=64)
SCALE = 1000.0


@pytest.fixture
def phantom_shape() -> tuple[int, int, int]:
    return (40, 44, 36)


@pytest.fixture(scope="module")
def tiny(tiny_weights: Path) -> Restorer:
    return Restorer.from_pretrained(tiny_weights, device="cpu")


@pytest.fixture(scope="module")
def shipped() -> Restorer:
    return Restorer.from_pretrained(device="cpu")


def measured(clean: Volume, sigma: float, colour: Colour = WHITE) -> ComplexVolume:
    """The scan with a smooth phase and complex noise of `sigma` in each part, in k-space."""
    rng = np.random.default_rng(3)
    power = colour.power([np.fft.fftfreq(n) * 2 for n in clean.data.shape])
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in clean.data.shape), indexing="ij")
    whole = clean.data * np.exp(1j * (2 * x - y + z * z))
    whole = np.fft.ifftn(np.fft.fftn(whole) * (power > 0))
    real, imaginary = (
        part + sigma * colour.field(clean.data.shape, rng) for part in (whole.real, whole.imag)
    )
    return ComplexVolume(clean.with_data(real), clean.with_data(imaginary))


def test_at_low_signal_the_phase_leaves_less_bias_and_less_error(
    shipped: Restorer, phantom: Volume
) -> None:
    scan = measured(phantom, 0.15 * SCALE)
    options = RestoreOptions(tile=64, shifts=1)
    with_phase = shipped.restore_complex(scan, options=options)
    without = shipped.restore(scan.magnitude, options=options)
    head = phantom.data > 0
    dark = head & (phantom.data < 450)

    def rms(restored: Restored, where: NDArray[np.bool_]) -> float:
        gap = restored.volume.data - phantom.data
        return float(np.sqrt(np.mean(np.square(gap[where]))))

    def bias(restored: Restored) -> float:
        return abs(float((restored.volume.data - phantom.data)[dark].mean()))

    assert bias(with_phase) < 0.8 * bias(without)
    assert rms(with_phase, dark) < 0.97 * rms(without, dark)
    assert rms(with_phase, head) < rms(without, head)
    true = np.angle(scan.frame(0))  # of the noisy scan, whose noise is a third of the signal here
    left = np.angle(np.exp(1j * (true - with_phase.phase.data)))  # type: ignore[union-attr]
    assert np.sqrt(np.mean(left[phantom.data > 600] ** 2)) < 0.3


@pytest.mark.parametrize("colour", [WHITE, Colour((0.7, 0.7, 1.0))])
def test_level_and_colour_are_those_of_the_imaginary_part(
    tiny: Restorer, head: Any, oblique_affine: NDArray[np.float64], colour: Colour
) -> None:
    shape = (64, 64, 48)
    clean = Volume(head(shape), Geometry(shape, oblique_affine))
    found = tiny.restore_complex(measured(clean, 0.04 * SCALE, colour), options=FAST)
    frame = found.facts.shown
    assert frame.sigma.sigma == pytest.approx(0.04 * SCALE, rel=0.08)
    assert frame.colour is not None
    acquired = np.array(frame.acquired_matrix) / shape  # the grid of that colour
    assert acquired * frame.colour.edge == pytest.approx(colour.edge, abs=0.03)


def test_a_real_part_below_zero_is_no_shift(tiny: Restorer, phantom: Volume) -> None:
    scan = measured(phantom, 0.05 * SCALE)
    flipped = phantom.data > 900  # the phase of a third of the head is wrong by pi
    sign = np.where(flipped, -1, 1)
    whole = ComplexVolume(
        phantom.with_data(scan.real.data * sign), phantom.with_data(scan.imaginary.data * sign)
    )
    values = tiny.restore_complex(whole, options=FAST).facts.shown.values
    assert values.floor is None


@pytest.mark.parametrize("mode", ["mean", "ensemble"])
def test_frames_are_restored_one_by_one_and_blank_ones_pass(
    tiny: Restorer, phantom: Volume, mode: Any
) -> None:
    scan = measured(phantom, 50.0)
    parts = [
        p.with_data(np.stack([p.data, np.zeros_like(p.data)], -1))
        for p in (scan.real, scan.imaginary)
    ]
    options = RestoreOptions(mode=mode, samples=2, steps=1, tile=64)
    done = tiny.restore_complex(ComplexVolume(*parts), options=options)
    assert done.facts.blank_frames == [1]
    assert not done.volume.frame(1).any()
    assert done.phase is not None
    assert done.phase.data.shape == done.volume.data.shape
    assert np.abs(done.phase.data).max() <= np.pi + 1e-6
    assert done.facts.options["noise"] == "gaussian"
    if mode == "ensemble":
        assert done.lower is not None
        assert done.upper is not None
        assert done.lower.data.min() >= 0
        assert (done.lower.data <= done.volume.data).all()
        assert (done.volume.data <= done.upper.data).all()


def test_a_masked_background_stays_zero(tiny: Restorer, phantom: Volume) -> None:
    inside = phantom.data > 0
    scan = measured(phantom, 50.0)
    masked = ComplexVolume(
        *(p.with_data(np.where(inside, p.data, 0)) for p in (scan.real, scan.imaginary))
    )
    done = tiny.restore_complex(masked, options=FAST)
    assert not done.volume.data[~inside].any()
    assert done.volume.data[inside].all()


def test_parts_of_another_kind_are_refused(tiny: Restorer, phantom: Volume) -> None:
    film = phantom.with_data(np.stack([phantom.data] * 2, -1))
    with pytest.raises(ShapeError, match="frames"):
        ComplexVolume(phantom, film)
    nothing = phantom.with_data(np.zeros_like(phantom.data))
    with pytest.raises(VolumeReadError, match="all zeros"):
        tiny.restore_complex(ComplexVolume(nothing, nothing))
