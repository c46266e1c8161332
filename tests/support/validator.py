"""What dciodvfy says of DICOM files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def errors_in(folder: Path) -> set[str]:
    """What dciodvfy calls an error, in any file of the folder."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")
    found: set[str] = set()
    for path in folder.iterdir():
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        found |= {line for line in (done.stdout + done.stderr).splitlines() if "Error" in line}
    return found
