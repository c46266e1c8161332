"""The guard: does a restoration look as good restorations do, and if not, why and where?"""

from medddpm.guard.checks import CHECKS, Check, GuardReport, judge
from medddpm.guard.inspect import Guard, check_guards, find_all, guard_of, inspect
from medddpm.guard.known import Known, Range, Usual, room
from medddpm.guard.latents import latent_features, latent_mask
from medddpm.guard.residual import Finding

__all__ = [
    "CHECKS",
    "Check",
    "Finding",
    "Guard",
    "GuardReport",
    "Known",
    "Range",
    "Usual",
    "check_guards",
    "find_all",
    "guard_of",
    "inspect",
    "judge",
    "latent_features",
    "latent_mask",
    "room",
]
