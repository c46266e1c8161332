"""The scripts of the report pages, by node's own test runner: no browser, no package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NODE = shutil.which("node")
TESTS = sorted((Path(__file__).parents[1] / "viewer").glob("*.test.mjs"))


def _version() -> int:
    if NODE is None:
        return 0
    told = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    return int(told.removeprefix("v").partition(".")[0])


@pytest.mark.skipif(_version() < 20, reason="there is no node of version 20 or newer")
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_the_script_of_a_page(path: Path) -> None:
    command = [str(NODE), "--test", "--test-reporter=spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
