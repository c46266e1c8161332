"""Small text files and tables that appear whole or not at all, the same bytes for the same rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from medddpm.io import atomic_path


def write_text(path: Path, text: str) -> None:
    """Write a text file by atomic rename.

    Raises:
        OutputError: The disk is full or read-only.
    """
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_table(path: Path, header: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write a CSV with a header; the lines are in the caller's order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    write_text(path, text.getvalue())
