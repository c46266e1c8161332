"""The ledger: every scan that was found and is not in the manifest, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from medddpm.io.tables import read_table, write_table

Code = Literal[
    "unreadable",
    "missing",
    "not-in-table",
    "other-suffix",
    "contradictory",
    "not-mr",
    "not-magnitude",
    "4d",
    "deface-failed",
    "no-consent",
    "withdrawn",
    "duplicate",
]


@dataclass(frozen=True)
class LedgerRow:
    """A scan that was left out.

    Attributes:
        scan: Its name; of a DICOM series a hash.
        subject: Pseudonym, "" if it is not known.
        code: Why, in one word.
        reason: Why, in a sentence without names, ids or dates of a DICOM header.
        twin: The scan with the same pixels, for duplicates.
    """

    scan: str
    subject: str
    code: Code
    reason: str
    twin: str = ""


COLUMNS = tuple(f.name for f in fields(LedgerRow))


def write_ledger(path: Path, rows: Iterable[LedgerRow]) -> None:
    """Write the rows, sorted, so that the same rows give the same bytes."""
    write_table(path, COLUMNS, sorted({astuple(row) for row in rows}))


def read_ledger(path: Path) -> list[LedgerRow]:
    """The rows of a ledger; none if there is no such file."""
    if not path.is_file():
        return []
    lines = read_table(path, COLUMNS, "the ledger")
    return [LedgerRow(*(line[name] for name in COLUMNS)) for line in lines]  # type: ignore[arg-type]
