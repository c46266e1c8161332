"""Draw synthetic and real heads in random order, three planes each: can you tell them apart?

Usage: tell_apart.py OUT.png --drawn DRAWN [DRAWN ...] --real SCAN [SCAN ...] [--seed 0]
The real scans are put on the grid of the drawn heads, in their pose. The answer is printed.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

import medddpm
from medddpm.generation.align import straightened
from medddpm.generation.heads import head_of, placed
from medddpm.generation.options import PriorSpec

Image = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="PNG file")
    parser.add_argument("--drawn", type=Path, nargs="+", required=True, help="of medddpm generate")
    parser.add_argument("--real", type=Path, nargs="+", required=True, help="scans")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    given = parser.parse_args()
    drawn = [medddpm.read_volume(path).to_ras() for path in given.drawn]
    if len({(v.geometry.shape, v.spacing) for v in drawn}) > 1:
        parser.error("the drawn heads lie on several grids; draw them with one --spacing")
    images = [volume.frame(0) / 1000 for volume in drawn]
    spec = PriorSpec(shape=drawn[0].geometry.shape, spacing=round(drawn[0].spacing[0], 3))
    mean = torch.from_numpy(np.mean(images, axis=0))[None, None]
    reals = [real(path, spec, mean) for path in given.real]
    heads = [(i, "drawn") for i in images] + [(i, "real") for i in reals]
    random.Random(given.seed).shuffle(heads)
    show([image for image, _ in heads], given.out)
    for number, (_, kind) in enumerate(heads, 1):
        print(f"{number}: {kind}")


def real(path: Path, spec: PriorSpec, mean: torch.Tensor) -> Image:
    """A scan as the prior learns it, in the pose of a mean head."""
    head = head_of(medddpm.read_volume(path), spec.spacing)
    found: Image = placed(straightened([head], spec, mean)[0], spec)[0, 0].numpy()
    return found


def show(heads: list[Image], out: Path) -> None:
    """One column a head: from above, from the front, from the side."""
    x, y, z = heads[0].shape
    tall = np.array([y, z, z]) / z
    figure = Figure(figsize=(1.9 * len(heads), 1.9 * tall.sum() * z / x), facecolor="black")
    rows = figure.subplots(3, len(heads), squeeze=False, height_ratios=tall)
    for number, (column, image) in enumerate(zip(rows.T, heads, strict=True), 1):
        planes = image[:, :, z // 2 + z // 20], image[:, y // 2], image[x // 2 - x // 10]
        for axis, plane in zip(column, planes, strict=True):
            axis.imshow(plane.T, "gray", origin="lower", vmin=0, vmax=1.1)
            axis.set(xticks=[], yticks=[])
        column[0].set_title(str(number), color="white")
    figure.tight_layout(pad=0.3)
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    main()
