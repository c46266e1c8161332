"""Small text files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

from medddpm.io import atomic_path


def write_text(path: Path, text: str) -> None:
    """Write a text file by atomic rename.

    Raises:
        OutputError: The disk is full or read-only.
    """
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")
