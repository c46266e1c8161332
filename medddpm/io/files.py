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

from medddpm.errors import ContentAbsentError, MedddpmError, OutputError, VolumeReadError

_POINTERS = (b"annex/objects/", b"version https://git-lfs")
_POINTER_BYTES = 1024


def check_there(path: Path) -> None:
    """Raise VolumeReadError if nothing is at `path`, or its content was never fetched."""
    try:
        if is_absent(path):
            raise ContentAbsentError(why_absent(path))
        path.stat()
    except MedddpmError:
        raise
    except FileNotFoundError:
        raise VolumeReadError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # a name that is too long, a folder that is closed
        why = getattr(error, "strerror", None) or error
        raise VolumeReadError(f"{str(path)[:200]} cannot be read: {why}") from None


def is_absent(path: Path) -> bool:
    """True for a link to nothing, and for the pointer that stands for content elsewhere.

    git-annex (and so datalad) keeps links into .git/annex, or small files that name their content
    where the file system has no links; git-lfs keeps such files too.
    """
    if path.is_symlink() and not path.exists():
        return True
    try:
        if not path.is_file() or path.stat().st_size > _POINTER_BYTES:
            return False
        start = path.read_bytes()
    except OSError:
        return False
    return any(mark in start for mark in _POINTERS)


def why_absent(path: Path) -> str:
    """What `is_absent` means for a person."""
    what = "a link to a file that is not there" if path.is_symlink() else "a pointer to a file"
    return (
        f"{path} is {what}: its content was not fetched (`datalad get` or `git annex get` "
        "does it), or was moved away"
    )


_LONGEST_NAME = 255
"""Bytes, where the file system does not say."""
_LONGEST_PATH = 4096
"""Bytes, with the one that ends it (PATH_MAX of Linux)."""
_LONGEST_SUFFIX = 8
_BYTES = range(0xDC80, 0xDD00)
"""Characters that stand for bytes that are no UTF-8 (PEP 383)."""


def check_name(path: Path) -> None:
    """Raise OutputError if a file system cannot hold the name, which counts in bytes."""
    whole = len(os.fsencode(path.absolute()))
    if whole >= _LONGEST_PATH:
        raise OutputError(
            f"cannot write {path.name[:40]}...: its path has {whole} bytes, and paths have "
            f"{_LONGEST_PATH - 1} at most; write into a folder with a shorter path"
        )
    folder = next((p for p in path.absolute().parents if _is_folder(p)), Path.cwd())
    try:
        longest = os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        longest = _LONGEST_NAME
    for part in path.absolute().relative_to(folder).parts:
        length = len(os.fsencode(part))
        if 0 < longest < length:
            raise OutputError(
                f"cannot write into {folder}: the name {part[:40]}... has {length} bytes, and "
                f"names have {longest} at most; shorten the input's, or give another output"
            )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no file system can hold
        return False


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
    check_name(path)
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
    return _is_folder(path) and not path.is_symlink()


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
def named_in_utf8(path: Path) -> Iterator[Path]:
    """The path; while the block runs a link to it, if its name holds bytes that are no UTF-8.

    For libraries that take names as text, such as safetensors.
    """
    if all(ord(character) not in _BYTES for character in os.fspath(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="medddpm-") as folder:
        link = Path(folder) / "link"
        link.symlink_to(path.absolute())
        yield link


@contextmanager
def atomic_path(path: str | Path, *, is_folder: bool = False) -> Iterator[Path]:
    """A temporary place beside `path` that takes its name when the block ends well.

    The temporary name is short, however long that of `path`, and has its suffix, by which
    writers go. It is removed on any error, Ctrl-C included; `path` is then as it was before.

    Args:
        path: Where the output shall be.
        is_folder: Make a folder instead of letting the caller make a file.

    Yields:
        The temporary path.

    Raises:
        OutputError: An OSError happened, such as a full disk.
    """
    path = Path(path)
    partial = path.with_name(f".{uuid.uuid4().hex[:12]}{_suffix(path)}")
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


def _suffix(path: Path) -> str:
    """The last suffix of a name, with the one before it if that is compressed; "" if it is long."""
    last = path.suffix if len(path.suffix) <= _LONGEST_SUFFIX else ""
    before = Path(path.stem).suffix if last.lower() == ".gz" else ""
    return before + last if len(before) <= _LONGEST_SUFFIX else last


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


def check_intensities(data: NDArray[np.float32], name: str, *, may_be_even: bool = False) -> None:
    """Refuse an array that is no scan.

    Args:
        data: (X, Y, Z) or (X, Y, Z, T).
        name: What the message calls it.
        may_be_even: One value everywhere is no error.

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
    if low == high and not may_be_even:
        what = "all zeros" if low == 0 else f"constant ({low:g} everywhere)"
        raise VolumeReadError(f"{name} is {what}; this is no scan")
