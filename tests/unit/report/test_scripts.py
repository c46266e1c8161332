"""The pure functions of the pages' scripts, tested with `node --test` (tests/js)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.sidecars import sidecar_of

from medddpm.report.cropped import crop
from medddpm.report.facts import ReportScan
from medddpm.report.view import pack_view
from medddpm.volume import Volume

NODE = shutil.which("node")
TESTS = Path(__file__).parents[2] / "js"
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed: see nodejs.org")


def node(file: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [str(NODE), "--test", "--test-reporter=tap", str(file)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **variables}
    )


def test_the_table_sorts_filters_and_writes() -> None:
    done = node(TESTS / "table.test.js")
    assert done.returncode == 0, done.stdout
    assert "# pass 6" in done.stdout


def test_the_viewer_draws_each_voxel_where_it_is() -> None:
    done = node(TESTS / "drawing.test.js")
    assert done.returncode == 0, done.stdout
    assert "# pass 5" in done.stdout


def test_the_viewer_reads_what_python_packs(
    phantom: Volume, noisy_phantom: Volume, tmp_path: Path
) -> None:
    scan = ReportScan(
        "a", noisy_phantom.frame(0), phantom.frame(0), phantom.geometry, sidecar_of(),
        std=0.1 * phantom.frame(0), reference=phantom.frame(0) + 3,
    )  # fmt: skip
    shown = crop(scan)
    view = pack_view(shown, scan.geometry)
    whole = {
        name: np.moveaxis(shown.arrays[name], shown.axis, 0).ravel().tolist()
        for name in ("before", "after")
    }
    packed = tmp_path / "packed.json"
    packed.write_text(json.dumps({"content": view.content, "planes": view.planes, **whole}))
    done = node(TESTS / "planes.test.js", PACKED=str(packed))
    assert done.returncode == 0, done.stdout
    assert "# pass 12" in done.stdout
    assert "# skipped 0" in done.stdout
