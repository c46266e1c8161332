"""Mutated DICOM headers: each series is read, or left out with one clear error; never worse."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.dicom_fuzz import mutate

from medddpm.errors import LeftOutWarning, MedddpmError
from medddpm.io import find_series, read_series, read_volumes, write_dicom, write_volume

GOOD = (6, 5, 3)
IN_ALL = 500
IN_SHORT = 24


@pytest.fixture
def sources(
    dicom_series: Any, enhanced: Any, mosaic: Any, enhanced_object: Any, tmp_path: Path, rng: Any
) -> list[Path]:
    data = rng.integers(0, 2000, (8, 10, 4)).astype(np.float32)
    folders = [tmp_path / "source" / name for name in ("classic", "groups", "mosaic", "whole")]
    dicom_series(folders[0], data)
    enhanced(folders[1], np.stack([data, data + 9], -1))
    mosaic(folders[2], data)
    mosaic(folders[2], data + 5, number=2)
    enhanced_object(folders[3] / "a.dcm", data[..., None])
    return folders


def try_one(seed: int, source: Path, good: Path, folder: Path) -> None:
    """A mutated series in one folder and a good one in another."""
    rng = np.random.default_rng(seed)
    shutil.copytree(source, folder / "in" / "bad")
    shutil.copytree(good, folder / "in" / "good")
    files = sorted((folder / "in" / "bad").iterdir())
    chosen = files if rng.random() < 0.3 else [files[rng.integers(len(files))]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in chosen:
            mutate(path, rng)
    errors: list[MedddpmError] = []
    volumes = read_volumes(folder / "in", on_error=errors.append, force=bool(rng.random() < 0.5))
    assert [v.data.shape for v in volumes].count(GOOD) == 1, "the good series is lost"
    assert len(volumes) > 1 or errors, "the bad series went without a word"
    for number, volume in enumerate(volumes):
        assert np.isfinite(volume.data).all()
        assert np.isfinite(volume.affine).all()
        for write, name in ((write_volume, f"{number}.nii.gz"), (write_dicom, f"{number}")):
            try:
                write(volume, folder / name)
            except MedddpmError as error:
                errors.append(error)
    found: list[Any] = []
    for series in find_series(folder / "in", errors.append):
        try:
            found += read_series(series.files)
        except MedddpmError as error:
            errors.append(error)
    assert found
    assert all(str(error) for error in errors)


def try_all(seeds: range, sources: list[Path], good: Path, tmp_path: Path) -> None:
    for seed in seeds:
        folder = tmp_path / str(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", LeftOutWarning)
            try_one(seed, sources[seed % len(sources)], good, folder)
        shutil.rmtree(folder)


@pytest.fixture
def good(dicom_series: Any, tmp_path: Path, rng: Any) -> Path:
    return Path(dicom_series(tmp_path / "good", rng.integers(0, 99, GOOD), number=77))


def test_a_few_mutated_headers(sources: list[Path], good: Path, tmp_path: Path) -> None:
    try_all(range(IN_SHORT), sources, good, tmp_path)


@pytest.mark.slow
def test_many_mutated_headers(sources: list[Path], good: Path, tmp_path: Path) -> None:
    try_all(range(IN_SHORT, IN_ALL), sources, good, tmp_path)
