"""Draw real scans with their own noise, enlarged: before, after, and what was removed.

Usage: gallery.py OUT.png [SCAN ...] [--box 96] [--seen 44] [--weights NAME|PATH]
Nothing is added, and nothing is known of the noise. Without a SCAN the shipped example is drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import medddpm
from medddpm.preprocess.intensity import foreground_mask
from medddpm.share import share_dir

EXAMPLE = share_dir() / "example" / "sub-example_T1w_clean.nii.gz"
TITLES = ("before", "after", "before, enlarged", "after, enlarged", "removed, to 3 sigma")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="PNG file")
    parser.add_argument("scans", type=Path, nargs="*", help="noisy scans [the shipped example]")
    parser.add_argument("--box", type=int, default=96, help="voxels along each axis, restored")
    parser.add_argument("--seen", type=int, default=44, help="voxels across the enlarged part")
    parser.add_argument("--weights", default="default")
    given = parser.parse_args()
    restorer = medddpm.Restorer.from_pretrained(given.weights)
    scans = given.scans or [EXAMPLE]
    figure = Figure(figsize=(12.5, 2.75 * len(scans) + 0.3), facecolor="#0b0d10")
    axes = figure.subplots(len(scans), 5, squeeze=False)
    for row, path in zip(axes, scans, strict=True):
        draw(
            row, path, *middle(restorer, medddpm.read_volume(path).to_ras(), given.box), given.seen
        )
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title, color="white", fontsize=10)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.tight_layout(pad=0.4)
    figure.savefig(given.out, dpi=90)
    print(given.out)


def middle(restorer: medddpm.Restorer, scan: medddpm.Volume, box: int) -> tuple[Any, ...]:
    """Before, after, sigma and aspect of the middle plane of a box, across the thickest slices."""
    image = scan.frame(0)
    body = np.argwhere(foreground_mask(image))
    centre = (body.min(0) + body.max(0)) // 2
    low = [max(min(c - box // 2, n - box), 0) for c, n in zip(centre, image.shape, strict=True)]
    part = image[tuple(slice(a, a + box) for a in low)]
    grid = medddpm.Geometry(part.shape, scan.affine)
    done = restorer.restore(medddpm.Volume(part, grid, case_id=scan.case_id))
    axis = int(np.argmax(np.add(scan.spacing, [0, 0, 1e-3])))  # axial, if all are alike
    across, up = (s for i, s in enumerate(scan.spacing) if i != axis)
    planes = [np.rot90(i.take(i.shape[axis] // 2, axis)) for i in (part, done.volume.frame(0))]
    return *planes, done.facts.frames[0].sigma.sigma, up / across


def draw(
    row: Any, path: Path, before: Any, after: Any, sigma: float, aspect: float, n: int
) -> None:
    """Fill one row: the plane before and after, its middle, and what was removed there."""
    part = tuple(slice(max((m - n) // 2, 0), (m + n) // 2) for m in before.shape)
    top = float(np.percentile(after, 99.8)) or 1.0
    for axis, image in zip(row[:4], (before, after, before[part], after[part]), strict=True):
        axis.imshow(image, "gray", vmin=0, vmax=top, aspect=aspect)
    limit = 3 * sigma or 1.0
    row[4].imshow((before - after)[part], "gray", vmin=-limit, vmax=limit, aspect=aspect)
    row[0].set_ylabel(path.name.split(".")[0].replace("_", " "), color="white", fontsize=8)
    row[4].set_xlabel(f"sigma {100 * sigma / top:.1f} % of bright", color="white")


if __name__ == "__main__":
    main()
