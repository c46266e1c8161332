"""Values that are no magnitudes, spikes, grey backgrounds, scans without noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import VolumeReadError
from medddpm.preprocess.degrade import simulate
from medddpm.preprocess.intensity import above_floor, foreground_mask, intensity_scale
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.preprocess.spikes import find_spikes
from medddpm.preprocess.values import look, measure_noise, require_sign
from medddpm.volume import Geometry, Volume

Image = NDArray[np.float32]
SHAPE, SIGMA = (44, 48, 40), 40.0


@pytest.fixture
def clean(head: Any) -> Image:
    """A head of about 1000 in air that is 0, with the grain of real tissue."""
    image: Image = head(SHAPE)
    grain = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=image.shape), 2.5)
    image = np.where((image > 0) & (grain > 0.2 * grain.std()), 1.3 * image, image)
    return np.asarray(ndimage.gaussian_filter(image, 0.6), np.float32)


@pytest.fixture
def noisy(clean: Image, rng: np.random.Generator) -> Image:
    real, imaginary = rng.normal(0, SIGMA, (2, *clean.shape))
    return np.hypot(clean + real, imaginary).astype(np.float32)


def z_scored(image: Image) -> Image:
    return (image - image.mean()) / image.std()


def phase(image: Image) -> Image:
    ramp = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=image.shape), 6) * 250
    return (np.angle(np.exp(1j * ramp)) / np.pi * 4096).astype(np.float32)


def zero_filled(image: Image) -> Image:
    """The real part of an image that was interpolated by zeros around its k-space."""
    space = np.fft.fftshift(np.fft.fftn(image))
    padded = np.pad(space, [(n // 4 // 2 * 2, n // 4 // 2 * 2) for n in image.shape])
    return np.fft.ifftn(np.fft.ifftshift(padded)).real.astype(np.float32)


NO_MAGNITUDES: dict[str, Callable[[Image], Image]] = {
    "z-scored": z_scored,
    "z-scored brain in zeros": lambda x: np.where(x > 300, (x - 700) / 150, 0),
    "shifted as CT": lambda x: x - 1024,
    "shifted a little": lambda x: x - 200,
    "between -1 and 1": lambda x: x / 500 - 1,
    "phase in units of 4096": phase,
    "phase in radians": lambda x: phase(x) / 4096 * np.pi,
    "gaussian noise in air": lambda x: x + np.random.default_rng(2).normal(0, 60, x.shape) - 45,
    "padding of -2000": lambda x: np.where(np.indices(x.shape).sum(0) < 30, -2000, x),
    "bright voxels that overflowed": lambda x: np.where(x > 900, x - 2000, x),
    "difference of two": lambda x: x - np.roll(x, 3, axis=0),
    "large numbers": lambda x: z_scored(x) * 1e13,
    "small numbers": lambda x: z_scored(x) * 1e-13,
}


@pytest.mark.parametrize("make", NO_MAGNITUDES.values(), ids=NO_MAGNITUDES)
def test_what_is_no_magnitude_is_refused(make: Callable[[Image], Image], noisy: Image) -> None:
    image = make(noisy).astype(np.float32)
    share = f"{100 * (image < 0).mean():.0f} %" if (image < 0).mean() > 0.1 else " %"
    for kind in ("rician", "ncchi"):
        with pytest.raises(VolumeReadError, match=r"are negative.*--noise gaussian") as error:
            look(image, kind)  # type: ignore[arg-type]
        assert share in str(error.value)
    seen = look(image, "gaussian")
    assert seen.facts["negative_share"] == pytest.approx((image < 0).mean())
    assert intensity_scale(image) > 0


@pytest.mark.parametrize("order", [3, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_ringing_of_interpolation_is_a_magnitude(
    order: int, masked: bool, clean: Image, noisy: Image
) -> None:
    """Also of an extracted brain, whose edges ring most; what is below 0 is taken for 0."""
    sharp = np.where(clean > 300, noisy, 0) if masked else noisy
    sharp = np.where(clean > 20, sharp, 0)  # air without noise: all that is below 0 is ringing
    for image in (
        ndimage.zoom(sharp, 1.3, order=order),
        ndimage.rotate(sharp, 17, order=order, reshape=False),
        zero_filled(sharp),
    ):
        assert image.min() < 0
        seen = look(image, "rician")
        assert seen.image.min() == 0
        assert np.array_equal(seen.image, np.maximum(image, 0))
        assert not seen.notices


def test_a_magnitude_is_not_touched(noisy: Image) -> None:
    for kind in ("rician", "gaussian", "ncchi"):
        seen = look(noisy, kind)  # type: ignore[arg-type]
        assert seen.image is noisy
        assert (seen.floor, seen.kept, seen.quiet, seen.notices) == (0, None, False, ())
        assert seen.facts == {"negative_share": 0.0}
        mean = noisy.copy()
        assert seen.restored(mean) is mean


@pytest.mark.parametrize("scale", [1.0, 1e-3, 3e4])
def test_the_floor_of_a_shifted_scan(scale: float, noisy: Image) -> None:
    """Scale, foreground and noise are those of the scan that it was made of."""
    image = (noisy - 480) * np.float32(scale / 300)
    lifted, floor = above_floor(image)
    air = float(np.median(image[~foreground_mask(noisy)]))
    assert floor == pytest.approx(air, abs=0.1 * scale * 1000 / 300)
    assert above_floor(lifted)[1] == 0
    assert np.mean(foreground_mask(image) != foreground_mask(noisy)) < 0.005
    assert intensity_scale(image) == pytest.approx(intensity_scale(noisy) * scale / 300, rel=0.06)
    measured = measure_noise(look(image, "gaussian"), law=NoiseLaw("gaussian"))
    assert measured.sigma == pytest.approx(SIGMA * scale / 300, rel=0.15)


def test_a_shifted_scan_comes_back(noisy: Image) -> None:
    """Bit for bit where it is kept, to rounding elsewhere."""
    brain = np.where(noisy > 300, (noisy - 700) / 150, 0).astype(np.float32)
    seen = look(brain, "gaussian")
    assert seen.floor < 0
    assert seen.kept is not None
    assert np.array_equal(seen.kept, brain == 0)
    assert (seen.image[brain == 0] == 0).all()
    back = seen.restored(seen.image.copy())
    assert np.allclose(back, brain, atol=1e-6)
    assert (back[brain == 0] == 0).all()


def test_noise_around_an_air_of_zero_is_no_shift(clean: Image, rng: np.random.Generator) -> None:
    for sigma in (10, 50, 150):
        image = (clean + rng.normal(0, sigma, clean.shape)).astype(np.float32)
        assert above_floor(image) == (image, 0.0) or above_floor(image)[0] is image


SPIKES: dict[str, list[tuple[int, int, int, float]]] = {
    "one": [(20, 20, 20, 1e7)],
    "negative": [(20, 20, 20, -1e7)],
    "largest float": [(20, 20, 20, 3e38)],
    "ten times the scale": [(20, 20, 20, 1.5e4)],
    "at the border": [(0, 0, 0, 1e6), (43, 47, 39, 1e6), (0, 20, 39, -1e6)],
    "in air": [(2, 3, 4, 1e5)],
    "neighbours": [(20, 20, 20 + i, 1e6) for i in range(5)] + [(21, 20, 20, 1e6)],
    "a line": [(i, 20, 20, 1e6) for i in range(44)],
}


@pytest.mark.parametrize("spikes", SPIKES.values(), ids=SPIKES)
def test_spikes(spikes: list[tuple[int, int, int, float]], noisy: Image) -> None:
    image, where = noisy.copy(), np.zeros(noisy.shape, bool)
    for x, y, z, value in spikes:
        image[x, y, z], where[x, y, z] = value, True
    seen = look(image, "rician")
    assert seen.kept is not None
    assert np.array_equal(seen.kept, where)
    assert seen.facts["spikes"] == len(spikes)
    assert np.array_equal(seen.image[~where], noisy[~where])
    assert np.abs(seen.image[where] - noisy[where]).max() < 0.7 * 1000
    assert "taken for spikes" in seen.notices[0]
    assert np.array_equal(seen.restored(seen.image.copy()), image)
    measured = measure_noise(seen)
    assert measured.sigma == pytest.approx(measure_noise(look(noisy, "rician")).sigma, rel=0.02)


def test_many_spikes_of_a_ratio(noisy: Image, rng: np.random.Generator) -> None:
    image, where = noisy.copy(), rng.random(noisy.shape) < 0.01
    image[where] = rng.choice([1e5, 1e7, -3e6], where.sum())
    found = find_spikes(image)
    assert found is not None
    assert np.mean(found[where]) > 0.99
    assert not found[~where].any()


def test_bright_anatomy_is_no_spike(noisy: Image) -> None:
    """Vessels of one voxel at five times the tissue, fat and a capsule of any brightness."""
    image = noisy.copy()
    image[:, 24, 20] = 5000
    image[24, :, 22] = 4000
    image[4:8, 20:24, 20:24] = 50_000
    image[10:13, 20:23, 20:23] = 1e6
    assert find_spikes(image) is None
    assert look(image, "rician").image is image


@pytest.mark.parametrize("grey", [1.0, 100.0, 2000.0])
def test_a_grey_background(grey: float, clean: Image, noisy: Image) -> None:
    outside = clean < 20
    masked = np.where(outside, 0, noisy)
    image = np.where(outside, np.float32(grey), noisy)
    seen = look(image, "rician")
    assert seen.facts["background"] == grey
    assert "taken for background" in seen.notices[0]
    assert np.array_equal(seen.image, masked)
    assert np.array_equal(seen.restored(seen.image.copy()), image)
    assert measure_noise(seen).sigma == measure_noise(look(masked, "rician")).sigma


def test_few_grey_values_of_noise_are_no_background(clean: Image, rng: np.random.Generator) -> None:
    """Air of 8 bits that is 1 or 2 nearly everywhere."""
    real, imaginary = rng.normal(0, 1.0, (2, *clean.shape))
    image = np.rint(np.hypot(clean / 20 + real, imaginary)).astype(np.float32)
    assert max((image == v).mean() for v in (1, 2)) > 0.2
    seen = look(image, "rician")
    assert seen.kept is None
    assert not seen.quiet
    assert measure_noise(seen).sigma == pytest.approx(1.0, rel=0.15)


QUIET: dict[str, Callable[[Image], Image]] = {
    "labels": lambda x: np.digitize(x, [100, 500, 800]).astype(float),
    "mask": lambda x: (x > 100).astype(float),
    "mask of 255": lambda x: 255.0 * (x > 100),
    "everything but one voxel": lambda x: np.where(x == x.max(), 1.0, 0.0),
    "two halves": lambda x: np.where(np.indices(x.shape)[0] < 20, 3.0, 7.0),
    "one value": lambda x: np.full(x.shape, 5.0),
    "zeros": np.zeros_like,
    "tiny labels": lambda x: 1e-12 * np.digitize(x, [100, 500, 800]),
}


@pytest.mark.parametrize("make", QUIET.values(), ids=QUIET)
def test_no_noise_to_be_seen(make: Callable[[Image], Image], head: Any) -> None:
    image = make(head((44, 48, 40))).astype(np.float32)
    for kind in ("rician", "gaussian"):
        seen = look(image, kind)  # type: ignore[arg-type]
        assert seen.quiet
        number, words = np.unique(image).size, " ".join(seen.notices)
        assert ("no noise to be seen in this scan" in words) == (number > 1)
        assert (f"only {number} different values" in words) == (number > 1)
        measured = measure_noise(seen, law=NoiseLaw(kind))  # type: ignore[arg-type]
        assert (measured.sigma, measured.fraction, measured.method) == (0, 0, "none")
        assert measured.scale > 0


def test_noise_below_the_rounding_of_floats(head: Any) -> None:
    """A phantom that is even inside: the estimate has nothing to hold on to."""
    image = head((44, 48, 40))
    smooth = ndimage.gaussian_filter(image, 4)
    measured = measure_noise(look(smooth, "rician"))
    assert measured.sigma >= 0
    assert measured.sigma == 0 or measured.sigma > 1e-7 * measured.scale


def test_a_level_that_is_given_is_taken(head: Any) -> None:
    labels = np.digitize(head((44, 48, 40)), [100, 500, 800]).astype(np.float32)
    assert measure_noise(look(labels, "rician"), 0.1).sigma == 0.1
    blank = look(np.full((8, 8, 8), 3, np.float32), "rician")
    assert measure_noise(blank, 0.1).method == "none"


def test_simulation_looks_too(noisy: Image) -> None:
    image = z_scored(noisy)
    volume = Volume(image, Geometry(image.shape, np.eye(4)))
    with pytest.raises(VolumeReadError, match="--noise gaussian"):
        simulate(volume, 0.05)
    more = simulate(volume, 0.05, law=NoiseLaw("gaussian"))
    added = (more.data - image).std()
    assert added == pytest.approx(0.05 * intensity_scale(image), rel=0.02)
    assert added == pytest.approx(0.05 * intensity_scale(noisy) / noisy.std(), rel=0.08)


@pytest.mark.parametrize(("factor", "what"), [(1e30, "divide"), (1e-30, "multiply")])
def test_numbers_out_of_range(factor: float, what: str, noisy: Image) -> None:
    with pytest.raises(VolumeReadError, match=f"{what} the scan by a constant"):
        look(noisy * np.float32(factor), "rician")


def test_shares_are_said_with_digits(noisy: Image) -> None:
    image = noisy.copy()
    image[:2, :2, :5] = -30000
    with pytest.raises(VolumeReadError, match=r"^0\.024 % of the voxels"):
        require_sign(image, "rician")
