"""Restore every NIfTI scan of a folder and collect what was found in one table.

Usage: restore_nifti.py SCANS OUT [--mode mean|sample|ensemble] [--weights NAME|PATH]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import medddpm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, help="folder of .nii or .nii.gz files")
    parser.add_argument("out", type=Path, help="folder for the restored scans and table.csv")
    parser.add_argument("--mode", default="mean", choices=["mean", "sample", "ensemble"])
    parser.add_argument("--weights", default="default")
    given = parser.parse_args()

    scans = sorted(p for p in given.scans.iterdir() if p.name.endswith((".nii", ".nii.gz")))
    options = medddpm.RestoreOptions(mode=given.mode)
    rows = []
    for scan in scans:
        try:
            [done] = medddpm.restore(scan, given.out, options=options, weights=given.weights)
        except medddpm.MedddpmError as error:  # one bad file does not stop the others
            rows.append({"scan": scan.name, "result": "failed", "note": str(error)})
            continue
        note = "; ".join(done.flags)
        rows.append({"scan": scan.name, "result": done.image.name, "note": note})
        print(f"{scan.name}: {done.summary}")

    if rows:
        given.out.mkdir(exist_ok=True)
        with (given.out / "table.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, ["scan", "result", "note"])
            table.writeheader()
            table.writerows(rows)
    print(f"{len(rows)} scans, {sum(r['result'] == 'failed' for r in rows)} failed: {given.out}")


if __name__ == "__main__":
    main()
