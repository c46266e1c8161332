"""What a report says about its origin: versions and checksums, never patient data."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medddpm import __version__
from medddpm.io import checksum as checksum
from medddpm.volume import Volume

_PACKAGES = ("torch", "numpy", "nibabel", "pydicom", "monai")
STATEMENT = "Restored by a machine-learning model, for research. Not a medical device."


def versions() -> dict[str, str]:
    """Versions of this package, Python and what computes and reads."""
    found = {"medddpm": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe_input(volume: Volume) -> dict[str, Any]:
    """Identity of what was read: a checksum and the grid; no names, no dates."""
    files = _source_files(volume)
    return {
        "case_id": volume.case_id,
        "format": volume.format,
        "sha256": checksum(files) if files else None,
        "num_files": len(files),
        "shape": list(volume.data.shape),
        "spacing_mm": [round(s, 6) for s in volume.spacing],
        "orientation": volume.geometry.orientation,
    }


def _source_files(volume: Volume) -> list[Path]:
    if volume.format == "dicom" and isinstance(volume.native, list | tuple):
        names = {getattr(dataset, "filename", None) for dataset in volume.native}
        found = [Path(str(name)) for name in names if name]
        return [path for path in found if path.is_file()]
    if volume.source is not None and volume.source.is_file():
        return [volume.source]
    return []
