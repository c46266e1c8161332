"""Restore every MR series of a DICOM folder into derived series, ready to send back.

Usage: restore_dicom.py STUDY OUT [--sigma S] [--weights NAME|PATH]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import medddpm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="folder with one or more DICOM series")
    parser.add_argument("out", type=Path, help="folder; each series gets a folder of its own")
    parser.add_argument("--sigma", type=float, help="noise in scan units; estimated if not given")
    parser.add_argument("--weights", default="default")
    given = parser.parse_args()

    done = medddpm.restore(
        given.study,
        given.out,
        options=medddpm.RestoreOptions(sigma=given.sigma),
        weights=given.weights,
        format="dicom",
    )
    for series in done:
        print(f"{series.image}: {series.summary}")
        for flag in series.flags:
            print(f"  look at this one: {flag}")
    print(f"{len(done)} series restored; for research, not for diagnosis")


if __name__ == "__main__":
    main()
