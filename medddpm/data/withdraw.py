"""Take a subject out of a prepared folder, and say which checkpoints saw them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medddpm.data.cache import Case, purge, read_index, write_index
from medddpm.data.consent import plain_id
from medddpm.data.contact_sheet import write_sheets
from medddpm.data.ledger import LedgerRow, read_ledger, write_ledger
from medddpm.data.manifest import ScanRow, read_manifest, write_manifest
from medddpm.data.prepare import counts_of
from medddpm.data.private import (
    only_one,
    private_folder,
    pseudonyms_of,
    read_mapping,
    write_mapping,
)
from medddpm.data.tables import write_text
from medddpm.errors import ConfigError
from medddpm.io.tables import read_table, write_table


@dataclass(frozen=True)
class Withdrawal:
    """What a withdrawal did.

    Attributes:
        subjects: Names in the manifest that it concerned.
        scans: Scans that were taken out.
        checkpoints: Weights and states that were trained on them.
    """

    subjects: tuple[str, ...]
    scans: tuple[str, ...]
    checkpoints: tuple[Path, ...]


def withdraw(out: str | Path, subject: str, runs: str | Path | None = None) -> Withdrawal:
    """Delete a subject's scans from a prepared folder, for good: a rerun leaves them out.

    The scans with the same pixels under another subject go too. It is written down first, so
    that a call that was stopped is finished by another one.

    Args:
        out: The prepared folder.
        subject: As in the manifest or, of DICOM, the patient ID.
        runs: Searched for training runs that saw the subject.

    Raises:
        ConfigError: No such subject, or `out` was not prepared.
        OutputError: It cannot be written.
    """
    out = Path(out)
    runs = None if runs is None else Path(runs)
    rows = read_manifest(out / "manifest.csv")
    with only_one(out):
        ledger = read_ledger(out / "ledger.csv")
        known = {r.subject for r in rows} | {r.subject for r in ledger}
        subjects = _named(out, subject, known)
        ledger, scans = _written_down(rows, ledger, subjects)
        write_ledger(out / "ledger.csv", ledger)
        _remove(out, rows, scans)
    concerned = subjects | {r.subject for r in rows if r.scan in scans}
    checkpoints = checkpoints_that_saw(concerned, runs) if runs else []
    return Withdrawal(tuple(sorted(concerned)), tuple(sorted(scans)), tuple(checkpoints))


def _named(out: Path, subject: str, known: set[str]) -> set[str]:
    """The names in the manifest or the ledger of the subject that a person means.

    Raises:
        ConfigError: There is none, or two sites have one. What was given may be a patient ID and
            is not repeated.
    """
    given = subject.strip()
    names = {given, f"sub-{plain_id(given)}", pseudonyms_of(out).subject(given)}
    if names & known:
        return names & known
    owners = read_mapping(private_folder(out) / "mapping.csv")
    meant = {o.subject for o in owners if given in (o.original, o.original.rpartition("\\")[2])}
    if len(meant) == 1:
        return meant
    alike = meant | {name for name in known if name.partition("_")[2] in names}
    mend = (
        f"name one of {', '.join(sorted(alike))}" if alike else "look for it in the column subject"
    )
    raise ConfigError(f"{out / 'manifest.csv'} and its ledger have no such subject; {mend}")


def _written_down(
    rows: list[ScanRow], ledger: list[LedgerRow], subjects: set[str]
) -> tuple[list[LedgerRow], set[str]]:
    """The ledger with the withdrawal, and the scans that it concerns."""
    owner = {r.scan: r.subject for r in rows} | {r.scan: r.subject for r in ledger}
    own = {scan: name for scan, name in owner.items() if name in subjects}
    pairs = [(r.scan, r.twin) for r in ledger if r.code == "duplicate"]
    gone, twins = dict.fromkeys(own, ""), dict.fromkeys(own, "")
    while twins:  # a third scan may be the twin of a twin
        both_ways = [*pairs, *((b, a) for a, b in pairs)]
        twins = {b: a for a, b in both_ways if a in twins and b in owner and b not in gone}
        gone |= twins
    new = [
        LedgerRow(scan, owner[scan], "withdrawn", "the pixels of a withdrawn scan", twin)
        if twin
        else LedgerRow(scan, owner[scan], "withdrawn", "withdrawn")
        for scan, twin in gone.items()
    ]
    return [r for r in ledger if r.scan not in gone] + new, set(gone)


def _remove(out: Path, rows: list[ScanRow], scans: set[str]) -> None:
    """Rewrite all that lists the scans, the index first, and delete their voxels."""
    cache, quality = out / "cache", out / "quality"
    cases, facts = read_index(cache)
    kept = [case for case in cases if case.name not in scans]
    left = [row for row in rows if row.scan not in scans]
    extra = {k: v for k, v in facts.items() if k not in ("version", "cases")}
    write_index(cache, kept, **extra)
    write_manifest(out / "manifest.csv", left)
    mapping = private_folder(out) / "mapping.csv"
    write_mapping(mapping, (row for row in read_mapping(mapping) if row.scan not in scans))
    for name in ("flags.csv", "deidentify.csv"):
        _forget(quality / name, scans)
    purge(cache, _entries(cache, kept), kept)
    by_name = {row.scan: row for row in left}
    write_sheets(quality, [(by_name[c.name], c) for c in kept if c.name in by_name], cache)
    _recount(out / "prepare.json", left, out)


def _entries(cache: Path, kept: Iterable[Case]) -> set[str]:
    """Entries with nothing but kept scans: a series of two of which one goes is packed again."""
    names = {case.name for case in kept}
    found = set()
    for path in cache.glob("*.json"):
        entry = json.loads(path.read_text(encoding="utf-8"))
        if all(scan["name"] in names for scan in entry.get("scans", [])):
            found.add(path.stem)
    return found


def _forget(path: Path, scans: set[str]) -> None:
    """Take the lines of these scans out of a table."""
    lines = read_table(path, ("scan",)) if path.is_file() else []
    if lines:
        kept = [list(line.cells.values()) for line in lines if line["scan"] not in scans]
        write_table(path, list(lines[0].cells), kept)


def _recount(path: Path, rows: list[ScanRow], out: Path) -> None:
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary |= counts_of(rows, read_ledger(out / "ledger.csv"))
    write_text(path, json.dumps(summary, indent=2) + "\n")


def checkpoints_that_saw(subjects: set[str], runs: Path) -> list[Path]:
    """Weights and states under a folder whose `run.json` lists one of the subjects.

    Copies of weights elsewhere cannot be known.
    """
    found: set[Path] = set()
    for path in sorted(runs.rglob("run.json")):
        try:
            seen = json.loads(path.read_text(encoding="utf-8")).get("subjects", {})
        except (OSError, ValueError, AttributeError):
            continue
        if subjects & set(seen):
            places = (
                *path.parent.rglob("*.safetensors"),
                *path.parent.parent.glob("*.safetensors"),
            )
            found |= set(places)
    return sorted(found)
