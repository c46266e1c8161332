"""Every command of the README and of the pages that go on from it runs, in order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medddpm.share import share_dir
from medddpm.volume import Volume

ROOT = share_dir()
WEIGHTS = ROOT / "medddpm" / "weights" / "default.safetensors"
PAGES = (
    "README.md",
    "docs/restore.md",
    "docs/evaluate.md",
    "docs/prepare.md",
    "docs/training.md",
)
LONG = ("docs/training.md",)


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(page: str) -> list[list[str]]:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


@pytest.fixture
def phantom_shape() -> tuple[int, int, int]:
    return (40, 44, 36)


@pytest.fixture
def workplace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noisy_phantom: Volume,
    phantom: Volume,
    dicom_series: Any,
    save_nifti: Any,
    head: Any,
) -> Path:
    """The files that the pages name."""
    save_nifti(tmp_path / "scan.nii.gz", noisy_phantom.data, noisy_phantom.affine)
    save_nifti(tmp_path / "clean.nii.gz", phantom.data, phantom.affine)
    dicom_series(tmp_path / "dicom", noisy_phantom.data)
    parts = np.random.default_rng(1).normal(0, 30, (2, *phantom.data.shape)).astype(np.float32)
    parts[0] += phantom.data
    whole = parts[0] + 1j * parts[1]
    named = {"real": parts[0], "imaginary": parts[1], "complex": whole.astype(np.complex64)}
    named |= {"magnitude": np.abs(whole), "phase": np.angle(whole)}
    for name, data in named.items():
        save_nifti(tmp_path / f"{name}.nii.gz", data, phantom.affine)
    dark = np.where(phantom.data > 0, 1.2 * phantom.data.max() - phantom.data, 0)
    save_nifti(tmp_path / "t1w.nii.gz", dark, phantom.affine)
    (tmp_path / "scans").mkdir()
    (tmp_path / "hospital").mkdir()
    (tmp_path / "hospital" / "dataset_description.json").write_text('{"Name": "heads"}')
    for number in (1, 2, 3):
        data = head((36 + number, 36, 34))
        save_nifti(tmp_path / "scans" / f"sub-0{number}_T1w.nii.gz", data, np.eye(4))
        anat = tmp_path / "hospital" / f"sub-0{number}" / "anat"
        anat.mkdir(parents=True)
        save_nifti(anat / f"sub-0{number}_T1w.nii.gz", data, np.eye(4))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [words[1] for words in commands("README.md") if words[0] == "make"]
    assert targets == ["quickstart", "test"]
    for target in targets:
        assert f"\n{target}:" in makefile


def test_only_known_programs() -> None:
    found = {words[0] for page in PAGES for words in commands(page)}
    assert found == {".", "make", "medddpm"}


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="this checkout has no shipped weights")
@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.slow] * (p in LONG)) for p in PAGES]
)
def test_every_command_runs(page: str, cli: Callable[..., Any], workplace: Path) -> None:
    """0, or 6 where a check flags: the phantoms are unlike any scan that was trained on."""
    for words in commands(page):
        if words[0] == "medddpm" and words[1] != "--install-completion":  # of who runs the tests
            done = cli(*words[1:])
            assert done.exit_code in (0, 6), f"{shlex.join(words)}: {done.stderr}"
        if words[1:3] == ["configs", "copy"]:
            _shorten(workplace / words[-1])


def _shorten(config: Path) -> None:
    """A few steps a stage: what the config itself does is a test of the training."""
    text = config.read_text(encoding="utf-8")
    assert len(re.findall(r"^  steps: \d+$", text, flags=re.MULTILINE)) == 3
    config.write_text(re.sub(r"^  steps: \d+$", "  steps: 6", text, flags=re.MULTILINE))


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="this checkout has no shipped weights")
def test_the_python_example_runs(workplace: Path) -> None:
    [code] = blocks("README.md", "python")
    exec(compile(code, "README.md", "exec"), {})
    assert (workplace / "restored-in-python.nii.gz").is_file()
