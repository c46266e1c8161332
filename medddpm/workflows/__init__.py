"""One public function a verb: what the command line does, for Python.

Names are imported when first used: listing configs must not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medddpm.workflows.benchmarking import benchmark
    from medddpm.workflows.calibrating import calibrate
    from medddpm.workflows.converting import convert
    from medddpm.workflows.data_reporting import data_report
    from medddpm.workflows.describing import info
    from medddpm.workflows.example import quickstart
    from medddpm.workflows.measure import NoiseSettings, estimate_noise, evaluate
    from medddpm.workflows.memorising import memorisation
    from medddpm.workflows.preparing import PrepareOptions, prepare
    from medddpm.workflows.reconstructing import reconstruct, simulate_raw, undersample
    from medddpm.workflows.repeat_testing import repeat_test
    from medddpm.workflows.replaying import replay
    from medddpm.workflows.reporting import report
    from medddpm.workflows.restoring import RestoredScan, restore
    from medddpm.workflows.simulating import simulate
    from medddpm.workflows.sweeping import sweep
    from medddpm.workflows.training import train
    from medddpm.workflows.withdrawing import withdraw

__all__ = [
    "NoiseSettings",
    "PrepareOptions",
    "RestoredScan",
    "benchmark",
    "calibrate",
    "convert",
    "data_report",
    "estimate_noise",
    "evaluate",
    "info",
    "memorisation",
    "prepare",
    "quickstart",
    "reconstruct",
    "repeat_test",
    "replay",
    "report",
    "restore",
    "simulate",
    "simulate_raw",
    "sweep",
    "train",
    "undersample",
    "withdraw",
]

_HOMES = {
    "NoiseSettings": "measure",
    "PrepareOptions": "preparing",
    "RestoredScan": "restoring",
    "benchmark": "benchmarking",
    "calibrate": "calibrating",
    "convert": "converting",
    "data_report": "data_reporting",
    "estimate_noise": "measure",
    "evaluate": "measure",
    "info": "describing",
    "memorisation": "memorising",
    "prepare": "preparing",
    "quickstart": "example",
    "reconstruct": "reconstructing",
    "repeat_test": "repeat_testing",
    "replay": "replaying",
    "report": "reporting",
    "restore": "restoring",
    "simulate": "simulating",
    "simulate_raw": "reconstructing",
    "sweep": "sweeping",
    "train": "training",
    "undersample": "reconstructing",
    "withdraw": "withdrawing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
