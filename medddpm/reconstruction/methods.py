"""The reconstructions by name."""

from __future__ import annotations

from torch import Tensor

from medddpm.errors import ConfigError
from medddpm.reconstruction.classical import (
    OnStep,
    cg_sense,
    l1_wavelet,
    total_variation,
    zero_filled,
)
from medddpm.reconstruction.options import ReconstructOptions
from medddpm.reconstruction.plug_and_play import Denoise, plug_and_play
from medddpm.reconstruction.problem import Problem

TIKHONOV = 0.02
SPARSE = {"tv": 0.5, "l1-wavelet": 0.5}
"""Weights that are good in the middle of the range of R and noise; in units of the noise."""
_WARM = 12


def solve(
    problem: Problem,
    options: ReconstructOptions,
    denoise: Denoise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """The complex image (B, X, Y, Z) of a problem.

    Args:
        problem: What was measured, at intensity scale 1.
        options: Method and settings.
        denoise: The prior of "ours".
        on_step: Called as (steps done, steps in all).

    Raises:
        ConfigError: "ours" without a prior.
    """
    method = options.method
    if method == "zero-filled":
        return zero_filled(problem)
    if method == "cg-sense":
        return cg_sense(problem, options.weight or TIKHONOV, options.iterations or 30)
    if method == "ours":
        if denoise is None:
            raise ConfigError("method ours needs the networks: give weights")
        return plug_and_play(problem, denoise, options.plug, on_step)
    start = cg_sense(problem, TIKHONOV, _WARM)
    run = total_variation if method == "tv" else l1_wavelet
    weight = (options.weight or SPARSE[method]) * problem.sigma
    return run(problem, weight, options.iterations or 40, start, on_step)
