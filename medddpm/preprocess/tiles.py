"""Tiles of one size over a padded volume, their blending, and one noise field for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import ConfigError

Triple = tuple[int, int, int]
Bounds = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
_BLOCK = 4
"""Edge of a block of the noise field, in latent voxels."""


@dataclass(frozen=True)
class TilePlan:
    """Where the tiles lie.

    Attributes:
        shape: The volume itself.
        padded: The volume mirrored up to a multiple at the far ends.
        tile: Shape of every tile.
        overlap: Voxels that neighbours share at least, where an axis has more than one tile.
        starts: Lower corner of each tile in the padded volume.
    """

    shape: Triple
    padded: Triple
    tile: Triple
    overlap: int
    starts: tuple[Triple, ...]

    def window(self) -> NDArray[np.float32]:
        """Blending weights of one tile (tile shape): ramps over the overlap, never 0."""
        ramps = []
        for length in self.tile:
            rise = (np.arange(length) + 0.5) / max(self.overlap, 1)
            ramps.append(np.minimum(np.minimum(rise, rise[::-1]), 1.0))
        x, y, z = ramps
        window: NDArray[np.float32] = (x[:, None, None] * y[:, None] * z).astype(np.float32)
        return window

    def slices(self, start: Triple) -> tuple[slice, slice, slice]:
        """The tile's place in the padded volume."""
        x, y, z = (slice(s, s + t) for s, t in zip(start, self.tile, strict=True))
        return x, y, z


def plan_tiles(
    shape: Triple, tile: int, overlap: int, multiple: int, inside: Bounds | None = None
) -> TilePlan:
    """Tiles of at most `tile` voxels an axis that cover a volume of any size, or a box in it.

    Every tile starts at a multiple of `multiple` voxels and measures one, so that voxels fall
    into the same latent voxel whichever tile they are seen in.

    Args:
        shape: Of the volume.
        tile: Largest edge.
        overlap: Voxels that neighbours share at least.
        multiple: Of what they measure.
        inside: First voxel of the box along each axis, and the one behind its last; None is all.

    Raises:
        ConfigError: The tile or the overlap does not fit `multiple`.
    """
    if tile < multiple or tile % multiple:
        raise ConfigError(f"restore.tile is {tile}; it must be a multiple of {multiple}")
    if not 0 <= overlap <= tile // 2:
        raise ConfigError(f"restore.overlap is {overlap}; it must lie between 0 and {tile // 2}")
    padded = tuple(-(-n // multiple) * multiple for n in shape)
    bounds = inside or tuple((0, n) for n in padded)
    lows = [low // multiple * multiple for low, _ in bounds]
    lengths = [-(-h // multiple) * multiple - a for a, (_, h) in zip(lows, bounds, strict=True)]
    sizes = tuple(_even_size(n, tile, overlap, multiple) for n in lengths)
    axes = [
        [low + start for start in _starts(n, size, overlap, multiple)]
        for low, n, size in zip(lows, lengths, sizes, strict=True)
    ]
    return TilePlan(shape, padded, sizes, overlap, tuple(product(*axes)))  # type: ignore[arg-type]


def filled(image: NDArray[Any], margin: int) -> Bounds:
    """The box of all that is not 0, and so many voxels more; the whole image if all is."""
    there = image != 0
    box = []
    for axis, length in enumerate(image.shape):
        others = tuple(a for a in range(3) if a != axis)
        places = np.flatnonzero(there.any(axis=others))
        low, high = (places[0], places[-1] + 1) if len(places) else (0, length)
        box.append((max(int(low) - margin, 0), min(int(high) + margin, length)))
    return box[0], box[1], box[2]


def pad_mirrored(image: NDArray[Any], padded: Triple) -> NDArray[np.float32]:
    """The image mirrored at its far ends up to the padded shape, however thin it is."""
    for axis, (length, wanted) in enumerate(zip(image.shape, padded, strict=True)):
        index = np.arange(wanted) % (2 * length)
        image = image.take(np.where(index < length, index, 2 * length - 1 - index), axis=axis)
    return np.ascontiguousarray(image, dtype=np.float32)


def noise_tile(
    channels: int, start: Triple, size: Triple, *, seed: int, stream: tuple[int, int]
) -> NDArray[np.float32]:
    """A window of one endless field of unit Gaussian noise.

    The field is made of blocks, each from a counter-based generator (Philox, Salmon et al.
    2011) keyed by the seed and counted by the block's place, so that tiles agree where they
    overlap and nothing has to be stored.

    Args:
        channels: C of the result.
        start: Lower corner on the latent grid.
        size: Shape on the latent grid.
        seed: Names the field.
        stream: Two numbers that name independent fields of one seed, such as (sample, step).

    Returns:
        (C, *size) float32.
    """
    first = [s // _BLOCK for s in start]
    counts = [-(-(s + n) // _BLOCK) - f for s, n, f in zip(start, size, first, strict=True)]
    out = np.empty((channels, *(_BLOCK * n for n in counts)), np.float32)
    for block in product(*(range(n) for n in counts)):
        place = [f + b for f, b in zip(first, block, strict=True)]
        index = (place[0] << 40) + (place[1] << 20) + place[2]
        bits = np.random.Philox(key=seed, counter=[0, index, *stream])
        drawn = np.random.Generator(bits).standard_normal((channels, _BLOCK, _BLOCK, _BLOCK))
        x, y, z = (slice(_BLOCK * b, _BLOCK * (b + 1)) for b in block)
        out[:, x, y, z] = drawn
    x, y, z = (slice(s % _BLOCK, s % _BLOCK + n) for s, n in zip(start, size, strict=True))
    return out[:, x, y, z]


def batches(plan: TilePlan, size: int, skip: NDArray[np.bool_]) -> Iterator[list[Triple]]:
    """Tile corners in batches, leaving out tiles where the padded map `skip` is all True."""
    kept = [s for s in plan.starts if not skip[plan.slices(s)].all()]
    for i in range(0, len(kept), size):
        yield kept[i : i + size]


def blended(
    plan: TilePlan,
    padded: NDArray[np.float32],
    groups: Iterable[list[Triple]],
    change: Callable[[NDArray[np.float32], list[Triple]], Iterable[NDArray[np.float32]]],
) -> NDArray[np.float32]:
    """The volume with its tiles changed, blended where they overlap: (X, Y, Z) of `plan.shape`.

    Args:
        plan: Where the tiles lie.
        padded: (X, Y, Z) of `plan.padded`; what no tile covers stays as it is here.
        groups: Corners of the tiles that are changed together, as from `batches`.
        change: From (B, *tile) and its corners to B changed tiles.
    """
    window = plan.window()
    total, weight = np.zeros((2, *plan.padded), np.float32)
    for group in groups:
        stack = np.stack([padded[plan.slices(start)] for start in group])
        for start, tile in zip(group, change(stack, group), strict=True):
            total[plan.slices(start)] += window * tile
            weight[plan.slices(start)] += window
    nothing = weight == 0
    np.divide(total, weight, out=total, where=~nothing)
    np.copyto(total, padded, where=nothing)
    x, y, z = plan.shape
    out: NDArray[np.float32] = total[:x, :y, :z]
    return out


def _even_size(length: int, tile: int, overlap: int, multiple: int) -> int:
    """The smallest edge that covers an axis with no more tiles than the largest one does."""
    largest = min(tile, length)
    count = len(_starts(length, largest, overlap, multiple))
    least = -(-max(2 * overlap, 1) // multiple) * multiple
    sizes = range(least, largest, multiple)
    fitting = (s for s in sizes if len(_starts(length, s, overlap, multiple)) <= count)
    return next(fitting, largest)


def _starts(length: int, size: int, overlap: int, multiple: int) -> list[int]:
    step = max((size - overlap) // multiple, 1) * multiple
    return [*range(0, length - size, step), length - size]
