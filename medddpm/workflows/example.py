"""Restore the shipped example and say how much closer to the truth it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from medddpm.errors import VolumeReadError
from medddpm.io import read_volume
from medddpm.io.outputs import check_targets, staged
from medddpm.report.picture import comparison_picture
from medddpm.restoration.restorer import RestoreOptions
from medddpm.share import share_dir
from medddpm.workflows.measure import Evaluation, evaluate
from medddpm.workflows.reporting import report
from medddpm.workflows.restored_scan import RestoredScan
from medddpm.workflows.restoring import OnProgress, restore
from medddpm.workflows.tables import quickstart_table

NOISY, CLEAN = "sub-example_T1w_noisy.nii.gz", "sub-example_T1w_clean.nii.gz"


@dataclass(frozen=True)
class Quickstart:
    """The table to show, and what was written: the scan, its sidecar, a picture and a page."""

    table: Table
    scan: RestoredScan
    paths: list[Path]


def quickstart(
    out: str | Path,
    *,
    device: str = "auto",
    weights: str | Path = "default",
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> Quickstart:
    """Restore the example scan into a folder, with a picture and a report; returns the numbers."""
    out = Path(out)
    example = share_dir() / "example"
    noisy, clean = example / NOISY, example / CLEAN
    for path in (noisy, clean):
        if not path.is_file():
            raise VolumeReadError(f"the example scan {path.name} is missing: install medddpm again")
    stem = f"{noisy.name.removesuffix('.nii.gz')}_desc-denoised"
    picture, page = out / f"{stem}.png", out / f"{stem}.html"
    check_targets([picture, page], overwrite=overwrite)
    scan = restore(
        noisy,
        out,
        options=RestoreOptions(),
        weights=weights,
        device=device,
        overwrite=overwrite,
        on_progress=on_progress,
    )[0]
    evaluation = evaluate(clean, scan.image, noisy=noisy)
    with staged(out) as folder:
        _draw(folder / picture.name, noisy, clean, scan, evaluation)
    report([scan.image], out=page, reference=clean, overwrite=overwrite)
    return Quickstart(
        quickstart_table(evaluation, scan.facts), scan, [scan.image, scan.sidecar, picture, page]
    )


def _draw(path: Path, noisy: Path, clean: Path, scan: RestoredScan, scores: Evaluation) -> None:
    before, after, truth = (read_volume(p) for p in (noisy, scan.image, clean))
    psnr = (scores.noisy or {})["psnr"], scores.restored["psnr"]
    comparison_picture(
        path,
        [volume.frame(0) for volume in (before, after, truth)],
        spacing=before.spacing,
        orientation=before.geometry.orientation,
        title="A real T1w scan with added Rician noise, restored",
        caption=f"PSNR in the foreground: {psnr[0]:.1f} dB noisy, {psnr[1]:.1f} dB restored",
        sigma=scan.facts.frames[0].sigma.sigma,
    )
