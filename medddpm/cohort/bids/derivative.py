"""Side files of a BIDS derivative: sidecars, the description of the data set, its README."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from medddpm.io import atomic_path
from medddpm.io.outputs import file_stem, write_json
from medddpm.io.provenance import STATEMENT
from medddpm.io.sidecar import BidsFacts, write_sidecar
from medddpm.version import __version__
from medddpm.workflows.restored_scan import RestoredScan

BIDS_VERSION = "1.10.0"
_MAPS = {
    "std": "Voxelwise standard deviation over the samples, in the units of the scan.",
    "lower": "Lower end of the voxelwise nominal 90 % interval over the samples.",
    "upper": "Upper end of the voxelwise nominal 90 % interval over the samples.",
}
_README = f"""# Denoised scans

Each `desc-denoised` image is the raw scan of the same name with its noise removed, on the same
grid and in the same units. `desc-denoisedstd`, `desc-denoisedlower` and `desc-denoisedupper` are
its voxelwise uncertainty, where an ensemble was asked for. The sidecar of each image says how it
was made and what the checks found.

{STATEMENT}
"""


def complete_sidecars(scan: RestoredScan, source: str) -> None:
    """Add what BIDS asks for to the report of a scan, and write those of its maps.

    Args:
        scan: As it was just written.
        source: Path of the raw scan, relative to its data set.
    """
    common = BidsFacts(
        Description=f"Denoised. {STATEMENT}",
        Sources=[f"bids:raw:{source}"],
        SkullStripped=False,  # a raw scan is not, and restoration strips nothing
        GeneratedBy=[_generated_by()],
    )
    write_sidecar(scan.sidecar, scan.facts.model_copy(update=dict(common)))
    for name, path in scan.maps.items():
        facts = common.model_copy(update={"description": f"{_MAPS[name]} {STATEMENT}"})
        write_sidecar(path.parent / f"{file_stem(path)}.json", facts)


def write_description(out: Path, raw: Path) -> None:
    """Write what says that a folder is a BIDS derivative; what is there is kept.

    Several processes may do so at once.

    Args:
        out: Root of the derivative.
        raw: Root of the raw data set; named by a relative path.
    """
    out.mkdir(parents=True, exist_ok=True)
    link = os.path.relpath(raw.resolve(), out.resolve())
    description: dict[str, Any] = {
        "Name": "medddpm: denoised scans",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": _licence(raw),
        "GeneratedBy": [_generated_by()],
        "SourceDatasets": [{"URL": link}],
        "DatasetLinks": {"raw": link},
    }
    path = out / "dataset_description.json"
    if not path.exists():
        with atomic_path(path) as partial:
            write_json(partial, {k: v for k, v in description.items() if v})
    if not (out / "README.md").exists():
        with atomic_path(out / "README.md") as partial:
            partial.write_text(_README, encoding="utf-8")
    if not (out / ".bidsignore").exists():
        with atomic_path(out / ".bidsignore") as partial:
            partial.write_text("*.html\n.medddpm\ncohort.csv\ncohort.json\n", encoding="utf-8")


def _generated_by() -> dict[str, str]:
    return {"Name": "medddpm", "Version": __version__}


def _licence(raw: Path) -> str:
    """The licence of the raw data, which is also that of what derives from them."""
    try:
        text = (raw / "dataset_description.json").read_text(encoding="utf-8")
        licence = json.loads(text).get("License", "")
    except (OSError, ValueError, AttributeError):
        return ""
    return licence if isinstance(licence, str) else ""
