from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medddpm.errors import ConfigError, OutputError
from medddpm.workflows.shipped import copy_shipped, list_shipped, shipped_file


def test_every_shipped_file_says_what_it_is_for() -> None:
    for kind, suffix in (("configs", ".yaml"), ("pipelines", ".py")):
        found = list_shipped(kind, suffix)
        assert found
        assert all(summary for _, summary in found)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="tiny_cpu"):
        shipped_file("configs", ".yaml", "../pyproject")


def test_copy_keeps_what_exists(tmp_path: Path) -> None:
    path = copy_shipped("configs", ".yaml", "tiny_cpu", tmp_path, overwrite=False)
    assert path == tmp_path / "tiny_cpu.yaml"
    with pytest.raises(OutputError, match="exists"):
        copy_shipped("configs", ".yaml", "tiny_cpu", path, overwrite=False)
    copy_shipped("configs", ".yaml", "tiny_cpu", path, overwrite=True)
    with pytest.raises(OutputError, match="cannot write"):
        copy_shipped("configs", ".yaml", "tiny_cpu", tmp_path / "no" / "x", overwrite=False)


def test_the_commands(cli: Callable[..., Any], tmp_path: Path) -> None:
    assert "tiny_cpu" in cli("configs", "list").stdout
    assert "schema_version" in cli("configs", "show", "tiny_cpu").stdout
    assert cli("configs", "copy", "tiny_cpu", tmp_path).exit_code == 0
    assert (tmp_path / "tiny_cpu.yaml").is_file()
    assert "restore_nifti" in cli("pipelines", "list").stdout
    assert cli("pipelines", "show", "nothing").exit_code == 2
