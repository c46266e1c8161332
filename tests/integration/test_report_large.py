"""Reports of large scans, from files that no network has seen: size, memory and time to load.

`pytest -m slow -s tests/integration/test_report_large.py` prints the figures of docs/report.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medddpm.io import checksum
from medddpm.io.provenance import STATEMENT, versions

pytest.importorskip("resource", reason="this system does not tell the memory of a command")
pytestmark = pytest.mark.slow
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# Runs a command and prints its peak of memory in bytes (Linux tells kilobytes) and its CPU seconds.
MEASURE = (
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
    "unit = 1 if sys.platform == 'darwin' else 1024; "
    "print(used.ru_maxrss * unit, used.ru_utime + used.ru_stime); sys.exit(code)"
)


def make_result(folder: Path, size: int) -> Path:
    """A noisy phantom of size^3 voxels, the same with little noise, and a sidecar."""
    rng = np.random.default_rng(0)
    at = np.linspace(-1, 1, size, dtype=np.float32)
    x, y, z = at[:, None, None], at[None, :, None], at[None, None, :]
    head = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 0.85) ** 2 < 1
    clean = np.where(head, 600 + 200 * np.sin(40 * x) * np.cos(30 * y), 0).astype(np.float32)
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    files = folder / "noisy.nii", folder / "scan.nii"
    for path, sigma in zip(files, (50, 5), strict=True):
        image = nib.nifti1.Nifti1Image(np.abs(clean + sigma * noise), np.diag([0.5, 0.5, 0.5, 1]))
        nib.save(image, path)
    frame = {
        "sigma": {"sigma": 50.0, "fraction": 0.06, "method": "air"},
        "vae_ceiling_db": 40.0,
        "guard": {"passed": True, "messages": []},
    }
    source = {
        "case_id": "noisy", "format": "nifti", "sha256": checksum([files[0]]), "num_files": 1,
        "shape": [size] * 3, "spacing_mm": [0.5] * 3, "orientation": "RAS", "path": "noisy.nii",
    }  # fmt: skip
    facts = {
        "statement": STATEMENT, "input": source, "options": {"mode": "mean", "seed": 0},
        "weights": {"name": "none", "sha256": "0" * 64}, "frames": [frame],
        "versions": versions(), "seconds": 1.0, "device": "cpu",
        "output": {
            "voxels_sha256": "0" * 64, "maps_sha256": {}, "maps": {},
            "files": {"scan.nii": checksum([files[1]])},
        },
    }  # fmt: skip
    (folder / "scan.json").write_text(json.dumps(facts))
    return folder / "scan.json"


def report_of(sidecar: Path) -> tuple[Path, float]:
    """The page that the command writes, and its peak of memory in GB."""
    command = [sys.executable, "-m", "medddpm", "report", str(sidecar)]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seconds = time.perf_counter() - began
    memory, of_cpu = (float(word) for word in done.stdout.splitlines()[-1].split())
    page = sidecar.with_suffix(".html")
    print(  # noqa: T201
        f"\npage {page.stat().st_size / 1e6:.1f} MB, {seconds:.0f} s, {of_cpu:.0f} of them CPU, "
        f"{memory / 1e9:.2f} GB"
    )
    return page, memory / 1e9


def seconds_to_draw(page: Path) -> float:
    """From the call of the page to its first slice, in headless Chromium without a GPU."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    software = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=software)
        opened = browser.new_page()
        began = time.perf_counter()
        opened.goto(page.as_uri())
        opened.wait_for_selector("body[data-ready=true]", timeout=300_000)
        took = time.perf_counter() - began
        browser.close()
    return took


def test_a_scan_of_256(tmp_path: Path) -> None:
    page, memory = report_of(make_result(tmp_path, 256))
    assert page.stat().st_size < 15e6
    assert memory < 2
    drawn = seconds_to_draw(page)
    print(f"drawn after {drawn:.1f} s")  # noqa: T201
    assert drawn < 60


def test_half_a_gigabyte(tmp_path: Path) -> None:
    """512^3 voxels in float32: the page stays small by leaving out planes, and says so."""
    if shutil.disk_usage(tmp_path).free < 4e9:
        pytest.skip("less than 4 GB of disk are free")
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 8e9:
        pytest.skip("less than 8 GB of memory")
    sidecar = make_result(tmp_path, 512)
    assert (tmp_path / "noisy.nii").stat().st_size > 0.5e9
    page, memory = report_of(sidecar)
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 15e6
    assert "only some planes: 1 of" in text
    assert "Numbers and static pictures come from the whole scan" in text
    assert memory < 4
    print(f"drawn after {seconds_to_draw(page):.1f} s")  # noqa: T201
