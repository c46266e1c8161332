"""Add noise to clean scans, restore them, and compare with the truth: PSNR and SSIM a level.

Usage: evaluate.py CLEAN OUT [--sigma 0.03 0.05 0.09] [--weights NAME|PATH]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import medddpm
from medddpm.workflows import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clean", type=Path, help="folder of clean NIfTI scans, not trained on")
    parser.add_argument("out", type=Path, help="folder for noisy and restored scans and table.csv")
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.03, 0.05, 0.09])
    parser.add_argument("--weights", default="default")
    given = parser.parse_args()

    given.out.mkdir(exist_ok=True)
    rows = []
    for clean in sorted(p for p in given.clean.iterdir() if p.name.endswith((".nii", ".nii.gz"))):
        for sigma in given.sigma:
            stem = f"{clean.name.split('.')[0]}_sigma-{sigma}"
            made = simulate(clean, given.out / f"{stem}_noisy.nii.gz", sigma)
            [done] = medddpm.restore(
                made.noisy, given.out / f"{stem}_restored.nii.gz", weights=given.weights
            )
            result = medddpm.evaluate(made.clean, done.image, noisy=made.noisy)
            for name, figures in (("noisy", result.noisy), ("restored", result.restored)):
                row = {"scan": clean.name, "sigma": sigma, "image": name} | (figures or {})
                rows.append(row)
                print(row)

    if not rows:
        raise SystemExit(f"no NIfTI scan in {given.clean}")
    with (given.out / "table.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
