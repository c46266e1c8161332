"""Restore the shipped example and say how much closer to the truth it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from medddpm.errors import VolumeReadError
from medddpm.evaluation.picture import comparison_picture
from medddpm.io import read_volume
from medddpm.restoration.restorer import RestoreOptions
from medddpm.share import share_dir
from medddpm.workflows.measure import evaluate
from medddpm.workflows.outputs import check_targets, staged
from medddpm.workflows.restoring import OnProgress, RestoredScan, restore
from medddpm.workflows.tables import quickstart_table

NOISY, CLEAN = "sub-example_T1w_noisy.nii.gz", "sub-example_T1w_clean.nii.gz"


@dataclass(frozen=True)
class Quickstart:
    """The table to show, and what was written: the scan, its report and a picture."""

    table: Table
    scan: RestoredScan
    paths: list[Path]


def quickstart(
    out: Path,
    *,
    device: str = "auto",
    weights: str | Path = "default",
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> Quickstart:
    """Restore the example scan into a folder, with a picture; returns a table of the numbers."""
    example = share_dir() / "example"
    noisy, clean = example / NOISY, example / CLEAN
    for path in (noisy, clean):
        if not path.is_file():
            raise VolumeReadError(f"the example scan {path.name} is missing: install medddpm again")
    picture = out / f"{noisy.name.removesuffix('.nii.gz')}_desc-denoised.png"
    check_targets([picture], overwrite=overwrite)
    scan = restore(
        noisy,
        out,
        options=RestoreOptions(),
        weights=weights,
        device=device,
        overwrite=overwrite,
        on_progress=on_progress,
    )[0]
    with staged(out) as folder:
        comparison_picture(
            read_volume(noisy), read_volume(scan.image), read_volume(clean), folder / picture.name
        )
    evaluation = evaluate(clean, scan.image, noisy=noisy)
    return Quickstart(
        quickstart_table(evaluation, scan.facts), scan, [scan.image, scan.sidecar, picture]
    )
