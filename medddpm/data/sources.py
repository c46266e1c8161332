"""What a source holds: BIDS, a DICOM tree, or NIfTI files with a table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from medddpm.data.ledger import LedgerRow
from medddpm.data.manifest import ScanRow
from medddpm.errors import ConfigError

Kind = Literal["BIDS", "DICOM", "NIfTI with a table"]


@dataclass(frozen=True)
class Found:
    """A scan that was found and not read yet.

    Attributes:
        row: What the source says of it.
        files: Its files, sorted.
        original: The subject's id as the source has it; private.
        kin: What else tells that it is one person, such as a hash; subjects with the same are
            held together in one split. "" if nothing does.
        told_contrast: What DICOM tags or a sidecar say, to hold against `row.contrast`.
    """

    row: ScanRow
    files: tuple[Path, ...]
    original: str
    kin: str = ""
    told_contrast: str = ""


@dataclass(frozen=True)
class Source:
    """All that was found.

    Attributes:
        kind: What the source is.
        scans: Sorted by name.
        left_out: What will not be read, and why.
        notes: What a person should know, without patient data.
    """

    kind: Kind
    scans: tuple[Found, ...]
    left_out: tuple[LedgerRow, ...] = ()
    notes: tuple[str, ...] = ()


def finish_source(source: Source) -> Source:
    """Keep subjects of two sites apart, give series that share a name a number, sort.

    Raises:
        ConfigError: Nothing was found, or two scans have one name.
    """
    scans, notes = _sites_apart(source.scans)
    if not scans and not source.left_out:
        raise ConfigError(f"the source ({source.kind}) holds no scan")
    names = sorted(found.row.scan for found in scans)
    twice = next((a for a, b in pairwise(names) if a == b), None)
    if twice:
        raise ConfigError(f"two scans are called {twice}; rename one: names tell scans apart")
    ordered = tuple(sorted(scans, key=lambda found: found.row.scan))
    return replace(source, scans=ordered, notes=(*source.notes, *notes))


def _sites_apart(scans: Sequence[Found]) -> tuple[list[Found], list[str]]:
    """Put the site before a subject's name where two sites have a subject of that name.

    They may be two people, or one who went to both: names keep them apart, and `kin` holds them
    in one split, which is right in either case.
    """
    sites: dict[str, set[str]] = defaultdict(set)
    for found in scans:
        sites[found.row.subject].add(found.row.site)
    clashing = {subject for subject, names in sites.items() if len(names - {""}) > 1}
    apart = []
    for found in scans:
        row = found.row
        if row.subject in clashing and row.site:
            prefix = label(row.site)
            row = replace(row, subject=f"{prefix}_{row.subject}", scan=f"{prefix}_{row.scan}")
            found = replace(found, row=row, kin=found.kin or f"id {found.row.subject}")
        apart.append(found)
    notes = [
        f"{len(clashing)} subject names stand at more than one site: the site was put before them, "
        "and each such name is held in one split"
    ]
    return apart, notes if clashing else []


def label(text: str) -> str:
    """Text as part of a name: letters, digits and "-"."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "x"
