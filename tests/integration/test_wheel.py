"""The built wheel works alone: command line, configs, pipelines, weights and example."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medddpm.share import share_dir

ROOT = share_dir()
WEIGHTS = ROOT / "medddpm" / "weights" / "default.safetensors"


def python(*arguments: str, cwd: Path, path: str = "") -> str:
    environment = {**os.environ, "PYTHONPATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel and nothing else; it comes before the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist"), cwd=ROOT)
    [wheel] = (folder / "dist").glob("*.whl")
    target = folder / "site"
    python(
        *("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)),
        cwd=folder,
    )
    return target


def packaged(site: Path) -> list[Path]:
    """The files of the package."""
    found = (path for path in (site / "medddpm").rglob("*") if path.is_file())
    return [path for path in found if path.suffix != ".pyc"]


def medddpm(site: Path, *arguments: str, cwd: Path) -> str:
    code = "import sys; from medddpm.cli import main; sys.argv[0] = 'medddpm'; main()"
    return python("-c", code, *arguments, cwd=cwd, path=str(site))


def test_it_installs_one_package(site: Path) -> None:
    found = {p.name for p in site.iterdir()}
    assert {n for n in found if not n.endswith(".dist-info")} == {"medddpm", "bin"}
    assert (site / "bin" / "medddpm").is_file()
    assert (site / "medddpm" / "py.typed").is_file()
    assert not list(site.rglob("test_*.py"))


def test_the_command_line_works_without_the_repository(site: Path, tmp_path: Path) -> None:
    where = python("-c", "import medddpm; print(medddpm.__file__)", cwd=tmp_path, path=str(site))
    assert where.startswith(str(site))
    assert "restore" in medddpm(site, "--help", cwd=tmp_path)
    assert "tiny_cpu" in medddpm(site, "configs", "list", cwd=tmp_path)
    assert "restore_nifti" in medddpm(site, "pipelines", "list", cwd=tmp_path)


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="this checkout has no shipped weights")
def test_the_quickstart_works_without_the_repository(
    site: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    """With other weights, which are quicker; the shipped ones are read."""
    assert "SHA-256" in medddpm(site, "info", "default", cwd=tmp_path)
    said = medddpm(site, "quickstart", "--out", "q", "--weights", str(tiny_weights), cwd=tmp_path)
    assert "PSNR" in said
    assert list((tmp_path / "q").glob("*.png"))


@pytest.mark.slow
def test_the_source_distribution_makes_the_same_package(site: Path, tmp_path: Path) -> None:
    python("-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path), cwd=ROOT)
    [sdist] = tmp_path.glob("*.tar.gz")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--target", str(tmp_path / "site"))
    python("-m", "pip", "install", *options, str(sdist), cwd=tmp_path)
    one, two = (
        {p.relative_to(s): p.read_bytes() for p in packaged(s)} for s in (site, tmp_path / "site")
    )
    assert one == two
