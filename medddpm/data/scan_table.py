"""A folder of NIfTI files with a CSV that says whose they are, as a source of scans."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from medddpm.data.acquisition import sex_code
from medddpm.data.cache import find_scans
from medddpm.data.ledger import LedgerRow
from medddpm.data.manifest import ScanRow
from medddpm.data.sources import Found, Source, label
from medddpm.errors import ConfigError
from medddpm.io.nifti import suffix_of
from medddpm.io.tables import Line, read_table

_TAKEN = ("session", "series", "contrast", "licence", "age", "site", "scanner")


def find_listed(folder: Path, table: Path) -> Source:
    """The scans of a CSV with the columns file and subject, and more if they are known.

    Files are relative to the folder, or to the table. What else is taken: session, series,
    contrast, sex, age, site, scanner, licence.

    Raises:
        ConfigError: The table is unreadable, lacks a column or a subject, or lists a file twice.
    """
    scans: list[Found] = []
    left_out: list[LedgerRow] = []
    listed: set[Path] = set()
    for entry in read_table(table, ("file", "subject")):
        path = _place(entry, folder, table)
        stem = path.name[: -len(suffix_of(path))] if suffix_of(path) else path.name
        if not entry["subject"]:
            raise ConfigError(f"{table}, line {entry.number}: no subject; every scan needs one")
        if path in listed:
            raise ConfigError(f"{table}, line {entry.number}: {path.name} is listed twice")
        listed.add(path)
        if not path.is_file():
            left_out.append(
                LedgerRow(stem, entry["subject"], "missing", "the table names it, it is not there")
            )
            continue
        row = ScanRow(
            scan=stem,
            subject=entry["subject"],
            file=str(path),
            sex=sex_code(entry.get("sex")),
            **{name: entry.get(name) for name in _TAKEN},  # type: ignore[arg-type]
        )
        scans.append(Found(row, (path,), entry["subject"]))
    for path in find_scans(folder):
        if path.absolute() not in listed:
            stem = path.name[: -len(suffix_of(path))]
            left_out.append(LedgerRow(stem, "", "not-in-table", "the table does not name it"))
    return Source("NIfTI with a table", tuple(_told_apart(scans, folder)), tuple(left_out))


def _told_apart(scans: list[Found], folder: Path) -> list[Found]:
    """Put the folders before the names of files that are called the same."""
    counts = Counter(found.row.scan for found in scans)
    apart = []
    for found in scans:
        (path,) = found.files
        if counts[found.row.scan] > 1 and folder.absolute() in path.parents:
            folders = path.relative_to(folder.absolute()).parts[:-1]
            name = "_".join((*map(label, folders), found.row.scan))
            found = replace(found, row=replace(found.row, scan=name))
        apart.append(found)
    return apart


def _place(entry: Line, folder: Path, table: Path) -> Path:
    beside = entry.path(table.parent.absolute())
    return beside if beside.is_file() else entry.path(folder.absolute())
