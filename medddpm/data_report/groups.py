"""The groups that a data report sorts scans into, by what the manifest says of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from medddpm.data.manifest import ScanRow

NOT_SAID = "unknown"
NOT_READABLE = "not readable"

_AGES = {2: "0 to 1", 12: "2 to 11", 18: "12 to 17", 40: "18 to 39", 65: "40 to 64", 75: "65 to 74"}
"""First age that is above each group: children as ICH E11(R1) 2.3, older people as ICH E7."""
_OLDEST = "75 and over"
_OLDEST_AGE = 130
_EDGES = {1.05: "up to 1 mm", 2.05: "1 to 2 mm", 4.05: "2 to 4 mm"}
"""Largest voxel edge of each group in mm, with room for what scanners round."""
_THICKEST = "over 4 mm"


@dataclass(frozen=True)
class Variable:
    """One thing by which scans are told apart.

    Attributes:
        name: As in text: "largest voxel edge".
        group: The group of a scan.
        order: Groups that have an order of their own; others follow, largest first.
    """

    name: str
    group: Callable[[ScanRow], str]
    order: tuple[str, ...] = ()

    def sort_key(self, group: str, subjects: int) -> tuple[int, int, str]:
        """Where a group of so many subjects stands in a table; what is not known comes last."""
        if group in self.order:
            return self.order.index(group), 0, group
        last = group in (NOT_SAID, NOT_READABLE)
        return len(self.order) + last, -subjects, group


def age_group(row: ScanRow) -> str:
    """The group of an age in years; "not readable" for what is no age."""
    text = row.age.strip()
    if not text:
        return NOT_SAID
    try:
        age = float(text.removesuffix("+"))  # "90+": how data sets hide great ages
    except ValueError:
        return NOT_READABLE
    if not 0 <= age <= _OLDEST_AGE:
        return NOT_READABLE
    return next((label for above, label in _AGES.items() if age < above), _OLDEST)


def edge_group(row: ScanRow) -> str:
    """The group of the largest voxel edge: how thick the slices are."""
    if not row.spacing.strip():
        return NOT_SAID
    parts = re.split(r"[x ]+", row.spacing.strip())
    try:
        edge = max(float(part) for part in parts)
    except ValueError:
        return NOT_READABLE
    if not 0 < edge < float("inf"):
        return NOT_READABLE
    return next((label for largest, label in _EDGES.items() if edge <= largest), _THICKEST)


def _column(name: str) -> Callable[[ScanRow], str]:
    def group(row: ScanRow) -> str:
        return str(getattr(row, name)).strip() or NOT_SAID

    return group


CONTRAST = Variable("contrast", _column("contrast"))
VARIABLES = (
    Variable("sex", _column("sex"), ("F", "M", "O")),
    Variable("age", age_group, (*_AGES.values(), _OLDEST)),
    Variable("site", _column("site")),
    Variable("scanner", _column("scanner")),
    CONTRAST,
    Variable("largest voxel edge", edge_group, (*_EDGES.values(), _THICKEST)),
)
