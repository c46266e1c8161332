"""Who shows a face, and what is done then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from unit.generation.conftest import SETTINGS, ellipsoid

from medddpm.config import load_config
from medddpm.errors import ConfigError
from medddpm.generation.faces import check_faces, face_share
from medddpm.generation.heads import Head
from medddpm.generation.train import heads_of


def head(*, face: bool) -> Head:
    """A ball of brain; with jaw and nose in front of and below it."""
    x, y, z = np.meshgrid(*(np.arange(40) - 20,) * 3, indexing="ij")
    inside = x**2 + y**2 + z**2 < 20**2
    if face:
        inside |= (np.abs(x) < 12) & (y > 0) & (z < -5)
    return Head("sub-01_T1w", inside.astype(np.float16), np.eye(4))


def test_a_face_is_seen_and_a_brain_has_none() -> None:
    assert face_share(head(face=False)) < 0.3
    assert face_share(head(face=True)) > 0.8


def test_one_face_is_enough_to_refuse() -> None:
    check_faces([head(face=False)])
    with pytest.raises(ConfigError, match=r"1 of 2 scans .* sub-01_T1w; .* prior.faces=keep"):
        check_faces([head(face=False), head(face=True)])


def test_a_training_refuses_faces_unless_told(tmp_path: Path) -> None:
    import nibabel as nib

    for subject in range(4, 7):
        image = ellipsoid(subject)
        image[8:28, 24:, :18] = 800
        scan = nib.nifti1.Nifti1Image(image, np.diag([4.0, 4.0, 4.0, 1.0]))
        nib.save(scan, tmp_path / f"sub-{subject:02d}_T1w.nii.gz")
    assert load_config(None).prior.faces == "refuse"
    config = load_config(None, [*SETTINGS, "prior.faces=refuse"])
    with pytest.raises(ConfigError, match="seem to show a face"):
        heads_of(tmp_path, tmp_path / "heads", config.prior, config.data.holdout)
    config = load_config(None, SETTINGS)
    kept = heads_of(tmp_path, tmp_path / "heads", config.prior, config.data.holdout)
    assert len(kept.train) == 1
