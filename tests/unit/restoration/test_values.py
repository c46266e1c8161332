"""What a restorer makes of values that are no plain magnitudes; the shipped weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import ValuesWarning, VolumeReadError
from medddpm.io.frame_facts import ValuesFacts
from medddpm.restoration.restorer import Restored, Restorer
from medddpm.volume import Geometry, Volume

Image = NDArray[np.float32]
SHAPE, SIGMA = (44, 48, 40), 45.0


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def clean(head: Any) -> Image:
    image: Image = head(SHAPE)
    grain = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=image.shape), 2.5)
    image = np.where((image > 0) & (grain > 0.2 * grain.std()), 1.3 * image, image)
    return np.asarray(ndimage.gaussian_filter(image, 0.6), np.float32)


@pytest.fixture(scope="module")
def noisy(clean: Image) -> Image:
    real, imaginary = np.random.default_rng(2).normal(0, SIGMA, (2, *SHAPE))
    image: Image = np.hypot(clean + real, imaginary).astype(np.float32)
    image.flags.writeable = False
    return image


@pytest.fixture(scope="module")
def usual(restorer: Restorer, noisy: Image) -> Restored:
    """The plain magnitude, restored."""
    return restorer.restore(scan(noisy))


def scan(data: Image) -> Volume:
    shape = (data.shape[0], data.shape[1], data.shape[2])
    return Volume(data, Geometry(shape, np.eye(4)), case_id="scan")


def gain(result: Restored, before: Image, truth: Image, where: NDArray[np.bool_]) -> float:
    errors = [np.mean((a - truth)[where] ** 2) for a in (before, result.volume.data)]
    return float(10 * np.log10(errors[0] / errors[1]))


SHIFTS: dict[str, Callable[[Image], Image]] = {
    "z-scored": lambda x: (x - 350) / 420,
    "shifted as CT": lambda x: x - 1024,
    "between -1 and 1": lambda x: x / 500 - 1,
}


@pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)
def test_a_shifted_head_gains_what_the_magnitude_gains(
    shift: Callable[[Image], Image],
    restorer: Restorer,
    clean: Image,
    noisy: Image,
    usual: Restored,
) -> None:
    inside = clean > 100
    plain = gain(usual, noisy, clean, inside)
    with pytest.raises(VolumeReadError, match="--noise gaussian"):
        restorer.restore(scan(shift(noisy)))
    result = restorer.restore(scan(shift(noisy)), noise="gaussian")
    assert gain(result, shift(noisy), shift(clean), inside) > plain - 0.2 > 2
    assert result.volume.data.min() < 0
    assert result.facts.frames[0].values.floor < 0


def test_a_z_scored_brain_in_zeros(restorer: Restorer, clean: Image, noisy: Image) -> None:
    inside = clean > 100
    masked, truth = np.where(inside, noisy, 0), np.where(inside, clean, 0)
    usual = gain(restorer.restore(scan(masked)), masked, truth, inside)
    z, truth = (np.where(inside, (x - 650) / 250, 0) for x in (noisy, clean))
    result = restorer.restore(scan(z), noise="gaussian")
    assert gain(result, z, truth, inside) > usual - 0.3 > 2
    assert (result.volume.data[~inside] == 0).all()


def test_the_ensemble_of_a_shifted_head(restorer: Restorer, clean: Image, noisy: Image) -> None:
    """Its interval is not cut at 0, and is as wide as that of the magnitude."""
    options: dict[str, Any] = {"mode": "ensemble", "samples": 2, "steps": 1, "noise": "gaussian"}
    plain = restorer.restore(scan(noisy), **options)
    shifted = restorer.restore(scan(noisy - 1024), **options)
    assert shifted.lower is not None
    assert shifted.upper is not None
    assert plain.std is not None
    assert shifted.std is not None
    assert (shifted.lower.data <= shifted.volume.data).all()
    assert shifted.lower.data.min() < -900
    inside = clean > 100
    widths = [s.std.data[inside].mean() for s in (plain, shifted)]  # type: ignore[union-attr]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


@pytest.mark.parametrize("value", [1.5e4, 3e38, -1e7])
def test_a_spike_stays_and_changes_nothing_else(
    value: float, restorer: Restorer, clean: Image, noisy: Image, usual: Restored
) -> None:
    spiked = noisy.copy()
    spiked[22, 24, 20] = value
    with pytest.warns(ValuesWarning, match=r"scan: 1 voxel \(22, 24, 20\).*spikes"):
        result = restorer.restore(scan(spiked))
    out = result.volume.data
    assert out[22, 24, 20] == np.float32(value)
    far = clean > 100
    far[22, 24, 20] = False
    assert np.sqrt(np.mean((out - usual.volume.data)[far] ** 2)) < 0.01 * SIGMA
    assert result.facts.frames[0].values.spikes == 1


def test_a_grey_background_stays(restorer: Restorer, clean: Image, noisy: Image) -> None:
    outside = clean < 20
    with pytest.warns(ValuesWarning, match="exactly 100"):
        grey = restorer.restore(scan(np.where(outside, 100, noisy))).volume.data
    masked = restorer.restore(scan(np.where(outside, 0, noisy))).volume.data
    assert (grey[outside] == 100).all()
    assert np.array_equal(grey[~outside], masked[~outside])


@pytest.mark.parametrize("mode", ["mean", "ensemble"])
def test_labels_stay_as_they_are(mode: Any, restorer: Restorer, head: Any) -> None:
    labels = np.digitize(head(SHAPE), [100, 500, 800]).astype(np.float32)
    few: dict[str, Any] = {"samples": 2, "steps": 1} if mode == "ensemble" else {}
    with pytest.warns(ValuesWarning, match="no noise to be seen in this scan .only 4 different"):
        result = restorer.restore(scan(labels), mode=mode, **few)
    assert np.array_equal(result.volume.data, labels)
    assert result.volume.data is not labels
    assert result.passed
    frame = result.facts.frames[0]
    assert (frame.sigma.sigma, frame.sigma.method) == (0, "none")
    if mode == "ensemble":
        assert result.std is not None
        assert result.upper is not None
        assert not result.std.data.any()
        assert np.array_equal(result.upper.data, labels)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (np.random.default_rng(0).random((64, 64, 1), np.float32), "one slice"),
        (np.random.default_rng(0).random((1, 64, 64), np.float32), "one slice"),
        (np.full((8, 8, 8), np.nan, np.float32), "NaN"),
        (np.full((8, 8, 8), 1e39), "infinity"),
        (np.zeros((8, 8, 8), np.float32), "all zeros"),
        (np.full((8, 8, 8), 5, np.float32), "constant"),
    ],
)
def test_what_is_no_scan_is_refused_in_python_too(
    data: Image, what: str, restorer: Restorer
) -> None:
    with pytest.raises(VolumeReadError, match=what):
        restorer.restore(scan(data))


def test_the_bytes_of_a_magnitude_stay(restorer: Restorer, noisy: Image, usual: Restored) -> None:
    """What is put in front of the networks is not touched, nor what comes out."""
    again = restorer.restore(scan(noisy), sigma=usual.facts.frames[0].sigma.sigma)
    assert usual.facts.frames[0].values == ValuesFacts(negative_share=0.0, notices=())
    assert again.volume.data.std() == pytest.approx(usual.volume.data.std(), rel=1e-3)


def test_what_is_said_names_the_scan_and_the_frame(restorer: Restorer, noisy: Image) -> None:
    film = scan(np.stack([noisy, noisy - 500], -1))
    with pytest.raises(VolumeReadError, match=r"^scan frame 1: .* of the voxels are negative"):
        restorer.restore(film)
    with pytest.raises(VolumeReadError, match=r"^scan: .* of the voxels are negative"):
        restorer.restore(scan(noisy - 500))


def test_a_negative_spike_lies_in_its_interval(restorer: Restorer, noisy: Image) -> None:
    image = noisy.copy()
    image[20, 20, 20] = -1e7
    with pytest.warns(ValuesWarning, match="1 voxel"):
        result = restorer.restore(scan(image), mode="ensemble", samples=2, steps=1)
    assert result.lower is not None
    assert result.volume.data[20, 20, 20] == result.lower.data[20, 20, 20] == np.float32(-1e7)
    assert (result.lower.data <= result.volume.data).all()


@pytest.mark.parametrize("edge", [0.2, 2.2, 4.0])
def test_a_sample_of_voxels_unlike_those_of_training_stays_near_the_scan(
    restorer: Restorer, noisy: Image, edge: float
) -> None:
    y = noisy[:36, :32, :24]
    affine = np.diag([edge, edge, 1.1 * edge, 1.0])
    volume = Volume(y, Geometry((36, 32, 24), affine), case_id="scan")
    sample = restorer.restore(volume, mode="sample", sigma=SIGMA / 4)
    assert float(np.std(sample.volume.data - y)) < 2 * SIGMA
