"""The verbs on one scan, and `train`: what the command line does, for Python.

Names are imported when first used: listing configs must not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medddpm.workflows.converting import convert
    from medddpm.workflows.describing import info
    from medddpm.workflows.example import quickstart
    from medddpm.workflows.generating import generate
    from medddpm.workflows.in_memory import restore_image
    from medddpm.workflows.measure import estimate_noise, evaluate
    from medddpm.workflows.reconstructing import reconstruct
    from medddpm.workflows.replaying import replay
    from medddpm.workflows.reporting import report
    from medddpm.workflows.restored_scan import RestoredScan
    from medddpm.workflows.restoring import restore
    from medddpm.workflows.simulating import simulate
    from medddpm.workflows.simulating_raw import simulate_raw, undersample
    from medddpm.workflows.training import train

__all__ = [
    "RestoredScan",
    "convert",
    "estimate_noise",
    "evaluate",
    "generate",
    "info",
    "quickstart",
    "reconstruct",
    "replay",
    "report",
    "restore",
    "restore_image",
    "simulate",
    "simulate_raw",
    "train",
    "undersample",
]

_HOMES = {
    "RestoredScan": "restored_scan",
    "convert": "converting",
    "estimate_noise": "measure",
    "evaluate": "measure",
    "generate": "generating",
    "info": "describing",
    "quickstart": "example",
    "reconstruct": "reconstructing",
    "replay": "replaying",
    "report": "reporting",
    "restore": "restoring",
    "restore_image": "in_memory",
    "simulate": "simulating",
    "simulate_raw": "simulating_raw",
    "train": "training",
    "undersample": "simulating_raw",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
