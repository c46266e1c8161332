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


NOT_FOR_A_RESTORATION = (
    *("matplotlib", "monai", "jinja2", "scipy.stats", "skimage.metrics", "skimage.restoration"),
    *("lightning_fabric", "dask", "onnxruntime", "openvino", "torch._dynamo", "SimpleITK"),
    *("medddpm.benchmark", "medddpm.calibration", "medddpm.export", "medddpm.importing"),
    *("medddpm.metrics", "medddpm.report", "medddpm.training.run", "medddpm.training.loop"),
)
AT_THE_FIRST_TILE = """
import sys
from pathlib import Path
from medddpm.restoration.tile import TileRestorer

def stop(*_):
    print("HELD", *sys.modules)
    sys.exit()

TileRestorer.restore = stop
from medddpm.cli import main
main()
"""


def test_a_restoration_does_not_wait_for_what_it_does_not_use(
    noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    words = ["restore", noisy_nifti, tmp_path / "out", "--weights", tiny_weights]
    command = [sys.executable, "-c", AT_THE_FIRST_TILE, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    held = next(line for line in done.stdout.splitlines() if line.startswith("HELD")).split()
    assert {"torch", "medddpm.restoration.restorer"} <= set(held)
    assert [name for name in NOT_FOR_A_RESTORATION if name in held] == []
