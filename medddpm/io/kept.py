"""A table that goes on where it stopped: each part is done once and kept as JSON under a key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medddpm.io.outputs import staged, write_json


@dataclass(frozen=True)
class Kept:
    """What is kept.

    Attributes:
        content: JSON-able.
        beside: Contents of other files of that name, by suffix; they appear together with it.
    """

    content: Mapping[str, Any]
    beside: Mapping[str, bytes] = field(default_factory=dict)


def key_of(parts: Mapping[str, Any]) -> str:
    """A name for all that a part of the table depends on; JSON-able."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def keep(path: Path, compute: Callable[[], Kept]) -> dict[str, Any]:
    """What a JSON file holds; where there is none, what is computed, which is written first.

    Args:
        path: The file; its folder is made.
        compute: Called if it is missing.

    Raises:
        OutputError: The folder takes no file.
    """
    if not path.exists():
        part = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged(path.parent) as work:
            for suffix, data in part.beside.items():
                (work / path.name).with_suffix(suffix).write_bytes(data)
            write_json(work / path.name, part.content)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
