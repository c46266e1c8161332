"""What is done once is read back, with the files beside it; what fails leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from medddpm.io.kept import Kept, keep, key_of


def test_it_is_computed_once(tmp_path: Path) -> None:
    path, calls = tmp_path / "rows" / "a.json", []

    def compute() -> Kept:
        calls.append(1)
        return Kept({"x": 1.5, "y": [None, "z"]}, {".npz": b"slices"})

    first, second = keep(path, compute), keep(path, compute)
    assert first == second == {"x": 1.5, "y": [None, "z"]}
    assert len(calls) == 1
    assert path.with_suffix(".npz").read_bytes() == b"slices"
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.json", "a.npz"]


def test_what_fails_leaves_nothing_and_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "rows" / "a.json"

    def fail() -> Kept:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(path, fail)
    assert not path.parent.exists()
    assert keep(path, lambda: Kept({"x": 1})) == {"x": 1}


def test_the_key_depends_on_every_part_and_not_on_their_order() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of({"a": 1, "b": 2}) != key_of({"a": 1, "b": 3})
    assert len(key_of({})) == 20
