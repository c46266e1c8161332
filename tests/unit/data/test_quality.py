"""Every mark: where it is set, and where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image as pictures

from medddpm.data import quality
from medddpm.data.cache import pack
from medddpm.data.contact_sheet import panels, write_sheets
from medddpm.data.duplicates import find_twins
from medddpm.data.manifest import ScanRow
from medddpm.preprocess.intensity import foreground_mask
from medddpm.volume import Geometry, Volume

SHAPE = (48, 56, 52)


@pytest.fixture
def noisy(head: Any, rng: np.random.Generator) -> Any:
    """A head with Rician noise: noisy(20)."""

    def make(sigma: float) -> Any:
        clean = head(SHAPE)
        real, imaginary = rng.normal(0, sigma, (2, *SHAPE))
        return np.hypot(clean + real, imaginary).astype(np.float32)

    return make


def test_only_a_loud_scan_is_extremely_noisy(noisy: Any) -> None:
    assert quality.extreme_noise(noisy(30), (1, 1, 1)) is None
    mark = quality.extreme_noise(noisy(150), (1, 1, 1))
    assert mark is not None
    assert mark.value == pytest.approx(0.15, rel=0.2)
    assert quality.extreme_noise(noisy(150)[:, :, 24:30], (1, 1, 3)) is not None


def test_contrasts_must_contradict_to_be_marked() -> None:
    assert quality.wrong_contrast("T1w", "") is None
    assert quality.wrong_contrast("", "T2w") is None
    assert quality.wrong_contrast("T1w", "T1w") is None
    mark = quality.wrong_contrast("T1w", "T2w")
    assert mark is not None
    assert mark.reason == "named T1w, acquired as T2w"


@pytest.mark.parametrize(
    ("box", "is_marked"),
    [
        ((slice(None), slice(None), slice(None)), False),
        ((slice(14, None), slice(None), slice(None)), True),
        ((slice(None), slice(None), slice(14, None)), False),  # the neck end of "RAS"
        ((slice(None), slice(None), slice(None, 38)), True),
    ],
)
def test_a_body_at_the_edge_is_cropped(head: Any, box: Any, is_marked: bool) -> None:
    mask = foreground_mask(head(SHAPE))[box]
    assert (quality.cropped(mask, "RAS") is not None) == is_marked


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ghosts_beside_the_body_are_motion(noisy: Any, axis: int) -> None:
    still = noisy(10)
    mask = foreground_mask(still)
    assert quality.motion_suspect(still, mask) is None
    shifted = [np.roll(still, int(s), axis) for s in (-18, -12, 12, 18)]
    moved = still + 0.25 * sum(shifted)
    mark = quality.motion_suspect(moved.astype(np.float32), mask)
    assert mark is not None
    assert mark.value is not None
    assert mark.value > quality.GHOST_LIMIT


def test_masked_scans_have_no_air_to_ask(head: Any) -> None:
    assert quality.motion_suspect(head(SHAPE), foreground_mask(head(SHAPE))) is None


@pytest.mark.parametrize(
    ("spacing", "masked", "is_marked"),
    [
        (4.6, False, True),  # a head, 193 mm from front to back
        (4.6, True, True),
        (3.9, True, False),  # a brain: 164 mm, no air
        (3.0, False, False),
    ],
)
def test_whole_heads_may_show_a_face(
    head: Any, rng: np.random.Generator, spacing: float, masked: bool, is_marked: bool
) -> None:
    clean = head(SHAPE)
    image = clean if masked else np.hypot(clean + rng.normal(0, 8, SHAPE), 8).astype(np.float32)
    geometry = Geometry(SHAPE, np.diag([-spacing, spacing, spacing, 1]))
    mark = quality.face_possible(image, foreground_mask(image), geometry)
    assert (mark is not None) == is_marked


def test_the_same_image_is_found_after_a_flip_and_as_integers(noisy: Any) -> None:
    def sign(image: Any, affine: Any = None) -> list[float]:
        geometry = Geometry(image.shape, np.eye(4) if affine is None else affine)
        return quality.signature(image, geometry, foreground_mask(image))

    one = noisy(20)
    turned = np.array([[0, 0, -1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    signatures = {
        "a": sign(one),
        "flipped": sign(np.ascontiguousarray(one[::-1, :, ::-1])),
        "integers": sign(np.rint(one / 5).astype(np.float32)),
        "other": sign(noisy(21) ** 1.01),
        "turned": sign(np.ascontiguousarray(one.transpose(2, 1, 0)), turned),
    }
    assert find_twins(signatures) == [
        ("a", "flipped"),
        ("a", "integers"),
        ("a", "turned"),
        ("flipped", "integers"),
        ("flipped", "turned"),
        ("integers", "turned"),
    ]
    assert find_twins({}) == []


def test_the_same_head_measured_twice_is_no_twin(head: Any, rng: np.random.Generator) -> None:
    clean = head(SHAPE)
    moved = np.roll(clean, 1, 0)
    mask = foreground_mask(clean)
    geometry = Geometry(SHAPE, np.eye(4))
    pair = {"a": quality.signature(clean, geometry, mask),
            "b": quality.signature(moved, geometry, foreground_mask(moved))}  # fmt: skip
    assert find_twins(pair) == []


def test_a_sheet_shows_front_and_head_up_and_left_on_the_right(tmp_path: Path) -> None:
    image = np.zeros((40, 60, 50), np.float32)  # LPS: left, back and head are at the end
    image[2:38, 2:58, 2:48] = 0.3
    image[2:8, 2:58, 2:48] = 1.0  # the patient's right
    geometry = Geometry(image.shape, np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert geometry.orientation == "LPS"
    case = pack(Volume(image, geometry, case_id="lps"), tmp_path)
    row = ScanRow("lps", "s", orientation="LPS", flags="cropped")
    picture = panels(row, case, tmp_path)
    axial = picture[:, 256:]
    across = axial.mean(axis=0)
    inside = np.nonzero(across > 0)[0]
    assert across[inside[:4]].mean() > 1.5 * across[inside[-4:]].mean()  # right is on the left
    (path,) = write_sheets(tmp_path, [(row, case)], tmp_path)
    first = path.read_bytes()
    write_sheets(tmp_path, [(row, case)], tmp_path)
    assert path.read_bytes() == first
    assert pictures.imread(path).std() > 0.05
    assert write_sheets(tmp_path, [], tmp_path) == []
    assert not path.exists()


def test_a_thin_slab_is_shown_by_three_of_its_slices(tmp_path: Path) -> None:
    image = np.full((60, 60, 8), 0.1, np.float32)
    for place, value in ((2, 0.3), (4, 0.6), (6, 0.9)):
        image[:, :, place] = value
    case = pack(Volume(image, Geometry(image.shape, np.eye(4)), case_id="slab"), tmp_path)
    picture = panels(ScanRow("slab", "s", orientation="RAS"), case, tmp_path)
    middles = [picture[64, 64 + 128 * n] for n in range(3)]
    assert middles[0] < middles[1] < middles[2]
    assert (picture > 0).mean() > 0.9  # a strip would leave most of it black
