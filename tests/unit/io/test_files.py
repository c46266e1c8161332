"""Outputs: whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from medddpm.errors import ConfigError, OutputError
from medddpm.io import atomic_path, check_output


def test_check_output(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    assert check_output(tmp_path / "new") == tmp_path / "new"
    assert check_output(tmp_path / "there", overwrite=True)
    with pytest.raises(OutputError, match="--overwrite"):
        check_output(tmp_path / "there")
    with pytest.raises(OutputError, match="does not exist"):
        check_output(tmp_path / "no" / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OutputError, match="Read-only"):
        check_output(tmp_path / "new")


def test_file_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.nii.gz"
    with atomic_path(target) as partial:
        partial.write_text("new")
        assert partial.name.endswith(".nii.gz")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, ConfigError])
@pytest.mark.parametrize("is_folder", [True, False])
def test_nothing_is_left_of_a_failure(
    error: type[BaseException], is_folder: bool, tmp_path: Path
) -> None:
    with pytest.raises(error), atomic_path(tmp_path / "a", is_folder=is_folder) as partial:
        (partial / "b" if is_folder else partial).write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), atomic_path(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_folder_replaces_folder(tmp_path: Path) -> None:
    target = tmp_path / "series"
    for content in ("old", "new"):
        with atomic_path(target, is_folder=True) as partial:
            (partial / content).write_text(content)
    assert [p.name for p in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_old_folder_comes_back(tmp_path: Path) -> None:
    target = tmp_path / "series"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(OutputError), atomic_path(target, is_folder=True) as partial:
        partial.rmdir()  # so that the last rename fails
    assert [p.name for p in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]
