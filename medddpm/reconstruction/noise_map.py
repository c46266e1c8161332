"""How much noise a reconstruction has at each voxel, over that of a fully measured one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from medddpm.operators.gfactor import replica_g_factor
from medddpm.reconstruction.classical import cg_sense
from medddpm.reconstruction.problem import Problem

_WEIGHT = 1e-3
"""Of Tikhonov's term: little, as g is that of SENSE without regularisation."""


def g_factor_map(
    problem: Problem, *, replicas: int = 20, iterations: int = 30, seed: int = 0
) -> Tensor:
    """(B, X, Y, Z) g of CG-SENSE for any mask, by pseudo-replicas (Robson et al. 2008).

    Its relative error is about 1 / sqrt(2 `replicas`): 16 % for 20.

    Args:
        problem: What was measured.
        replicas: Reconstructions of noise alone.
        iterations: Of conjugate gradients.
        seed: Of the noise.
    """
    mask = problem.sense.mask[:, None]

    def fast(noise: Tensor) -> Tensor:
        return cg_sense(replace(problem, data=noise * mask), _WEIGHT, iterations)

    def full(noise: Tensor) -> Tensor:
        whole = replace(problem.sense, mask=torch.ones_like(problem.sense.mask))
        return whole.adjoint(noise)

    blank = torch.zeros_like(problem.data)
    return replica_g_factor(fast, full, blank, problem.acceleration, replicas=replicas, seed=seed)
