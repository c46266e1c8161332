"""Outputs appear whole or not at all, and never over an existing one by accident."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import MedddpmError, OutputError, VolumeReadError


def check_output(path: str | Path, overwrite: bool = False) -> Path:
    """Make sure, before hours of work, that `path` can be written.

    Args:
        path: The file or folder that will be written; its folder must exist.
        overwrite: Accept an existing file; never a folder, which may hold anything.

    Returns:
        The path.

    Raises:
        OutputError: The folder is missing or read-only, or the output exists already.
    """
    path = Path(path)
    parent = path.parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: the folder {parent} does not exist; make it first")
    if not overwrite and os.path.lexists(path):
        raise OutputError(f"{path} exists already; use --overwrite or choose another name")
    if is_folder(path):
        raise OutputError(f"a folder stands at {path}; move it away or choose another name")
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def is_folder(path: Path) -> bool:
    """True if a folder, and no link to one, stands at `path`."""
    return path.is_dir() and not path.is_symlink()


def first_twin(names: Iterable[str], folder: Path) -> str | None:
    """The first name that stands for the same file as an earlier one, or None.

    Args:
        names: Relative to the folder.
        folder: Where files of these names will be made, or would be: where it takes A and a for
            one name, as those of macOS and Windows do, so does the answer.
    """
    folds = _ignores_case(next((p for p in (folder, *folder.parents) if p.is_dir()), Path()))
    known: set[str] = set()
    for name in names:
        place = os.path.normpath(name)
        place = unicodedata.normalize("NFC", place).casefold() if folds else place
        if place in known:
            return name
        known.add(place)
    return None


def _ignores_case(folder: Path) -> bool:
    """Whether a folder takes A and a for one name; False where that cannot be tried."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".medddpm-", dir=folder) as file:
            probe = Path(file.name)
            return probe.with_name(probe.name.upper()).exists()
    except OSError:  # read-only: whoever writes will say so
        return False


@contextmanager
def atomic_path(path: str | Path, *, is_folder: bool = False) -> Iterator[Path]:
    """A temporary place beside `path` that takes its name when the block ends well.

    The temporary name ends in the name of `path`, so that writers who go by the suffix
    work. It is removed on any error, Ctrl-C included; `path` is then as it was before.

    Args:
        path: Where the output shall be.
        is_folder: Make a folder instead of letting the caller make a file.

    Yields:
        The temporary path.

    Raises:
        OutputError: An OSError happened, such as a full disk.
    """
    path = Path(path)
    partial = path.with_name(f".{uuid.uuid4().hex[:12]}-{path.name}")
    try:
        if is_folder:
            partial.mkdir()
        yield partial
        if is_folder:
            _replace_folder(partial, path)
        else:
            os.replace(partial, path)
    except MedddpmError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        remove(partial)


def _replace_folder(partial: Path, path: Path) -> None:
    """Rename a folder; an old one of the name is set aside first and removed last."""
    old = path.with_name(f".{uuid.uuid4().hex[:12]}-old")
    if os.path.lexists(path):
        os.rename(path, old)
    try:
        os.rename(partial, path)
    except BaseException:
        if os.path.lexists(old):
            os.rename(old, path)
        raise
    remove(old)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if is_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def checksum(files: Sequence[Path]) -> str:
    """SHA-256 of one file; of several, the SHA-256 of their sorted checksums."""
    sums = []
    for path in files:
        with path.open("rb") as file:
            sums.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(sums) == 1:
        return sums[0]
    return hashlib.sha256("".join(sorted(sums)).encode()).hexdigest()


def check_intensities(data: NDArray[np.float32], name: str) -> None:
    """Refuse an array that is no scan.

    Args:
        data: (X, Y, Z) or (X, Y, Z, T).
        name: What the message calls it.

    Raises:
        VolumeReadError: One slice, NaN or infinity, all zeros, or constant.
    """
    if min(data.shape[:3]) < 2:
        raise VolumeReadError(
            f"{name} has one slice (shape {data.shape}); a volume of two or more is needed"
        )
    low, high = float(data.min()), float(data.max())  # NaN and infinity reach one of the two
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(data.size - np.isfinite(data).sum())
        raise VolumeReadError(
            f"{name} has NaN or infinity in {bad} of {data.size} voxels; replace them first"
        )
    if low == high:
        what = "all zeros" if low == 0 else f"constant ({low:g} everywhere)"
        raise VolumeReadError(f"{name} is {what}; this is no scan")
