from __future__ import annotations

import subprocess
import sys

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
