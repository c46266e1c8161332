from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import medddpm
from medddpm import workflows


def test_every_public_name_is_there() -> None:
    for module in (medddpm, workflows):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            module.nothing  # noqa: B018
    assert set(medddpm.__all__) <= set(dir(medddpm))


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, medddpm, medddpm.workflows; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_room_has_its_tests_and_no_test_stands_in_a_room_that_is_gone() -> None:
    package, tests = Path(medddpm.__file__).parent, Path(__file__).parent
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    folders = {path.parent.name for path in tests.glob("*/test_*.py")}
    files = {path.stem.removeprefix("test_") for path in tests.glob("test_*.py")}
    assert rooms <= folders | files
    assert folders <= rooms
