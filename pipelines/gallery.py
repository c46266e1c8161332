"""Draw real scans with their own noise, enlarged: before, after, and what was removed.

Usage: gallery.py OUT.png [SCAN ...] [--box 96] [--seen 44] [--weights NAME|PATH]

Nothing is added to the scans, and nothing is known of their noise. Without a SCAN the shipped
example is drawn, as its scanner gave it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import medddpm
from medddpm.preprocess.intensity import foreground_mask
from medddpm.share import share_dir

EXAMPLE = share_dir() / "example" / "sub-example_T1w_clean.nii.gz"


@dataclass(frozen=True)
class Plane:
    """The middle plane of a restored box, the way a reader sees it."""

    label: str
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    sigma: float
    aspect: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="PNG file")
    parser.add_argument("scans", type=Path, nargs="*", help="noisy scans [the shipped example]")
    parser.add_argument("--box", type=int, default=96, help="voxels along each axis, restored")
    parser.add_argument("--seen", type=int, default=44, help="voxels across the enlarged part")
    parser.add_argument("--weights", default="default")
    given = parser.parse_args()
    restorer = medddpm.Restorer.from_pretrained(given.weights)
    planes = [middle(restorer, path, given.box) for path in given.scans or [EXAMPLE]]
    draw(planes, given.seen).savefig(given.out, dpi=90)
    print(given.out)


def middle(restorer: medddpm.Restorer, path: Path, box: int) -> Plane:
    """Restore a box in the middle of the body; its plane across the thickest slices."""
    scan = medddpm.read_volume(path).to_ras()
    body = np.argwhere(foreground_mask(scan.frame(0)))
    centre = ((body.min(0) + body.max(0)) / 2).astype(int)
    low = [int(max(min(c - box // 2, n - box), 0)) for c, n in zip(centre, scan.data.shape[:3])]
    part = scan.frame(0)[tuple(slice(a, a + box) for a in low)]
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    volume = medddpm.Volume(part, medddpm.Geometry(part.shape, affine), case_id=path.name)
    done = restorer.restore(volume)
    axis = int(np.argmax(np.add(scan.spacing, [0, 0, 1e-3])))  # axial, if all are alike
    across, up = [s for i, s in enumerate(scan.spacing) if i != axis]
    before, after = (
        np.rot90(image.take(image.shape[axis] // 2, axis)) for image in (part, done.volume.frame(0))
    )
    label = path.name.split(".")[0].replace("_", " ")
    return Plane(label, before, after, done.facts.frames[0].sigma.sigma, up / across)


def draw(planes: list[Plane], seen: int) -> Figure:
    """One row a scan: before and after as a whole, then a part of them, and what was removed."""
    figure = Figure(figsize=(12.5, 2.75 * len(planes) + 0.3), facecolor="#0b0d10")
    axes = figure.subplots(len(planes), 5, squeeze=False)
    for row, plane in zip(axes, planes, strict=True):
        height, width = plane.before.shape
        y, x = (height - seen) // 2, (width - seen) // 2
        part = slice(max(y, 0), y + seen), slice(max(x, 0), x + seen)
        top = float(np.percentile(plane.after, 99.8))
        removed = (plane.before - plane.after)[part]
        shown = [plane.before, plane.after, plane.before[part], plane.after[part]]
        for axis, image in zip(row, shown):
            axis.imshow(image, "gray", vmin=0, vmax=top, aspect=plane.aspect)
        limit = 3 * plane.sigma or 1.0
        row[4].imshow(removed, "gray", vmin=-limit, vmax=limit, aspect=plane.aspect)
        row[0].set_ylabel(plane.label, color="white", fontsize=8)
        row[4].set_xlabel(f"sigma {100 * plane.sigma / top:.1f} % of bright", color="white")
    titles = ("before", "after", "before, enlarged", "after, enlarged", "removed, to 3 sigma")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, color="white", fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout(pad=0.4)
    return figure


if __name__ == "__main__":
    main()
