from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medddpm.data.cache import (
    BLOCK,
    PackedImage,
    build_cache,
    find_scans,
    pack,
    purge,
    read_index,
    write_index,
)
from medddpm.errors import ConfigError, OutputError
from medddpm.volume import Geometry, Volume


@pytest.fixture
def scans(tmp_path: Path, phantom: Volume, save_nifti: Callable[..., Path]) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, data in (("sub-1", phantom.data), ("sub-2", phantom.data**0.9)):
        save_nifti(folder / f"{name}_T1w.nii.gz", data, phantom.affine)
    return folder


def test_packing_keeps_the_foreground_at_scale_one(tmp_path: Path, phantom: Volume) -> None:
    case = pack(phantom, tmp_path)
    packed = PackedImage(tmp_path / "phantom.npy", case.shape)
    whole = packed[tuple(slice(0, n) for n in case.shape)]
    assert whole.shape == case.shape
    assert whole.dtype == np.float16
    centres = np.load(tmp_path / "phantom.centres.npy")
    values = whole[tuple(centres.T)].astype(float)
    assert np.percentile(values, 99.5) == pytest.approx(1, abs=0.02)
    assert values.min() > 0.2
    assert case.spacing == phantom.spacing


def test_blocks_give_back_any_box(tmp_path: Path, rng: np.random.Generator) -> None:
    shape = (70, 33, 64)
    image = np.zeros(shape, np.float32)
    image[3:-3, 3:-3, 3:-3] = rng.uniform(0.5, 1, (64, 27, 58))
    case = pack(Volume(image, Geometry(shape, np.eye(4)), case_id="box"), tmp_path)
    packed = PackedImage(tmp_path / "box.npy", case.shape)
    whole = packed[tuple(slice(0, n) for n in case.shape)]
    for _ in range(30):
        low = [int(rng.integers(n)) for n in case.shape]
        box = tuple(
            slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(low, case.shape, strict=True)
        )
        np.testing.assert_array_equal(packed[box], whole[box])
    assert np.load(tmp_path / "box.npy", mmap_mode="r").shape[3:] == (BLOCK,) * 3


def test_the_cache_names_what_it_could_not_read(scans: Path, tmp_path: Path) -> None:
    (scans / "sub-3_T1w.nii.gz").write_bytes(b"nonsense")
    failures = build_cache(find_scans(scans), tmp_path / "cache")
    assert len(failures) == 1
    assert failures[0].startswith("sub-3_T1w.nii.gz")
    cases, index = read_index(tmp_path / "cache")
    assert [c.name for c in cases] == ["sub-1_T1w", "sub-2_T1w"]
    assert index["failures"] == failures


def test_two_scans_of_one_name_are_refused(scans: Path, tmp_path: Path) -> None:
    (scans / "more").mkdir()
    (scans / "more" / "sub-1_T1w.nii.gz").write_bytes((scans / "sub-1_T1w.nii.gz").read_bytes())
    with pytest.raises(ConfigError, match="two scans are called sub-1_T1w"):
        build_cache(find_scans(scans), tmp_path / "cache")


def test_a_cache_of_another_version_is_refused(scans: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build_cache(find_scans(scans), cache)
    for name in ("index.json", "sub_1_T1w_nii_gz.json"):
        entry = json.loads((cache / name).read_text())
        (cache / name).write_text(json.dumps(entry | {"version": 1}))
    with pytest.raises(ConfigError, match="delete that folder"):
        read_index(cache)
    with pytest.raises(ConfigError, match="another version"):
        build_cache(find_scans(scans), cache)


def test_an_unfinished_or_damaged_cache_is_said(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unfinished"):
        read_index(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        read_index(tmp_path)


def test_a_full_disk_stops_packing_and_leaves_no_half(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    save = np.save

    def full(path: Path, array: Any) -> None:
        calls.append(path)
        if len(calls) == 3:
            save(path, array[:1])
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, array)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        build_cache(find_scans(scans), tmp_path / "cache")
    names = {p.name for p in (tmp_path / "cache").iterdir()}
    assert names == {"sub-1_T1w.npy", "sub-1_T1w.centres.npy", "sub_1_T1w_nii_gz.json"}
    monkeypatch.undo()
    assert build_cache(find_scans(scans), tmp_path / "cache") == []
    assert len(read_index(tmp_path / "cache")[0]) == 2


def test_purging_keeps_what_is_listed(phantom: Volume, tmp_path: Path) -> None:
    case = pack(phantom, tmp_path)
    (tmp_path / "phantom.json").write_text("{}")
    (tmp_path / ".0123-half.npy").write_bytes(b"x")
    (tmp_path / "other.npy").write_bytes(b"x")
    write_index(tmp_path, [case])
    purge(tmp_path, ["phantom"], [case])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "index.json",
        "phantom.centres.npy",
        "phantom.json",
        "phantom.npy",
    ]


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no NIfTI"):
        find_scans(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        find_scans(tmp_path / "no")


def test_names_that_meet_in_the_cache(tmp_path: Path) -> None:
    scans = [tmp_path / "a b.nii", tmp_path / "a_b.nii"]
    with pytest.raises(ConfigError, match="two scans are called"):
        build_cache(scans, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
