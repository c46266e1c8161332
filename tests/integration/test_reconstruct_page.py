"""The commands of docs/reconstruct.md run as they stand there, on a small head."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.io import read_volume
from medddpm.share import share_dir

PAGE = share_dir() / "docs" / "reconstruct.md"
SHAPE = (20, 60, 48)
QUICK = {
    "reconstruct": ("--set", "reconstruct.plug.steps=2", "--device", "cpu"),
    "benchmark-raw": (
        *("--mask", "vd2d", "--R", "4", "--sigma", "0.02", "--planes", "8"),
        *("--method", "zero-filled", "--method", "ours", "--set", "reconstruct.plug.steps=1"),
    ),
}
"""What is added to a command, so that it takes seconds."""


def commands() -> list[list[str]]:
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in found for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def test_every_command_of_the_page_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: Callable[..., Any],
    tiny_weights: Path,
    save_nifti: Any,
    head: Callable[..., NDArray[np.float32]],
) -> None:
    pytest.importorskip("h5py", reason="needs the extra raw")
    pytest.importorskip("finufft", reason="needs the extra nufft")
    for name in ("clean.nii.gz", "ds002748_sub-36_T1w.nii.gz"):
        save_nifti(tmp_path / name, head(SHAPE), np.diag([3.0, 3.5, 4.0, 1]))
    monkeypatch.chdir(tmp_path)
    words = commands()
    assert {word[1] for word in words} >= {"simulate-raw", "undersample", "reconstruct", "replay"}
    for word in words:
        assert word[0] == "medddpm"
        more = [*QUICK.get(word[1], ())]
        if word[1] == "benchmark-raw" and "--mask" in word:  # one row of the grid is enough
            more = more[more.index("--method") :]
        if word[1] in ("reconstruct", "benchmark-raw"):
            more += ["--weights", str(tiny_weights)]
        done = cli(*word[1:], *more)
        assert done.exit_code == 0, f"{shlex.join(word)}: {done.stderr}"
    images = sorted(tmp_path.rglob("*_desc-reconstructed.nii.gz"))
    assert len(images) >= 3
    assert all(read_volume(image).geometry.shape == SHAPE for image in images)
