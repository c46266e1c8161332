"""The guard: does a restoration look as good restorations do, and if not, why and where?"""

from medddpm.guard.checks import CHECKS, Check, GuardReport, judge
from medddpm.guard.inspect import Guard, find_all, guard_of, inspect
from medddpm.guard.latents import Familiar, familiar, latent_features, latent_mask
from medddpm.guard.limits import UNCALIBRATED, GuardLimits
from medddpm.guard.residual import Finding

__all__ = [
    "CHECKS",
    "UNCALIBRATED",
    "Check",
    "Familiar",
    "Finding",
    "Guard",
    "GuardLimits",
    "GuardReport",
    "familiar",
    "find_all",
    "guard_of",
    "inspect",
    "judge",
    "latent_features",
    "latent_mask",
]
