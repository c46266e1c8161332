"""Where outputs go, and how they appear: all of one scan at once, or none of them."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medddpm.display import printable
from medddpm.errors import ConfigError, MedddpmError, MemoryBudgetError, OutputError
from medddpm.io import OnError, check_name, series_label
from medddpm.io.dicom_write import is_derived_series
from medddpm.io.files import first_twin, is_folder
from medddpm.io.nifti import READ_SUFFIXES, suffix_of
from medddpm.io.tables import write_table
from medddpm.volume import Volume

OutputFormat = Literal["nifti", "dicom"]
NIFTI_SUFFIXES = (".nii.gz", ".nii")
_IMAGE_SUFFIXES = (*READ_SUFFIXES, ".dcm", ".nrrd", ".nhdr", ".mha", ".mhd", ".mnc", ".par", ".rec")
_OTHER_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".svg", ".pdf", ".html", ".htm", ".json", ".csv"),
    *(".tsv", ".txt", ".yaml", ".yml", ".xml", ".gz", ".zip", ".tar", ".tgz", ".npy", ".npz"),
    *(".mat", ".h5", ".hdf5", ".pt", ".pth", ".safetensors", ".py"),
)
_ONE_SHORT = re.compile(r"\.nii[^/]{0,4}$", re.IGNORECASE)  # .nii.g, .nii.gzz: a slip of the finger


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
    suffix = suffix_of(path, (*READ_SUFFIXES, ".dcm"))
    return path.name[: -len(suffix)] if suffix else path.stem


def names_folder(output: str | Path, suffixes: Sequence[str] = NIFTI_SUFFIXES) -> bool:
    """Whether OUTPUT, as a person wrote it, is a folder; a file otherwise.

    It is a folder if one is there, if it ends in a slash, or if it does not end as the name of a
    file does: `results.v2`, `2024.05.01` and `1.5T` are folders.

    Args:
        output: The text as it was given; a Path has lost a slash at its end.
        suffixes: Of the files that may be written here.

    Raises:
        ConfigError: It ends as another kind of file does.
    """
    path, text = Path(output), str(output)
    if path.is_dir() or text.endswith(("/", os.sep)):
        return True
    if suffix_of(path, tuple(suffixes)):
        return False
    if suffix_of(path, (*_IMAGE_SUFFIXES, *_OTHER_SUFFIXES)) or _ONE_SHORT.search(path.name):
        raise ConfigError(
            f"{output}: outputs end in {' or '.join(suffixes)}, or go into a folder; a folder of "
            f"this name is written {path.name}/"
        )
    return True


def plan_targets(
    scans: Sequence[Volume | Path], output: str | Path, *, format: OutputFormat, label: str
) -> list[Target]:
    """One target a scan, from what the person gave as OUTPUT.

    Args:
        scans: What was read, or NIfTI files that will be.
        output: A folder, or a .nii/.nii.gz file: see `names_folder`.
        format: "dicom" writes a folder of files for each scan.
        label: Appended to the scan's name inside a folder, such as "desc-denoised".
    """
    path = Path(output)
    check_name(path)
    if not names_folder(output):
        if format == "dicom":
            raise ConfigError(f"--format dicom writes folders, but {output} names a NIfTI file")
        if len(scans) > 1:
            raise ConfigError(f"the input holds {len(scans)} scans: give a folder, not {output}")
        return [Target(path.parent, file_stem(path), path.name[len(file_stem(path)) :])]
    ending = "" if format == "dicom" else ".nii.gz"
    stems = _stems(scans)
    if format == "dicom":  # a folder of DICOM files is known by its series
        names = [series_label(scan) if isinstance(scan, Volume) else "" for scan in scans]
        stems = ["_".join(filter(None, pair)) for pair in zip(names, stems, strict=True)]
    return [Target(path, f"{stem}_{label}", ending) for stem in stems]


def _stems(scans: Sequence[Volume | Path]) -> list[str]:
    """A name for each scan, without patient data: DICOM file names are not used.

    Series that have one name are numbered; files that have one are for `check_targets` to refuse.
    """
    stems: list[str] = []
    for scan in scans:
        if isinstance(scan, Path):
            stems.append(file_stem(scan))
            continue
        known = scan.source is not None and scan.format in ("nifti", "mgh")
        stem = file_stem(scan.source) if known and scan.source else scan.case_id
        same = sum(1 for other in stems if other == stem or other.startswith(f"{stem}-"))
        stems.append(f"{stem}-{same + 1}" if same else stem)
    return stems


def check_targets(
    paths: Sequence[Path],
    *,
    overwrite: bool,
    inputs: Collection[Path] = (),
    folders: Collection[Path] = (),
) -> None:
    """Raise OutputError before any work if an output may not be written, or cannot.

    Args:
        paths: Of all outputs.
        overwrite: Replace files that exist, and of `folders` those that were written here.
        inputs: What is read, which stays as it is whatever leads to it.
        folders: Those of the paths that are DICOM series.
    """
    for path in paths:
        check_name(path)
    refuse_inputs(paths, inputs)
    for path in paths:
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists already; give another output or --overwrite")
        if is_folder(path) and not (path in folders and is_derived_series(path)):
            raise OutputError(
                f"a folder stands at {path}, and --overwrite replaces no folder; move it away or "
                "give another output"
            )
    for path in {path.parent: path for path in reversed(paths)}.values():
        _check_folder(path)
        twice = first_twin((p.name for p in paths if p.parent == path.parent), path.parent)
        if twice is not None:
            raise OutputError(f"two scans would both be written to {twice}; rename one of them")


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise OutputError if an output is an input, by whatever name or link, or its sidecar.

    Args:
        outputs: Files or folders that will be written.
        inputs: Files that are read.
    """
    known = {mark for path in inputs for part in _belonging(path) if (mark := _identity(part))}
    if not known:
        return
    for path in outputs:
        inside = path.iterdir() if is_folder(path) else ()
        if any(_identity(part) in known for part in (path, *inside)):
            raise OutputError(
                f"{path} is what the scan is read from, or its sidecar; inputs are never replaced: "
                "give another output"
            )


def _belonging(path: Path) -> list[Path]:
    """A scan's files: itself, the other one of a pair, and the sidecar that lies beside it."""
    beside = [f"{file_stem(path)}{suffix}" for suffix in (".json", ".img", ".hdr")]
    return [path, *(path.with_name(name) for name in beside)] if suffix_of(path) else [path]


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others, also through links; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_folder(path: Path) -> None:
    """The folder of `path` exists, or the one above it does, and takes a file."""
    folder = path.parent
    existing = folder if folder.exists() else folder.parent
    if not existing.is_dir():
        known = f"{existing} is no folder" if existing.exists() else ""
        why = known or f"the folder {existing} does not exist; make it first"
        raise OutputError(f"cannot write {path}: {why}")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {existing}: {error.strerror}") from None


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
            _check_replaceable(folder / item.name, item)
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


def _check_replaceable(path: Path, item: Path) -> None:
    """Refuse to put something in the place of a folder, but for a series in that of another."""
    if is_folder(path) and not (is_folder(item) and is_derived_series(path)):
        raise OutputError(f"a folder stands at {path}, and no folder is replaced; move it away")


@contextmanager
def one_scan(name: str, on_error: OnError | None) -> Iterator[None]:
    """What is done for one scan of several: its error is reported, and the others go on.

    Args:
        name: Of the scan, for the report.
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
        text = str(error)
        on_error(error if name in text else type(error)(f"{name}: {text}"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a report; numpy values become numbers, NaN and infinity become null."""
    path.write_text(json.dumps(plain(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_html(path: Path, page: str) -> None:
    """Write a page; bytes of file names that are no text show as a backslash and hex."""
    path.write_text(printable(page), encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table; its columns are all that any row has, in the order in which they come."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_table(path, columns, ([row.get(name, "") for name in columns] for row in rows))


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
