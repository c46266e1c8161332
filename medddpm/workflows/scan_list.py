"""Which clean scans a file, a folder or a manifest holds."""

from __future__ import annotations

import csv
import fnmatch
from pathlib import Path

from medddpm.curation.manifest import bids_subject
from medddpm.errors import ConfigError
from medddpm.workflows.outputs import NIFTI_SUFFIXES, file_stem


def scan_files(data: Path) -> list[Path]:
    """The scans of a file, a folder (searched through) or a CSV manifest, sorted.

    Raises:
        ConfigError: There is none, or the manifest has no column `file`, or names a file that
            does not exist.
    """
    if data.suffix == ".csv" and data.is_file():
        found = _listed(data)
    else:
        found = sorted(data.rglob("*")) if data.is_dir() else [data]
    scans = [p for p in found if p.name.endswith(NIFTI_SUFFIXES) and p.is_file()]
    if not scans:
        raise ConfigError(f"no NIfTI scan in {data}; give a file, a folder or a CSV manifest")
    return scans


def named_scans(data: Path, include: str = "*", limit: int | None = None) -> list[Path]:
    """The first scans of `data` whose names match.

    Args:
        data: As in `scan_files`.
        include: Pattern (fnmatch) of names without suffix.
        limit: At most so many.

    Raises:
        ConfigError: None matches, or two have the same name.
    """
    files = [p for p in scan_files(data) if fnmatch.fnmatch(file_stem(p), include)][:limit]
    if not files:
        raise ConfigError(f"no scan under {data} is called {include!r}")
    names = [file_stem(p) for p in files]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two scans are called {name!r}: names tell scans apart; rename one")
    return files


def subjects_of(data: Path, files: list[Path]) -> dict[Path, str]:
    """Who each scan is of: by the column `subject` of a CSV, a BIDS name, or the name itself.

    Args:
        data: What the files were found in.
        files: Scans, as `named_scans` gives them.
    """
    told = column_of(data, "subject")
    names = {path: file_stem(path) for path in files}
    return {path: told.get(path) or bids_subject(name) or name for path, name in names.items()}


def column_of(data: Path, name: str) -> dict[Path, str]:
    """What a column of a CSV manifest says of each scan; nothing for anything else.

    Args:
        data: What the scans were found in.
        name: Of the column.
    """
    if data.suffix != ".csv" or not data.is_file():
        return {}
    with data.open(newline="", encoding="utf-8") as file:
        return {data.parent / r["file"]: r.get(name) or "" for r in csv.DictReader(file)}


def _listed(manifest: Path) -> list[Path]:
    with manifest.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        if "file" not in (table.fieldnames or ()):
            raise ConfigError(f"{manifest} has no column 'file'")
        found = [manifest.parent / row["file"] for row in table if row["file"]]
    for path in found:
        if not path.is_file():
            raise ConfigError(f"{manifest} names {path}, which does not exist")
    return found
