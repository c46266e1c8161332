"""The nearest training patch of an image patch, at any place and in any orientation.

Training moves, turns and mirrors its patches, so a copy may lie anywhere and any way round. A
coarse search by normalised cross-correlation (Lewis 1995) of means over small blocks tries every
place of every scan in all 48 orientations; its best scans are then searched at full resolution
around that place. Correlation does not see gain and offset, and hardly an intensity curve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medddpm.data.cache import PackedImage
from medddpm.preprocess.tiles import Triple

Embed = Callable[[Tensor], Tensor]
"""(B, 1, P, P, P) images -> (B, D) embeddings."""
OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and of how much."""

Orientation = tuple[Triple, tuple[bool, bool, bool]]
ORIENTATIONS: tuple[Orientation, ...] = tuple(
    ((x, y, z), (a, b, c))
    for x, y, z in permutations((0, 1, 2))
    for a, b, c in product((False, True), repeat=3)
)
"""Axis order and mirrored axes, as the augmentation draws them."""

_CANDIDATES = 4
"""Scans that are searched at full resolution for each query."""
_COARSE = 8
"""Blocks along an edge of a patch in the coarse search."""
_FLAT = 1e-6


@dataclass(frozen=True)
class Nearest:
    """What training holds that is nearest to one patch.

    Attributes:
        scan: Number of the training scan.
        start: Corner of the patch there, voxels; below 0 where the scan is mirrored.
        correlation: Normalised cross-correlation of the two patches, -1 to 1.
        embedding: Correlation of their embeddings.
        patch: (P, P, P), the training patch, turned like the query.
    """

    scan: int
    start: Triple
    correlation: float
    embedding: float
    patch: NDArray[np.float32]


def turn(patch: Tensor, orientation: Orientation) -> Tensor:
    """The last three axes in another order, some of them mirrored."""
    axes, flips = orientation
    lead = list(range(patch.ndim - 3))
    turned = patch.permute(*lead, *(len(lead) + a for a in axes))
    return turned.flip([len(lead) + i for i, flip in enumerate(flips) if flip])


def turn_back(patch: Tensor, orientation: Orientation) -> Tensor:
    """Undoes `turn`."""
    axes, flips = orientation
    lead = list(range(patch.ndim - 3))
    flipped = patch.flip([len(lead) + i for i, flip in enumerate(flips) if flip])
    return flipped.permute(*lead, *(len(lead) + axes.index(i) for i in range(3)))


def find_nearest(
    queries: Tensor,
    scans: Sequence[NDArray[Any] | PackedImage],
    embed: Embed,
    *,
    on_progress: OnProgress | None = None,
) -> list[Nearest]:
    """The nearest training patch of each query.

    Args:
        queries: (N, P, P, P), P at least 16, on the device that is to search.
        scans: (X, Y, Z) training images; read one at a time.
        embed: Makes the embeddings.
        on_progress: Called after each scan of the coarse search and each query of the fine one.
    """
    report = on_progress or (lambda task, done, total: None)
    size = queries.shape[-1]
    pool = size // _COARSE
    templates = _templates(queries, pool)
    scores, places = [], []
    for number, scan in enumerate(scans):
        blocks = _pooled(_tensor(_image(scan, size), queries), pool)
        score, place = _coarse(blocks, templates, len(queries))
        scores.append(score)
        places.append(place)
        report("training scans", number + 1, len(scans))
    best = torch.stack(scores).topk(min(_CANDIDATES, len(scans)), dim=0).indices
    found = []
    for i, query in enumerate(queries):
        matches = [
            _refine(query, scans[int(s)], int(s), places[int(s)][i].tolist(), pool)
            for s in best[:, i]
        ]
        found.append(_with_embedding(query, max(matches, key=lambda m: m.correlation), embed))
        report("nearest patches", i + 1, len(queries))
    return found


def correlate(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of the rows of two (N, D) tensors, (N,)."""
    return (_unit(a) * _unit(b)).sum(dim=1)


def _image(scan: NDArray[Any] | PackedImage, size: int) -> NDArray[Any]:
    """The scan, mirrored at both ends of an axis that is shorter than a patch.

    Patches are mirrored at the far end; turned ones are then mirrored at the near one.
    """
    pads = [(max(size - n, 0),) * 2 for n in scan.shape]
    return np.pad(np.asarray(scan), pads, mode="symmetric") if np.any(pads) else np.asarray(scan)


def _tensor(image: NDArray[Any], like: Tensor) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.float32)).to(like)


def _pooled(images: Tensor, pool: int) -> Tensor:
    return F.avg_pool3d(images[None], pool)[0]


def _templates(queries: Tensor, pool: int) -> Tensor:
    """(48 N, e^3) of norm 1: each query in all orientations."""
    coarse = _pooled(queries, pool)
    turned = torch.stack([turn(coarse, orientation) for orientation in ORIENTATIONS])
    return _unit(turned.flatten(0, 1).flatten(1))


def _coarse(blocks: Tensor, templates: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The best correlation of each query (N,), and its orientation and place (N, 4)."""
    edge = round(templates.shape[1] ** (1 / 3))
    windows = blocks.unfold(0, edge, 1).unfold(1, edge, 1).unfold(2, edge, 1)
    _, ny, nz = windows.shape[:3]
    best = templates.new_full((len(templates),), -2.0)
    where = torch.zeros_like(best, dtype=torch.long)
    for x, slab in enumerate(windows):
        score, index = (templates @ _unit(slab.reshape(ny * nz, -1)).T).max(dim=1)
        where = torch.where(score > best, x * ny * nz + index, where)
        best = torch.maximum(best, score)
    score, orientation = best.reshape(len(ORIENTATIONS), num).max(dim=0)
    flat = where.reshape(len(ORIENTATIONS), num).gather(0, orientation[None])[0]
    place = [orientation, flat // (ny * nz), flat // nz % ny, flat % nz]
    return score, torch.stack(place, dim=1)


def _refine(
    query: Tensor, scan: NDArray[Any] | PackedImage, number: int, place: list[int], pool: int
) -> Nearest:
    """The best place at full resolution within a block of the coarse one."""
    orientation = ORIENTATIONS[place[0]]
    size = query.shape[-1]
    low = [max(p * pool - pool, 0) for p in place[1:]]
    box = tuple(slice(a, a + size + 2 * pool) for a in low)
    region = _tensor(_image(scan, size)[box], query)
    scores = _correlation_map(region, turn(query, orientation))
    flat = int(scores.argmax())
    offset = [int(i) for i in np.unravel_index(flat, tuple(scores.shape))]
    patch = region[tuple(slice(o, o + size) for o in offset)]
    before = (max(size - n, 0) for n in scan.shape)
    x, y, z = (a + o - b for a, o, b in zip(low, offset, before, strict=True))
    same_way = turn_back(patch, orientation).contiguous().cpu().numpy()
    return Nearest(number, (x, y, z), float(scores.flatten()[flat]), -1.0, same_way)


def _correlation_map(region: Tensor, template: Tensor) -> Tensor:
    """Normalised cross-correlation wherever the template fits into the region (Lewis 1995)."""
    size = template.shape[-1]
    unit = _unit(template.reshape(1, -1)).reshape(template.shape)
    shape = tuple(region.shape)
    wide = region.double()  # sums of squares cancel
    spectrum = torch.fft.rfftn(region) * torch.fft.rfftn(unit, s=shape).conj()
    fits = tuple(slice(0, n - size + 1) for n in shape)
    product_ = torch.fft.irfftn(spectrum, s=shape)[fits]
    variance = _box_sums(wide.square(), size) - _box_sums(wide, size).square() / size**3
    flat = variance < _FLAT * size**3
    return torch.where(flat, 0.0, product_ / variance.clamp_min(_FLAT).sqrt())


def _box_sums(image: Tensor, size: int) -> Tensor:
    """Sums over all boxes of one size, from cumulative sums."""
    for axis in range(3):
        total = F.pad(image.movedim(axis, -1).cumsum(dim=-1), (1, 0))
        image = (total[..., size:] - total[..., :-size]).movedim(-1, axis)
    return image


def _with_embedding(query: Tensor, match: Nearest, embed: Embed) -> Nearest:
    pair = torch.stack([query, torch.from_numpy(match.patch).to(query)])
    embedded = embed(pair[:, None])
    return replace(match, embedding=float(correlate(embedded[:1], embedded[1:])))


def _unit(rows: Tensor) -> Tensor:
    """Rows of mean 0 and norm 1; a flat row is all zeros."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    return torch.where(norm > _FLAT, centred / norm.clamp_min(_FLAT), 0.0)
