"""Patches from label maps: clean, of any contrast, and the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medddpm.errors import ConfigError
from medddpm.training.data import with_spots
from medddpm.training.labels import LabelMaps, painted


@pytest.fixture
def maps(tmp_path: Path) -> LabelMaps:
    folder = tmp_path / "maps"
    folder.mkdir()
    grid = np.meshgrid(*[np.linspace(-1, 1, 40)] * 3, indexing="ij")
    radius = np.sqrt(sum(g**2 for g in grid))
    labels = np.select([radius < 0.4, radius < 0.7, radius < 0.9], [502, 41, 3], 0)
    nib.save(nib.Nifti1Image(labels.astype(np.float32), np.eye(4)), folder / "head.nii.gz")
    return LabelMaps(folder, tmp_path / "cache", 16)


def test_a_patch_has_its_size_and_another_contrast_each_time(maps: LabelMaps) -> None:
    contrasts = set()
    for seed in range(6):
        patch, spacing = maps.draw(np.random.default_rng(seed), thicken=0.3, coarsen=0.5)
        again, _ = maps.draw(np.random.default_rng(seed), thicken=0.3, coarsen=0.5)
        np.testing.assert_array_equal(patch, again)
        assert patch.shape == (16, 16, 16)
        assert np.isfinite(patch).all()
        assert 1 <= min(spacing) <= max(spacing) <= 5
        contrasts.add(round(float(patch.mean()), 3))
    assert len(contrasts) == 6


def test_labels_of_one_kind_get_one_intensity() -> None:
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[4:12], labels[12:20] = 1, 2
    image = painted(labels, np.random.default_rng(1))
    inner = [image[6:10, 4:-4, 4:-4], image[14:18, 4:-4, 4:-4]]
    assert abs(inner[0].mean() - inner[1].mean()) > 3 * max(i.std() for i in inner) / 10
    assert image[:1].max() == 0


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.labels"):
        LabelMaps(tmp_path, tmp_path / "cache", 16)


def test_spots_lie_in_the_body_and_air_stays() -> None:
    patch = np.full((32, 32, 32), 0.5, np.float32)
    patch[:8] = 0
    rng = np.random.default_rng(0)
    out = [with_spots(patch, (1.0, 1.0, 1.0), rng) for _ in range(10)]
    assert all((o[:8] == 0).all() for o in out)
    changed = [np.abs(o - patch).max() for o in out]
    assert np.median(changed) > 0.03
    assert max(np.mean(o != patch) for o in out) < 0.9
