"""The picture is written, to scale, with the right columns, and in the viewer's orientation."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib.image as mpimg
import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.errors import GeometryError, OutputError, ShapeError
from medddpm.report import picture
from medddpm.report.picture import comparison_picture

Head = Callable[..., NDArray[np.float32]]
SHAPE = (40, 44, 20)
SPACING = (1.0, 1.0, 2.5)


@pytest.fixture
def scans(head: Head, rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
    clean = head(SHAPE)
    noisy = np.hypot(clean + rng.normal(0, 60, SHAPE), rng.normal(0, 60, SHAPE))
    return noisy.astype(np.float32), (0.5 * clean + 0.5 * noisy).astype(np.float32), clean


def test_writes_a_png_with_a_column_each(
    tmp_path: Path, scans: tuple[NDArray[np.float32], ...]
) -> None:
    noisy, restored, clean = scans
    three = comparison_picture(tmp_path / "a.png", [noisy, restored], spacing=SPACING)
    five = comparison_picture(
        tmp_path / "b.png",
        [noisy, restored, clean],
        spacing=SPACING,
        title="t",
        caption="c",
        sigma=60,
    )
    a, b = mpimg.imread(three), mpimg.imread(five)
    assert b.shape[1] / a.shape[1] == pytest.approx(5 / 3, rel=0.05)
    assert b.shape[0] - a.shape[0] == pytest.approx(2 * 0.4 * 110, abs=2)  # title and caption
    assert a[:3, :3, :3].max() < 0.1  # dark page
    assert b[..., :3].max() > 0.8


def test_uncertainty_is_one_more_column_and_an_open_file_will_do(
    scans: tuple[NDArray[np.float32], ...],
) -> None:
    widths = []
    for std in (None, scans[2] / 10):
        file = io.BytesIO()
        comparison_picture(file, scans[:2], spacing=SPACING, std=std)
        file.seek(0)
        widths.append(mpimg.imread(file).shape[1])
    assert widths[1] / widths[0] == pytest.approx(4 / 3, rel=0.05)


def test_thick_slices_are_drawn_to_scale(
    tmp_path: Path, scans: tuple[NDArray[np.float32], ...]
) -> None:
    noisy, restored, _ = scans
    thin = mpimg.imread(
        comparison_picture(tmp_path / "a.png", [noisy, restored], spacing=(1, 1, 1))
    )
    thick = mpimg.imread(
        comparison_picture(tmp_path / "b.png", [noisy, restored], spacing=(1, 1, 3))
    )
    assert thick.shape[0] > 1.3 * thin.shape[0]
    assert thick.shape[1] == thin.shape[1]


def test_a_turned_scan_gives_the_same_picture(
    tmp_path: Path, scans: tuple[NDArray[np.float32], ...]
) -> None:
    noisy, restored, _ = scans
    ras = mpimg.imread(comparison_picture(tmp_path / "a.png", [noisy, restored], spacing=SPACING))
    turned = [a.transpose(2, 0, 1)[:, ::-1] for a in (noisy, restored)]
    other = comparison_picture(
        tmp_path / "b.png", turned, spacing=(2.5, 1.0, 1.0), orientation="SLA"
    )
    np.testing.assert_allclose(mpimg.imread(other), ras, atol=0.02)


def test_the_patients_left_is_on_the_right(scans: tuple[NDArray[np.float32], ...]) -> None:
    image = np.zeros(SHAPE, dtype=np.float32)
    image[:5] = 1.0  # the left end of an RAS array
    box = tuple(slice(0, n) for n in SHAPE)
    plane = picture._slice(image, box, (20, 22, 10), axis=2)
    assert plane[:, -5:].min() == 1
    assert plane[:, :-5].max() == 0


def test_identical_scans_have_an_empty_difference(
    tmp_path: Path, scans: tuple[NDArray[np.float32], ...]
) -> None:
    clean = scans[2]
    assert (
        comparison_picture(tmp_path / "a.png", [clean, clean], spacing=SPACING).stat().st_size > 0
    )


def test_bad_requests(tmp_path: Path, scans: tuple[NDArray[np.float32], ...]) -> None:
    noisy, restored, clean = scans
    path = tmp_path / "a.png"
    with pytest.raises(GeometryError, match="different grids"):
        comparison_picture(path, [noisy, restored[:-1]], spacing=SPACING)
    with pytest.raises(ShapeError, match="X, Y, Z"):
        comparison_picture(path, [noisy[0], restored[0]], spacing=SPACING)
    with pytest.raises(ShapeError, match="orientation"):
        comparison_picture(path, [noisy, restored], spacing=SPACING, orientation="RRS")
    with pytest.raises(OutputError, match="cannot write"):
        comparison_picture(tmp_path / "missing" / "a.png", [noisy, clean], spacing=SPACING)
