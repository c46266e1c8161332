"""Time and peak memory of a restoration against the size of the scan: a table and a picture.

Usage: scaling.py OUT [--sizes 128 192 256] [--memory 6GB] [--weights NAME|PATH]
Each size runs in a process of its own, with import and file access counted (Linux and macOS).
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import medddpm


def head(size: int) -> medddpm.Volume:
    """A ball of tissue with texture and Rician noise, (size, size, size), air around it."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    inside = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 0.7
    clean = (900 + 90 * np.sin(40 * axis)) * inside
    real, imaginary = (rng.standard_normal(clean.shape, np.float32) * 45 for _ in range(2))
    noisy = np.hypot(clean + real, imaginary).astype(np.float32)
    return medddpm.Volume(noisy, medddpm.Geometry(noisy.shape, np.eye(4)), case_id="head")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for scaling.csv and scaling.png")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 192, 256])
    parser.add_argument("--memory", default="6GB", help="budget of each process")
    parser.add_argument("--weights", default="default")
    given = parser.parse_args()

    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in sorted(given.sizes):
        noisy, done = given.out / "noisy.nii", given.out / "restored.nii"
        medddpm.write_volume(head(size), noisy, overwrite=True)
        command = [sys.executable, "-m", "medddpm", "restore", noisy, done, "--overwrite"]
        began = time.perf_counter()
        child = subprocess.Popen([*command, "--memory", given.memory, "--weights", given.weights])
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in (0, 6):  # 6: restored, but a phantom is no head to the guard
            raise SystemExit(f"restoring {size}^3 voxels failed; see the message above")
        unit = 1e9 if sys.platform == "darwin" else 1e9 / 1024
        seconds, memory = time.perf_counter() - began, used.ru_maxrss / unit
        rows.append({"size": size, "voxels": size**3, "seconds": seconds, "peak_gb": memory})
        print(f"{size}^3: {seconds:.1f} s, {memory:.2f} GB")
        for part in (noisy, done, done.with_suffix(".json")):
            part.unlink()

    with (given.out / "scaling.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name, label in ((left, "seconds", "seconds"), (right, "peak_gb", "peak memory, GB")):
        axes.plot([row["voxels"] / 1e6 for row in rows], [row[name] for row in rows], marker="o")
        axes.set(xlabel="million voxels", ylabel=label, ylim=(0, None))
    figure.savefig(given.out / "scaling.png", dpi=110)


if __name__ == "__main__":
    main()
