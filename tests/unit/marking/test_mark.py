from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openjpeg
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medddpm.errors import ConfigError
from medddpm.marking import detect as search
from medddpm.marking.detect import detect, detect_in_place
from medddpm.marking.embed import mark
from medddpm.marking.key import Key
from medddpm.preprocess.intensity import Body
from medddpm.volume import Geometry, Volume

Textured = Callable[..., Volume]


def jpeg2000(volume: Volume) -> Volume:
    stored = np.round(volume.data).astype(np.uint16)
    slices = [
        openjpeg.decode(
            openjpeg.utils.encode_array(
                np.ascontiguousarray(stored[..., i]), bits_stored=12, compression_ratios=[10]
            )
        )
        for i in range(stored.shape[2])
    ]
    return volume.with_data(np.stack(slices, axis=-1).astype(np.float32))


def with_noise(volume: Volume) -> Volume:
    sigma = 0.05 * Body.of(volume.data).scale()
    noise = sigma * np.random.default_rng(1).standard_normal((2, *volume.data.shape))
    return volume.with_data(np.hypot(volume.data + noise[0], noise[1]))


def coarser(volume: Volume) -> Volume:
    affine = np.array(volume.affine)
    affine[:3, :3] *= 1.5
    shape = (50, 50, 50)
    data = ndimage.affine_transform(volume.data, np.eye(3) * 1.5, output_shape=shape)
    return Volume(data, Geometry(shape, affine))


def cropped(volume: Volume) -> Volume:
    """64^3 voxels in an array that knows nothing of where they were."""
    return Volume(volume.data[9:73, 5:69, 12:76].copy(), Geometry((64, 64, 64), np.eye(4)))


def turned(volume: Volume, degrees: tuple[float, float, float]) -> Volume:
    matrix = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    middle = (np.array(volume.data.shape) - 1) / 2
    start = middle - matrix @ middle + 2.3
    return volume.with_data(ndimage.affine_transform(volume.data, matrix, start, mode="nearest"))


def test_the_mark_is_found_by_its_key_alone(
    drawn_and_marked: tuple[Volume, Volume], key: Key, other_key: Key
) -> None:
    drawn, marked = drawn_and_marked
    found = detect(marked, key)
    assert (found.marked, found.way) == (True, "in place")
    assert found.false_alarm < 1e-12
    assert not detect_in_place(drawn, key).marked
    assert not detect_in_place(marked, other_key).marked


def test_the_mark_is_small_beside_the_texture(drawn_and_marked: tuple[Volume, Volume]) -> None:
    drawn, marked = drawn_and_marked
    change = (marked.data - drawn.data) / Body.of(drawn.data).scale()
    assert 0.001 < float(np.sqrt(np.mean(change**2))) < 0.01
    assert float(np.abs(change).max()) < 0.04


def test_air_stays_empty_and_nothing_falls_below_it(textured: Textured, key: Key) -> None:
    drawn = textured((72, 64, 60))
    marked = mark(drawn, key)
    assert (marked.data[drawn.data == 0] == 0).all()
    assert float(marked.data.min()) >= 0
    assert not np.array_equal(marked.data, drawn.data)
    assert np.array_equal(marked.affine, drawn.affine)


def test_a_scan_with_values_below_0_is_marked_too(
    drawn_and_marked: tuple[Volume, Volume], key: Key
) -> None:
    shifted = drawn_and_marked[0].with_data(drawn_and_marked[0].data - 600)
    assert detect_in_place(mark(shifted, key), key).marked


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 0.8), (2, 2, 2), (1, 1, 3), (4, 4, 4)])
def test_other_voxel_sizes_carry_it(
    textured: Textured, key: Key, spacing: tuple[float, float, float]
) -> None:
    marked = mark(textured((72, 76, 40), spacing), key)
    assert detect_in_place(marked, key).way == "in place"


def test_every_frame_is_marked(drawn_and_marked: tuple[Volume, Volume], key: Key) -> None:
    drawn = drawn_and_marked[0]
    both = np.stack([drawn.data, drawn.data[::-1]], axis=-1)
    marked = mark(drawn.with_data(both), key)
    for index in range(2):
        assert detect_in_place(marked.with_data(marked.frame(index)), key).marked


@pytest.mark.parametrize(
    ("attack", "way"),
    [
        (lambda v: v.with_data(np.round(v.data / v.data.max() * 255)), "in place"),
        (with_noise, "in place"),
        (lambda v: v.with_data(ndimage.gaussian_filter(v.data, 1.0)), "in place"),
        (coarser, "in place"),
        (jpeg2000, "in place"),
        (cropped, "moved"),
        (lambda v: v.with_data(v.data[::-1].transpose(1, 0, 2)), "mirrored"),
        (lambda v: v.with_data(1.7 * v.data + 100), "in place"),
    ],
    ids=["8-bit", "noise", "blur", "resampled", "jpeg2000", "crop", "mirrored", "rescaled"],
)
def test_it_survives(
    drawn_and_marked: tuple[Volume, Volume],
    key: Key,
    attack: Callable[[Volume], Volume],
    way: str,
) -> None:
    drawn, marked = drawn_and_marked
    found = detect(attack(marked), key)
    assert (found.marked, found.way) == (True, way)
    assert found.false_alarm <= 1e-6
    assert not search._Search(attack(drawn), key).upright().marked


def test_the_mean_of_two_marked_scans_is_marked(
    drawn_and_marked: tuple[Volume, Volume], textured: Textured, key: Key
) -> None:
    second = textured((80, 80, 80), seed=3).data
    marked = drawn_and_marked[1]
    other = mark(marked.with_data(second), key)
    assert detect_in_place(marked.with_data((marked.data + other.data) / 2), key).marked
    assert detect_in_place(marked.with_data((marked.data + second) / 2), key).marked


def test_a_turned_scan_is_found_and_says_how_it_was_turned(
    drawn_and_marked: tuple[Volume, Volume], key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_TURNS", (-4.0, 0.0))  # the whole grid takes half a minute
    monkeypatch.setattr(search, "_SCALES", (1.0,))
    marked = drawn_and_marked[1]
    told: list[tuple[int, int]] = []
    away = turned(marked, (5, 0, 0))
    assert not search._Search(away, key).upright().marked
    found = detect(away, key, on_progress=lambda _, done, total: told.append((done, total)))
    assert (found.marked, found.way) == (True, "turned")
    assert found.degrees == pytest.approx((-5, 0, 0), abs=0.51)
    assert told[-1] == (8, 8)


def test_what_cannot_carry_a_mark_is_refused(textured: Textured, key: Key) -> None:
    with pytest.raises(ConfigError, match=r"too small or too even.*draw a larger scan"):
        mark(textured((12, 12, 12)), key)
