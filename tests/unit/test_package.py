from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import medddpm
from medddpm import workflows
from medddpm.share import share_dir


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


NOT_FOR_A_RESTORATION = (
    *("matplotlib", "monai", "jinja2", "scipy.stats", "skimage.metrics", "skimage.restoration"),
    *("lightning_fabric", "dask", "onnxruntime", "openvino", "torch._dynamo", "SimpleITK"),
    *("medddpm.benchmark", "medddpm.calibration", "medddpm.export", "medddpm.importing"),
    *("medddpm.metrics", "medddpm.report", "medddpm.training.run", "medddpm.training.loop"),
)
AT_THE_FIRST_TILE = """
import sys
import tomllib
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


ROOT = share_dir()
OF_CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""What conda-forge calls otherwise than PyPI."""


def test_the_conda_recipe_says_what_pyproject_says() -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    truth = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = truth["project"]

    def of_conda(requirement: str) -> str:
        name, _, version = requirement.partition(">=")
        return f"{OF_CONDA.get(name, name)} >={version}"

    python = f"python {project['requires-python']}"
    wanted = [python, *map(of_conda, project["dependencies"])]
    assert recipe["requirements"]["run"] == wanted
    builders = map(of_conda, truth["build-system"]["requires"])
    assert recipe["requirements"]["host"] == [python, "pip", *builders]
    commands = [f"{name} = {path}" for name, path in project["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == commands
    assert recipe["context"]["version"] == medddpm.__version__
    assert recipe["about"]["license"] == project["license"]
    assert recipe["about"]["summary"] == project["description"]
