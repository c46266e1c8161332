"""Where outputs go, and how they appear: all of one scan at once, or none of them."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medddpm.display import printable
from medddpm.errors import ConfigError, MedddpmError, MemoryBudgetError, OutputError
from medddpm.io import OnError, check_name
from medddpm.volume import Volume

OutputFormat = Literal["nifti", "dicom"]
NIFTI_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Target:
    """The outputs of one scan: files in `folder` whose names start with `stem`."""

    folder: Path
    stem: str
    suffix: str

    @property
    def image(self) -> Path:
        """The scan itself: a NIfTI file, or a folder of DICOM files."""
        return self.folder / f"{self.stem}{self.suffix}"

    @property
    def sidecar(self) -> Path:
        """The JSON report beside it."""
        return self.folder / f"{self.stem}.json"

    @property
    def html(self) -> Path:
        """The HTML report beside it."""
        return self.folder / f"{self.stem}.html"

    def part(self, name: str) -> Path:
        """A map or page that belongs to the scan, such as its standard deviation; one file."""
        return self.folder / f"{self.stem}_{name}{self.suffix or '.dcm'}"


def file_stem(path: Path) -> str:
    """The name of a file without any of its imaging suffixes."""
    name = path.name
    for suffix in (*NIFTI_SUFFIXES, ".mgz", ".mgh", ".img", ".hdr", ".dcm"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem


def plan_targets(
    volumes: Sequence[Volume], output: Path, *, format: OutputFormat, label: str
) -> list[Target]:
    """One target a volume, from what the person gave as OUTPUT.

    Args:
        volumes: What was read.
        output: A folder (existing, or a path without suffix), or a .nii/.nii.gz file.
        format: "dicom" writes a folder of files for each scan.
        label: Appended to the scan's name inside a folder, such as "desc-denoised".
    """
    check_name(output)
    suffix = next((s for s in NIFTI_SUFFIXES if output.name.lower().endswith(s)), "")
    if suffix and not output.is_dir():
        if format == "dicom":
            raise ConfigError(f"--format dicom writes folders, but {output} names a NIfTI file")
        if len(volumes) > 1:
            raise ConfigError(f"the input holds {len(volumes)} scans: give a folder, not {output}")
        return [Target(output.parent, file_stem(output), output.name[-len(suffix) :])]
    if output.suffix and not output.is_dir():
        raise ConfigError(f"{output}: outputs end in .nii.gz or .nii, or go into a folder")
    ending = "" if format == "dicom" else ".nii.gz"
    return [Target(output, f"{stem}_{label}", ending) for stem in _stems(volumes)]


def _stems(volumes: Sequence[Volume]) -> list[str]:
    """A name for each volume, without patient data: DICOM file names are not used."""
    stems: list[str] = []
    for volume in volumes:
        known = volume.source is not None and volume.format in ("nifti", "mgh")
        stem = file_stem(volume.source) if known and volume.source else volume.case_id
        same = sum(1 for other in stems if other == stem or other.startswith(f"{stem}-"))
        stems.append(f"{stem}-{same + 1}" if same else stem)
    return stems


def check_targets(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Raise OutputError before any work if an output exists or its folder cannot take it."""
    for path in paths:
        check_name(path)
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists already; give another output or --overwrite")
    for path in {path.parent: path for path in reversed(paths)}.values():
        _check_folder(path)


def _check_folder(path: Path) -> None:
    """The folder of `path` exists, or the one above it does, and takes a file."""
    folder = path.parent
    existing = folder if folder.exists() else folder.parent
    if not existing.is_dir():
        known = f"{existing} is no folder" if existing.exists() else ""
        why = known or f"the folder {existing} does not exist; make it first"
        raise OutputError(f"cannot write {path}: {why}")
    try:
        handle, probe = tempfile.mkstemp(prefix=".medddpm-", dir=existing)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {existing}: {error.strerror}") from None
    os.close(handle)
    os.unlink(probe)


@contextmanager
def staged(folder: Path, name: str = "") -> Iterator[Path]:
    """A hidden folder to write into; when the block ends well its content moves to `folder`.

    On any error, an interrupt or a full disk nothing of it remains, and what was there before is
    there again. After `kill -9` the hidden folder does remain: `stage_prefix` finds it.

    Args:
        folder: Where the content goes; made if only its last part is missing.
        name: Stands in the name of the hidden folder.
    """
    made = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=stage_prefix(name), dir=folder))
        try:
            yield work
            _move_all(work, folder)
        except OutputError as error:
            raise OutputError(str(error).replace(str(work), str(folder))) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if made and not any(folder.iterdir()):
                folder.rmdir()
    except MedddpmError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error


def stage_prefix(name: str) -> str:
    """How the names of the hidden folders of `staged` begin."""
    return f".medddpm-{name}-" if name else ".medddpm-"


def _move_all(work: Path, folder: Path) -> None:
    """Move all of `work` to `folder`, reports last; on an error or an interrupt none of it."""
    items = sorted(work.iterdir(), key=lambda p: (p.suffix == ".json", p.name))
    before = work / ".before"
    before.mkdir()
    begun: list[str] = []
    try:
        for item in items:
            begun.append(item.name)
            if os.path.lexists(folder / item.name):
                os.rename(folder / item.name, before / item.name)
            os.rename(item, folder / item.name)
    except BaseException:
        for name in begun:
            if not os.path.lexists(work / name):  # it was moved: back
                os.rename(folder / name, work / name)
            if os.path.lexists(before / name):
                os.rename(before / name, folder / name)
        raise


@contextmanager
def one_scan(volume: Volume, on_error: OnError | None) -> Iterator[None]:
    """What is done for one scan of several: its error is reported, and the others go on.

    Args:
        volume: The scan, which the report names.
        on_error: Called with the error; without it the error is raised, as are, in any case,
            errors that every scan would meet: a full disk, too little memory.
    """
    try:
        yield
    except (OutputError, MemoryBudgetError):
        raise
    except MedddpmError as error:
        if on_error is None:
            raise
        on_error(type(error)(f"{volume.case_id}: {error}"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a report; numpy values become numbers, NaN and infinity become null."""
    path.write_text(json.dumps(plain(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_html(path: Path, page: str) -> None:
    """Write a page; bytes of file names that are no text show as a backslash and hex."""
    path.write_text(printable(page), encoding="utf-8")


def write_csv(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write a table; bytes of file names stay as they are.

    Args:
        path: The file.
        rows: Column to value.
        columns: In this order; if not given, all that any row has, as they come.
    """
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def plain(value: Any) -> Any:
    """The value in terms that JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)
