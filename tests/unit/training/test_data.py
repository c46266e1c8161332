"""What a prepared folder decides, and what it is guarded against."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medddpm.data.cache import pack, write_index
from medddpm.data.manifest import ScanRow, Split, write_manifest
from medddpm.errors import ConfigError
from medddpm.training.data import PackedScans, check_split, open_cache, record_subjects
from medddpm.volume import Volume


def prepared(
    folder: Path, phantom: Volume, *rows: tuple[str, str, Split], same: bool = False
) -> Path:
    """A prepared folder of phantoms: name, subject and split of each."""
    cache = folder / "cache"
    cache.mkdir(parents=True)
    cases = []
    for number, (name, _, _) in enumerate(rows):
        power = 1.0 if same else 1 - 0.05 * number
        cases.append(pack(replace(phantom, data=phantom.data**power, case_id=name), cache))
    write_manifest(folder / "manifest.csv", [ScanRow(n, s, split=x) for n, s, x in rows])
    write_index(cache, cases, manifest="../manifest.csv")
    return folder


def test_the_manifest_decides_and_holdout_only_takes_away(tmp_path: Path, phantom: Volume) -> None:
    out = prepared(
        tmp_path / "p",
        phantom,
        ("a", "1", "train"),
        ("b", "2", "train"),
        ("c", "3", "val"),
        ("d", "4", "test"),
        ("e", "5", ""),
    )
    cache = tmp_path / "run" / "cache"
    assert open_cache(out, cache) == []
    assert cache.resolve() == out / "cache"
    assert open_cache(out, cache) == []
    other = prepared(tmp_path / "q", phantom, ("a", "1", "train"))
    with pytest.raises(ConfigError, match="holds other scans"):
        open_cache(other, cache)
    train = PackedScans(cache, ["b", "d"], 16)
    held = PackedScans(cache, ["b", "d"], 16, validation=True)
    assert [c.name for c in train.cases] == ["a"]
    assert [c.name for c in held.cases] == ["c"]
    check_split(train, held)
    patch, spacing = train.draw(np.random.default_rng(0))
    assert patch.shape == (16, 16, 16)
    assert spacing == list(phantom.spacing)


@pytest.mark.parametrize(
    ("rows", "same", "said"),
    [
        ([("a", "1", "train"), ("b", "1", "val")], False, "1 is in both halves"),
        ([("a", "1", "train"), ("b", "2", "val"), ("c", "1", "test")], False, "for train and c"),
        ([("a", "1", "train"), ("b", "2", "val"), ("c", "2", "test")], False, "for val and c"),
        ([("a", "1", "train"), ("b", "2", "val")], True, "are the same image"),
    ],
)
def test_two_sides_share_neither_a_subject_nor_an_image(
    tmp_path: Path,
    phantom: Volume,
    rows: list[tuple[str, str, Split]],
    same: bool,
    said: str,
) -> None:
    cache = prepared(tmp_path, phantom, *rows, same=same) / "cache"
    train, held = PackedScans(cache, [], 16), PackedScans(cache, [], 16, validation=True)
    with pytest.raises(ConfigError, match=said):
        check_split(train, held)


def test_a_manifest_without_validation_is_said(tmp_path: Path, phantom: Volume) -> None:
    cache = prepared(tmp_path, phantom, ("a", "1", "train")) / "cache"
    with pytest.raises(ConfigError, match="another --split"):
        PackedScans(cache, [], 16, validation=True)


def test_whom_a_stage_saw_is_added_up(tmp_path: Path, phantom: Volume) -> None:
    one = prepared(tmp_path / "one", phantom, ("a", "1", "train"), ("b", "1", "train"))
    two = prepared(tmp_path / "two", phantom, ("c", "1", "train"), ("d", "2", "train"))
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "run.json").write_text('{"stage": "x"}')
    for folder in (one, two):
        record_subjects(tmp_path / "stage", PackedScans(folder / "cache", [], 16))
    facts = json.loads((tmp_path / "stage" / "run.json").read_text())
    assert facts == {"stage": "x", "subjects": {"1": ["a", "b", "c"], "2": ["d"]}}
