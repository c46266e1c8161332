"""Texture like that of drawn scans: what is measured, and that it stays a hint."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from medddpm.io import write_volume
from medddpm.marking import texture
from medddpm.marking.texture import features, fit_of_file, probability, texture_of
from medddpm.volume import Geometry, Volume


def head(grain: float = 0.0, spacing: float = 4.0) -> Volume:
    """A ball of two tissues in folds, with white noise."""
    places = np.stack(np.meshgrid(*(np.arange(36) - 17.5,) * 3, indexing="ij"))
    folds = np.sin(places / 2).sum(0) > 0
    image = np.where((places**2).sum(0) < 15**2, 600 + 300 * folds, 0)
    noise = np.random.default_rng(0).standard_normal(image.shape)
    image = np.maximum(image + grain * noise, 0) * (image > 0)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    return Volume(image.astype(np.float32), Geometry(image.shape, affine), case_id="head")


def found_in(volume: Volume) -> dict[str, float]:
    found = features(volume)
    assert found is not None
    return found


def test_the_unit_of_the_intensities_does_not_count() -> None:
    one, other = head(20), head(20)
    found = found_in(other.with_data(7 * other.data))
    assert found == pytest.approx(found_in(one), abs=1e-3)


def test_noise_is_white_and_folds_are_not() -> None:
    assert found_in(head(150))["whiteness"] < found_in(head())["whiteness"] - 0.1


def test_noise_is_evenly_strong_and_anatomy_is_not() -> None:
    assert found_in(head(300))["evenness"] < found_in(head())["evenness"] - 0.1


def test_a_finer_grid_is_looked_at_like_the_coarse_one() -> None:
    fine = ndimage.zoom(head().frame(0), 2, order=0)
    volume = Volume(fine, Geometry(fine.shape, np.diag([2.0, 2.0, 2.0, 1.0])), case_id="head")
    found, coarse = found_in(volume), found_in(head())
    assert found["evenness"] == pytest.approx(coarse["evenness"], abs=0.3)


@pytest.mark.parametrize(
    "volume",
    [head(spacing=6.0), head().with_data(np.zeros((36, 36, 36), np.float32)), head(spacing=1)],
)
def test_too_little_is_not_looked_at(volume: Volume) -> None:
    seen = texture_of(volume)
    assert math.isnan(seen.probability)
    assert not seen.is_like_drawn
    assert "was not looked at" in seen.sentence
    assert seen.facts is None


def test_regression_in_closed_form() -> None:
    fitted = {"intercept": -1.0, "features": {"a": [2.0, 0.5, 3.0], "b": [0.0, 1.0, 0.0]}}
    assert probability({"a": 2.0, "b": 9.0}, fitted) == pytest.approx(1 / (1 + math.e))
    for either_way in (1.5, 2.5):
        found = probability({"a": either_way, "b": 9.0}, fitted)
        assert found == pytest.approx(1 / (1 + math.exp(-2)))
    assert (
        probability({"a": 3.0, "b": 0.0}, fitted) < probability({"a": 1e9, "b": 0.0}, fitted) < 1.1
    )


def test_shipped_coefficients_fit_the_features_and_no_held_out_scan() -> None:
    fitted = fit_of_file()
    assert set(fitted["features"]) == set(found_in(head()))
    assert 0.5 <= fitted["threshold"] < 1
    learned = " ".join(fitted["fitted_to"]["real"])
    for held in ("sub-35", "sub-36", "sub-37", "patient12", "saganon"):
        assert held not in learned
    assert all(weight >= 0 for _, _, weight in fitted["features"].values())


@pytest.mark.parametrize(("score", "said"), [(9.0, "likely (1.00"), (-9.0, "unlikely (0.00")])
def test_a_hint_changes_no_exit_code(
    score: float,
    said: str,
    cli: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted = {"intercept": score, "features": {}, "threshold": 0.9}
    monkeypatch.setattr(texture, "fit_of_file", lambda: fitted)
    write_volume(head(20), tmp_path / "scan.nii.gz")
    done = cli("detect", tmp_path / "scan.nii.gz")
    assert done.exit_code == 0
    assert f"Texture like that of drawn heads: {said}" in done.stdout
    assert "no proof" in done.stdout
