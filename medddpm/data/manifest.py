"""The manifest: one row a scan, in a CSV that a person can open and other tools can read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from medddpm.errors import ConfigError
from medddpm.io.tables import Line, read_table, write_table

Split = Literal["train", "val", "test", ""]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class ScanRow:
    """What is known of one scan; an empty string where the source does not say.

    Attributes:
        scan: Unique name, which is also that of its files in the cache.
        subject: Pseudonym; no patient ID of a DICOM header ever stands here.
        session: As the source has it.
        series: Run or series number.
        contrast: "T1w", "T2w", "FLAIR", "PDw" ..., from BIDS names or DICOM tags, never guessed.
        shape: Voxels, as "256x256x180".
        spacing: mm, as "1x1x1.2".
        orientation: Axis codes, as "RAS".
        file: The source, relative to the folder of the manifest or absolute.
        checksum: SHA-256 of the source's bytes (of all files of a series, in sorted order).
        licence: Of the data, as SPDX or as the source says.
        consent: "yes", "no", "withdrawn", or "" where no table was given.
        synthetic: Whether the consent covers training what draws synthetic scans: "yes", "no", or
            "" where no table was given.
        sex: "F", "M", "O" or "".
        age: Years.
        site: Institution or centre, as a label.
        scanner: Vendor, model and field strength.
        split: "train", "val", "test", or "" for a scan that is in none (left out).
        flags: Reasons to look at it or why it was left out, separated by ";".
    """

    scan: str
    subject: str
    session: str = ""
    series: str = ""
    contrast: str = ""
    shape: str = ""
    spacing: str = ""
    orientation: str = ""
    file: str = ""
    checksum: str = ""
    licence: str = ""
    consent: str = ""
    synthetic: str = ""
    sex: str = ""
    age: str = ""
    site: str = ""
    scanner: str = ""
    split: Split = ""
    flags: str = ""


COLUMNS = tuple(f.name for f in fields(ScanRow))


def bids_subject(name: str) -> str:
    """Who a BIDS name is of, with what stands before it: "site1_sub-07"; "" if it does not say."""
    found = re.match(r"(?:.*_)?sub-[A-Za-z0-9]+", name)
    return found.group() if found else ""


def write_manifest(path: Path, rows: Iterable[ScanRow]) -> None:
    """Write the rows, sorted by scan, so that the same scans give the same bytes."""
    write_table(path, COLUMNS, (astuple(row) for row in sorted(rows, key=lambda r: r.scan)))


def read_manifest(path: Path) -> list[ScanRow]:
    """The rows of a manifest; columns that are unknown here are left alone.

    Raises:
        ConfigError: No such file, a column that is needed is missing, an unknown split, or a
            scan that is listed twice.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; `medddpm prepare` writes it")
    rows = [_row(path, line) for line in read_table(path, ("scan", "subject"), "the manifest")]
    counts = Counter(row.scan for row in rows)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice:
        raise ConfigError(f"{path} lists the scan {twice} twice")
    return rows


def _row(path: Path, line: Line) -> ScanRow:
    split = line.get("split")
    if split and split not in SPLITS:
        raise ConfigError(f"{path}: the split of {line['scan']} is {split!r}; use {SPLITS}")
    return ScanRow(**{name: line.get(name) for name in COLUMNS})  # type: ignore[arg-type]
