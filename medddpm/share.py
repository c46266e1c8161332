"""Where the shipped configs, pipelines and the example scan lie."""

from __future__ import annotations

from pathlib import Path


def share_dir() -> Path:
    """Folder with configs/, pipelines/ and example/: inside the wheel, or the repository root."""
    package = Path(__file__).resolve().parent
    installed = package / "_share"
    return installed if installed.is_dir() else package.parent
