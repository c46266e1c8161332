"""What a report says about its origin: versions and checksums, never patient data."""

from __future__ import annotations

import hashlib
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from medddpm.io import checksum as checksum
from medddpm.io.sidecar import InputFacts
from medddpm.version import __version__
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


def machine() -> dict[str, str]:
    """What the last bits of a result may depend on, beside versions; no names of hosts or users."""
    import torch

    found = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe_input(volume: Volume) -> InputFacts:
    """Identity of what was read: a checksum and the grid; no names, no dates."""
    files = source_files(volume)
    return InputFacts(
        case_id=volume.case_id,
        format=volume.format,
        sha256=checksum(files) if files else None,
        num_files=len(files),
        shape=list(volume.data.shape),
        spacing_mm=[round(s, 6) for s in volume.spacing],
        orientation=volume.geometry.orientation,
    )


def input_path(volume: Volume, folder: Path) -> str | None:
    """Path of the input relative to a folder; None for DICOM, whose paths may name patients."""
    if volume.source is None or volume.format not in ("nifti", "mgh"):
        return None
    return relative_path(volume.source, folder)


def relative_path(path: Path, folder: Path) -> str:
    """The path as seen from a folder, with forward slashes; absolute on another drive."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def voxel_checksum(volume: Volume) -> str:
    """SHA-256 of shape and float32 intensities, whatever file holds them."""
    digest = hashlib.sha256(repr(volume.data.shape).encode())
    for index in range(volume.num_frames):
        digest.update(volume.frame(index).astype("<f4").tobytes())
    return digest.hexdigest()


def output_checksum(path: Path) -> str:
    """SHA-256 of an output: of a file, or of the files of a derived DICOM series."""
    return checksum([path] if path.is_file() else sorted(path.iterdir()))


def _processor() -> str:
    """Model of the processor; Linux has it in /proc only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"


def source_files(volume: Volume) -> list[Path]:
    """The files that a scan was read from, as far as they are known and there."""
    if volume.format == "dicom" and isinstance(volume.native, list | tuple):
        names = {getattr(dataset, "filename", None) for dataset in volume.native}
        found = [Path(str(name)) for name in names if name]
        return [path for path in found if path.is_file()]
    if volume.source is not None and volume.source.is_file():
        return [volume.source]
    return []
