"""What docs/extend.md shows runs as it stands there."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Cli = Callable[..., Any]
PAGE = Path(__file__).parents[2] / "docs" / "extend.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def workplace(
    tmp_path: Path, head: Any, noisy_nifti: Path, save_nifti: Any, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with a noisy scan, a clean one, three to train on, and the module of the page."""
    (tmp_path / "my_mri.py").write_text(BLOCKS[0][1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_mri", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noisy.nii.gz").write_bytes(noisy_nifti.read_bytes())
    affine = np.diag([1.0, 1.0, 1.1, 1.0])
    save_nifti(tmp_path / "clean.nii.gz", head((32, 30, 28)), affine)
    (tmp_path / "scans").mkdir()
    for number in (1, 2, 3):
        data = head((36 + 2 * number, 40, 38))
        save_nifti(tmp_path / "scans" / f"sub-0{number}_T1w.nii.gz", data, affine)
    return tmp_path


def test_the_page(workplace: Path, cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert BLOCKS[0][1].startswith("# my_mri.py")
    for kind, text in BLOCKS[1:]:
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), {})
        for line in text.splitlines() if kind == "bash" else ():
            program, *words = shlex.split(line)
            assert program == "medddpm"
            done = cli(*words)
            assert done.exit_code in (0, 6), f"{line}: {done.stderr}"
    assert (workplace / "out.nii.gz").is_file()
    assert "my_mri:ddim_half" in (workplace / "out.json").read_text(encoding="utf-8")
    assert "my_mri:median" in (workplace / "bench" / "rows.csv").read_text(encoding="utf-8")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].count("NoiseLevel") == 5
    assert float(printed[1]) < 1e-5
