"""Frames of a 4D scan that are restored together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.errors import ConfigError, MissingExtraError, ValuesWarning
from medddpm.io import read_volume
from medddpm.preprocess.noise import expected_magnitude, expected_signal
from medddpm.preprocess.values import Looked, look
from medddpm.restoration import series
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restorer import Restored, Restorer
from medddpm.restoration.series import LEAST_FRAMES, mppca, patch_of
from medddpm.volume import ComplexVolume, Geometry, Volume

Image = NDArray[np.float32]
SHAPE, SIGMA, FRAMES = (20, 22, 16), 40.0, 10
PLAIN: dict[str, Any] = {"frames": "mppca", "tile": 32, "overlap": 16}
TOLD = PLAIN | {"sigma": SIGMA}  # the phantom is too small to tell


@pytest.fixture(scope="module")
def clean(head: Callable[..., Image]) -> Image:
    """(X, Y, Z, T): two frames of full brightness, then an attenuation with a place and a frame."""
    x = head(SHAPE)
    side = np.linspace(0, 1, SHAPE[0], dtype=np.float32)[:, None, None]
    rates = [0.0, 0.0, *np.linspace(0.2, 1.2, FRAMES - 2)]
    decays = [r * (0.3 + 0.7 * side * (index % 2)) for index, r in enumerate(rates)]
    return np.stack([x * np.exp(-decay) for decay in decays], axis=-1)


@pytest.fixture(scope="module")
def noisy(clean: Image) -> Volume:
    rng = np.random.default_rng(5)
    real, imaginary = rng.normal(0, SIGMA, (2, *clean.shape)).astype(np.float32)
    data = np.hypot(clean + real, imaginary)
    return Volume(data, Geometry(SHAPE, np.diag([2.0, 2, 2, 1])), case_id="dwi")


@pytest.fixture(scope="module")
def restorer(tiny_weights: Path) -> Restorer:
    return Restorer.from_pretrained(tiny_weights, device="cpu")


@pytest.fixture(scope="module")
def images(noisy: Volume) -> list[Image]:
    pytest.importorskip("dipy")
    found = mppca([noisy.frame(i) for i in range(FRAMES)], (5, 5, 5))
    return found


@pytest.fixture(scope="module")
def restored(restorer: Restorer, noisy: Volume) -> Restored:
    pytest.importorskip("dipy")
    return restorer.restore(noisy, **TOLD)


def rms(error: Image, mask: Any) -> float:
    return float(np.sqrt(np.mean(error[mask] ** 2)))


def test_noise_goes_and_the_mean_of_each_frame_stays(
    noisy: Volume, images: list[Image], clean: Image
) -> None:
    inside = clean[..., 0] > 100
    chance = 3 * SIGMA / np.sqrt(inside.sum())  # of the mean of so many noisy voxels
    whole = np.stack(images, axis=-1)[inside].mean()
    assert whole == pytest.approx(noisy.data[inside].mean(), rel=1e-3)
    for index, image in enumerate(images):
        before = noisy.frame(index)
        mean = before[inside].mean()
        assert abs(image[inside].mean() - mean) < 1e-3 * mean + chance
        mean = expected_magnitude(clean[..., index], SIGMA, 2)
        assert rms(image - mean, inside) < 0.6 * rms(before - mean, inside)


def test_slabs_give_what_the_whole_scan_gives(
    noisy: Volume, images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_slice = SHAPE[0] * SHAPE[1] * FRAMES * series._BYTES_A_VALUE
    monkeypatch.setattr(series, "_WORKING_BYTES", 1.0 * a_slice)
    seen: list[tuple[int, int]] = []
    again = mppca(
        [noisy.frame(i) for i in range(FRAMES)], (5, 5, 5), lambda *done: seen.append(done)
    )
    assert seen == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(np.stack(again), np.stack(images))


def test_the_bias_of_the_noise_is_taken_off_and_the_mean_law_kept(
    noisy: Volume, clean: Image, images: list[Image]
) -> None:
    """What a scanner would show of the result is on average what it showed."""
    inside = clean[..., 0] > 100
    for index, image in enumerate(images):
        signal = expected_signal(image, SIGMA, 2)
        before = noisy.frame(index)[inside].mean()
        shown = expected_magnitude(signal, SIGMA, 2)[inside].mean()
        assert shown == pytest.approx(image[inside].mean(), rel=1e-3)
        truth = clean[..., index][inside].mean()
        left = abs(signal[inside].mean() - truth)
        assert left < 0.25 * abs(before - truth) + 0.001 * truth + 3 * SIGMA / inside.sum() ** 0.5


@pytest.mark.parametrize("dof", [0, 2, 8])
def test_the_signal_of_a_mean_is_the_inverse_of_the_mean_of_a_signal(dof: int) -> None:
    signal = np.array([0.5, 1, 2, 5, 50, 299, 1e5], np.float32)
    mean = expected_magnitude(signal, 1.0, dof)
    np.testing.assert_allclose(expected_signal(mean, 1.0, dof), signal, rtol=0.02)
    if dof:
        assert expected_signal(np.zeros(3, np.float32), 1.0, dof).max() == 0


def test_the_sidecar_says_what_was_done(restored: Restored) -> None:
    facts = restored.facts
    assert facts.series is not None
    assert facts.series.method == "mppca"
    assert facts.series.library.startswith("dipy ")
    assert facts.series.frames == tuple(range(FRAMES))
    assert facts.series.patch == (5, 5, 5)
    for frame in facts.frames:
        assert frame.sigma.sigma == SIGMA
        assert frame.sigma_left is not None
        assert 0 <= frame.sigma_left < 0.7 * SIGMA


def test_the_same_scan_gives_the_same_bytes(
    restorer: Restorer, noisy: Volume, restored: Restored
) -> None:
    again = restorer.restore(noisy, **TOLD)
    np.testing.assert_array_equal(again.volume.data, restored.volume.data)


def test_a_series_without_b_values_is_warned_of(
    noisy: Volume, tmp_path: Path, save_nifti: Any
) -> None:
    path = save_nifti(tmp_path / "bold.nii.gz", noisy.data[..., :3], np.eye(4))
    with pytest.warns(
        ValuesWarning, match="if it is a time series, MPPCA removes small activation"
    ):
        series._warn_of_time_courses(read_volume(path))
    path.with_name("bold.bval").write_text("0 0 1000")
    series._warn_of_time_courses(read_volume(path))


def looks(volume: Volume) -> list[Looked]:
    return [look(volume.frame(index), "rician") for index in range(volume.num_frames)]


def test_all_frames_have_one_level_of_noise_the_darkest_too(
    noisy_phantom: Volume, rng: np.random.Generator
) -> None:
    frames = [noisy_phantom.data * np.float32(1), *rng.rayleigh(50, (2, *noisy_phantom.data.shape))]
    film = noisy_phantom.with_data(np.stack([*frames, frames[0] * np.float32(1.2)], axis=-1))
    found = series._noise_of_all(film, looks(film), RestoreOptions(), [None] * 4)
    assert len({round(noise.sigma, 3) for noise in found}) == 1
    assert found[1].sigma == pytest.approx(50, rel=0.15)


def test_blank_frames_and_maps_take_no_part(
    restorer: Restorer, noisy_phantom: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dipy")
    monkeypatch.setattr(series, "mppca", lambda images, patch, on_slab=None: images)
    image = noisy_phantom.data
    blank, labels = np.zeros_like(image), np.where(image > 500, np.float32(7), np.float32(0))
    labels[4:20, 4:20, 4:14] = 7
    film = noisy_phantom.with_data(np.stack([*[image] * LEAST_FRAMES, blank, labels], axis=-1))
    with pytest.warns(ValuesWarning, match="no noise to be seen"):
        found = restorer.restore(film, **PLAIN)
    assert found.facts.series is not None
    assert found.facts.series.frames == tuple(range(LEAST_FRAMES))
    assert found.facts.frames[LEAST_FRAMES + 1].sigma_left is None
    np.testing.assert_array_equal(found.volume.frame(LEAST_FRAMES), blank)
    np.testing.assert_array_equal(found.volume.frame(LEAST_FRAMES + 1), labels)


def test_frames_of_another_noise_are_named(noisy_phantom: Volume) -> None:
    frames = [noisy_phantom.data] * 3
    film = noisy_phantom.with_data(np.stack([*frames, 4 * noisy_phantom.data], axis=-1))
    with pytest.warns(ValuesWarning, match="noise of frame 3 .* times that of frame 0"):
        series._noise_of_all(film, looks(film), RestoreOptions(), [None] * 4)


@pytest.mark.parametrize("count", [1, LEAST_FRAMES - 1])
def test_too_few_frames_are_refused(restorer: Restorer, noisy: Volume, count: int) -> None:
    few = noisy.with_data(noisy.data[..., 0] if count == 1 else noisy.data[..., :count])
    with pytest.raises(ConfigError, match=f"has {count} frames?, .*needs {LEAST_FRAMES} or more"):
        restorer.restore(few, **PLAIN)


def test_without_the_library_it_says_what_to_install(
    restorer: Restorer, noisy: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dipy.denoise.localpca", None)
    with pytest.raises(MissingExtraError, match=r"dipy, .*pip install -e '.\[frames\]'"):
        restorer.restore(noisy, **PLAIN)


def test_a_patch_has_more_voxels_than_frames() -> None:
    assert patch_of((60, 60, 40), 64) == (5, 5, 5)
    assert patch_of((60, 60, 40), 125) == (7, 7, 7)
    assert patch_of((60, 60, 3), 90) == (7, 7, 3)
    with pytest.raises(ConfigError, match="no such patch"):
        patch_of((8, 8, 2), 90)


def test_only_the_mean_of_magnitudes(restorer: Restorer, noisy: Volume) -> None:
    for mode in ("sample", "ensemble"):
        with pytest.raises(ConfigError, match="belongs to mode mean"):
            RestoreOptions(mode=mode, frames="mppca")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="choose each or mppca"):
        RestoreOptions(frames="svd")  # type: ignore[arg-type]
    scan = ComplexVolume(noisy, noisy.with_data(np.zeros_like(noisy.data)))
    with pytest.raises(ConfigError, match="takes magnitudes"):
        restorer.restore_complex(scan, options=RestoreOptions(frames="mppca"))
