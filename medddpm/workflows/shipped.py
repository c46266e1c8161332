"""The configs and pipelines that come with the package: list, find, copy, run."""

from __future__ import annotations

import ast
import runpy
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from medddpm.errors import ConfigError
from medddpm.io.outputs import check_targets, names_folder, staged
from medddpm.share import share_dir


def list_shipped(kind: str, suffix: str) -> list[tuple[str, str]]:
    """(name, first line of its comment or docstring) of each shipped file of a kind."""
    files = sorted((share_dir() / kind).glob(f"*{suffix}"))
    return [(path.stem, _summary(path)) for path in files]


def shipped_file(kind: str, suffix: str, name: str) -> Path:
    """The path of a shipped file, for example ("configs", ".yaml", "default")."""
    names = [known for known, _ in list_shipped(kind, suffix)]
    if name not in names:
        raise ConfigError(f"no shipped {kind} named {name!r}; there are: {', '.join(names)}")
    return share_dir() / kind / f"{name}{suffix}"


def copy_shipped(kind: str, suffix: str, name: str, target: str | Path, *, overwrite: bool) -> Path:
    """Copy a shipped file to a file or into a folder; returns the new path."""
    source = shipped_file(kind, suffix, name)
    path = Path(target)
    path = path / source.name if names_folder(target, (suffix,)) else path
    check_targets([path], overwrite=overwrite)
    with staged(path.parent) as folder:
        shutil.copyfile(source, folder / path.name)
    return path


def run_shipped_pipeline(name: str, arguments: Sequence[str]) -> None:
    """Run a shipped pipeline as a script, with these command-line arguments."""
    path = shipped_file("pipelines", ".py", name)
    before = sys.argv
    sys.argv = [str(path), *arguments]
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.argv = before


def _summary(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    first = text.strip().split("\n")[0]
    return first.lstrip("# ").strip()
