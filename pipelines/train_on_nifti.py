"""Train the three stages on a folder of NIfTI scans, and restore a scan with the result.

Usage: train_on_nifti.py SCANS RUN [--config NAME|PATH] [--set A.B=C] [--try SCAN]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import medddpm
from medddpm.workflows import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, help="folder of NIfTI scans, searched through")
    parser.add_argument("run", type=Path, help="run folder; a second call goes on where it stopped")
    parser.add_argument("--config", default="default", help="a shipped name or a YAML file")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="A.B=C")
    parser.add_argument("--try", type=Path, dest="scan", help="a scan to restore afterwards")
    given = parser.parse_args()

    config = medddpm.load_config(given.config, given.overrides)
    weights = given.run
    for stage in ("autoencoder", "diffusion", "fidelity"):
        weights = train(
            stage, data=given.scans, out=given.run, config=config, resume=True, on_log=print
        )
        print(f"{stage}: {weights}")

    if given.scan is not None:
        [done] = medddpm.restore(given.scan, given.run / "restored", weights=weights)
        print(f"{done.image}: {done.summary}")


if __name__ == "__main__":
    main()
