"""Restores noisy MRI scans with latent diffusion, in place, with an honest report.

Names are imported when they are first used, so that `import medddpm` costs nothing:

    >>> import medddpm
    >>> medddpm.__version__.count(".")
    2
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from medddpm import threads
from medddpm.version import __version__

if TYPE_CHECKING:
    from medddpm.config import Config, load_config
    from medddpm.errors import MedddpmError
    from medddpm.io import read_volume, read_volumes, write_volume
    from medddpm.restoration.restorer import RestoreOptions, Restorer
    from medddpm.volume import Geometry, Volume
    from medddpm.workflows import evaluate, restore, restore_image

__all__ = [
    "Config",
    "Geometry",
    "MedddpmError",
    "RestoreOptions",
    "Restorer",
    "Volume",
    "__version__",
    "evaluate",
    "load_config",
    "read_volume",
    "read_volumes",
    "restore",
    "restore_image",
    "write_volume",
]

_HOMES = {
    "Config": "medddpm.config",
    "Geometry": "medddpm.volume",
    "MedddpmError": "medddpm.errors",
    "RestoreOptions": "medddpm.restoration.restorer",
    "Restorer": "medddpm.restoration.restorer",
    "Volume": "medddpm.volume",
    "evaluate": "medddpm.workflows",
    "load_config": "medddpm.config",
    "read_volume": "medddpm.io",
    "read_volumes": "medddpm.io",
    "restore": "medddpm.workflows",
    "restore_image": "medddpm.workflows",
    "write_volume": "medddpm.io",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())
threads.set_up()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
