from __future__ import annotations

from pathlib import Path

import pytest

from medddpm import share


def test_share_dir_is_the_repository_root_in_a_checkout() -> None:
    assert (share.share_dir() / "pyproject.toml").is_file()


def test_share_dir_is_inside_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "medddpm"
    (package / "_share").mkdir(parents=True)
    monkeypatch.setattr(share, "__file__", str(package / "share.py"))
    assert share.share_dir() == package / "_share"
