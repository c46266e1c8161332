"""Heads brought to the pose of another one: moved, turned, stretched and sheared until they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medddpm.generation.heads import Head, placed
from medddpm.generation.options import PriorSpec

_COARSE = 2
"""Voxels along an edge that are averaged for the search: whole sulci would lead it astray."""
_STEPS, _SIZE = 60, 0.02
"""Of the search: a step moves the edge of the field of view by 2 % of its half at first."""


def aligned(images: Tensor, target: Tensor) -> Tensor:
    """Images in the pose of a target, each by itself: turned, moved, stretched and sheared.

    Args:
        images: (B, 1, X, Y, Z).
        target: (1, 1, X, Y, Z).

    Returns:
        (B, 1, X, Y, Z) on the CPU.
    """
    found = _fitted(images, target)
    with torch.no_grad():
        return _moved(images.detach().cpu().float(), found)


def straightened(heads: Sequence[Head], spec: PriorSpec, target: Tensor) -> list[Head]:
    """Heads turned and moved to the pose of a target (1, 1, *shape), and not stretched.

    How a head lay in the scanner is no anatomy: a prior need not learn it.
    """
    images = torch.cat([placed(head, spec) for head in heads])
    half = np.array(spec.shape) * spec.spacing / 2
    straight = []
    for head, fit in zip(heads, _fitted(images, target).double().numpy(), strict=True):
        affine, shift = fit[::-1, 2::-1], fit[::-1, 3]  # a grid of torch counts axes from the last
        left, _, right = np.linalg.svd(half[:, None] * affine / half)
        turn = left @ right  # the nearest rotation
        straight.append(
            replace(head, turn=head.turn @ turn, shift=head.turn @ (half * shift) + head.shift)
        )
    return straight


def _fitted(images: Tensor, target: Tensor) -> Tensor:
    """(B, 3, 4): where a place of the target lies in each image, in half fields of view.

    Affine registration: the correlation with the target is climbed by Adam (Kingma and Ba 2015).
    It does not see gain and offset.
    """
    with torch.inference_mode(False), torch.enable_grad():
        images, target = (x.detach().cpu().float().clone() for x in (images, target))
        coarse, goal = F.avg_pool3d(images, _COARSE), _unit(F.avg_pool3d(target, _COARSE))
        still = torch.eye(3, 4).expand(len(images), 3, 4)
        moves = torch.zeros(len(images), 3, 4, requires_grad=True)
        search = torch.optim.Adam([moves], _SIZE)
        slower = torch.optim.lr_scheduler.LinearLR(search, 1.0, 0.1, _STEPS)
        for _ in range(_STEPS):
            search.zero_grad()
            misfit = -(_unit(_moved(coarse, still + moves)) @ goal.T).sum()
            misfit.backward()  # type: ignore[no-untyped-call]
            search.step()
            slower.step()
    return (still + moves).detach()


def _moved(images: Tensor, affine: Tensor) -> Tensor:
    """Sampled where (B, 3, 4) matrices point, in half fields of view about the middle."""
    places = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, places, align_corners=False)


def _unit(images: Tensor) -> Tensor:
    """(B, N) of mean 0 and length 1."""
    flat = images.flatten(1)
    return F.normalize(flat - flat.mean(1, keepdim=True), dim=1)
