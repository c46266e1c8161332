from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.data.repeats import (
    block_numbers,
    find_unlike,
    group_runs,
    noise_level,
    split_power,
    unweighted_frames,
)
from medddpm.errors import VolumeReadError
from medddpm.io import read_volume
from medddpm.preprocess.intensity import foreground_mask
from medddpm.preprocess.noise_law import WHITE, Colour, NoiseLaw

Image = NDArray[np.float32]
COLOURED = Colour((0.6, 0.6, 0.9), (0, 1, 2))
SHAPE = (56, 60, 48)
SIGMA = 40.0


def repeats(
    first: Image, second: Image, *, colour: Colour = WHITE, gain: Any = 1.0, sigma: float = SIGMA
) -> tuple[Image, Image]:
    law = NoiseLaw(sigma=np.asarray(sigma * gain, np.float32), colour=colour)
    rng = np.random.default_rng(3)
    return law.added_to(first, rng), law.added_to(second, rng)


def not_noise(a: Image, b: Image) -> float:
    mean = (a + b) / np.float32(2)
    total, noise = split_power([b - a], mean, foreground_mask(mean))
    return 1 - noise / total


def unlike(a: Image, b: Image) -> bool:
    return find_unlike([a, b], 0, foreground_mask(a), noise_level(a, (1.0, 1.0, 1.0)))[1]


@pytest.fixture
def x(head: Any) -> Image:
    clean: Image = head(SHAPE)
    return clean


@pytest.mark.parametrize("colour", [WHITE, COLOURED], ids=["white", "coloured"])
@pytest.mark.parametrize("uneven", [False, True], ids=["even", "uneven"])
def test_noise_alone_is_noise(x: Image, colour: Colour, uneven: bool) -> None:
    """Whatever its colour, and where parallel imaging made it loud in the middle."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    gain = 1 + 1.5 * np.exp(-np.sum(np.square(axes), axis=0) / 0.3) if uneven else 1.0
    a, b = repeats(x, x, colour=colour, gain=gain)
    assert not_noise(a, b) < 0.05
    assert not unlike(a, b)


def test_coloured_noise_that_is_not_seen_blind_is_no_movement(x: Image) -> None:
    """The first witness alone would leave every repeat of such a scan out."""
    a, b = repeats(x, x, colour=COLOURED)
    blind = 0.1 * SIGMA
    assert find_unlike([a, b], 0, foreground_mask(a), blind) == [False, False]
    c = repeats(x, np.roll(x, 3, axis=0), colour=COLOURED)[1]
    assert find_unlike([a, c], 0, foreground_mask(a), blind) == [False, True]


@pytest.mark.parametrize("colour", [WHITE, COLOURED], ids=["white", "coloured"])
def test_movement_lies_at_edges(x: Image, colour: Colour) -> None:
    shares = []
    for step in (0.0, 0.3, 0.6, 1.2):
        moved = np.maximum(ndimage.shift(x, (step, 0, 0), order=3, mode="nearest"), 0)
        shares.append(not_noise(*repeats(x, moved, colour=colour)))
    assert shares == sorted(shares)
    assert shares[0] < 0.05 < shares[2]
    assert shares[3] > 0.3


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (lambda x: 0.6 * x, 0.9),
        (lambda x: 1000 * (x / 1000) ** 0.6, 0.4),
        (lambda x: x * (1 + np.linspace(-0.3, 0.3, SHAPE[2])), 0.4),
    ],
    ids=["gain", "contrast", "field"],
)
def test_what_follows_the_brightness_is_no_noise(x: Image, change: Any, least: float) -> None:
    a, b = repeats(x, change(x).astype(np.float32), colour=COLOURED)
    assert not_noise(a, b) > least


@pytest.mark.parametrize(
    "change",
    [lambda x: np.roll(x, 3, axis=0), lambda x: 0.5 * x, lambda x: np.roll(x, 4, axis=2)],
    ids=["moved", "darker", "moved up"],
)
def test_repeats_that_are_none_are_seen(x: Image, change: Any) -> None:
    assert unlike(*repeats(x, change(x)))


def test_sigma_that_is_far_too_high_hides_no_movement_among_three(x: Image) -> None:
    """Two repeats that are alike show how loud the noise is at most."""
    law, rng = NoiseLaw(sigma=SIGMA), np.random.default_rng(4)
    frames = [law.added_to(x, rng), law.added_to(np.roll(x, 3, axis=0), rng)]
    assert find_unlike(frames, 0, foreground_mask(x), 20 * SIGMA) == [False, False]
    frames.insert(1, law.added_to(x, rng))
    assert find_unlike(frames, 0, foreground_mask(x), 20 * SIGMA) == [False, False, True]


def test_a_copy_says_nothing_of_the_noise_of_others(x: Image) -> None:
    a, b = repeats(x, x)
    assert not any(find_unlike([a, a.copy(), b], 0, foreground_mask(a), SIGMA))


def test_a_scan_too_small_for_its_noise_is_judged_by_the_difference(x: Image) -> None:
    small = x[20:32, 20:32, 18:28]
    a, b = repeats(small, small)
    assert noise_level(a, (1.0, 1.0, 1.0)) == 0
    assert not unlike(a, b)


def test_runs_of_one_scan_are_together(tmp_path: Path) -> None:
    names = ["sub-1_run-1_T1w", "sub-1_run-02_T1w", "sub-1_T2w", "sub-2_run-1_T1w", "other"]
    groups = group_runs([tmp_path / f"{name}.nii.gz" for name in names])
    assert [[p.name.split(".")[0] for p in group] for group in groups] == [
        names[:2],
        names[2:3],
        names[3:4],
        names[4:],
    ]
    apart = [tmp_path / part / "sub-1_run-1_T1w.nii.gz" for part in "ab"]
    assert len(group_runs(apart)) == 2


def test_only_frames_without_diffusion_weighting_are_repeats(
    tmp_path: Path, x: Image, save_nifti: Any
) -> None:
    small = x[::4, ::4, ::4]
    path = save_nifti(tmp_path / "dwi.nii.gz", np.stack([small] * 4, axis=-1), np.eye(4))
    assert unweighted_frames(read_volume(path)) == [0, 1, 2, 3]
    table = tmp_path / "dwi.bval"
    table.write_text("0 1000 5 1000\n")
    assert unweighted_frames(read_volume(path)) == [0, 2]
    for text in ("0 1000\n", "0 1000 x 5\n"):
        table.write_text(text)
        with pytest.raises(VolumeReadError, match="one b-value for each of 4 frames"):
            unweighted_frames(read_volume(path))


def test_blocks_hold_neighbours() -> None:
    inside = np.ones((5, 4, 3), dtype=bool)
    inside[0, 0, 0] = False
    blocks = block_numbers(inside, (2, 4, 3))
    assert len(blocks) == 59
    assert np.unique(blocks, return_counts=True)[1].tolist() == [23, 24, 12]
