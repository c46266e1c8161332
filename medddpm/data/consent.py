"""The consent table: who may be trained on, and by what draws synthetic scans."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medddpm.data.manifest import ScanRow
from medddpm.data.private import Pseudonyms
from medddpm.data.sources import Found
from medddpm.errors import ConfigError
from medddpm.io.tables import read_table

_COLUMNS = ("subject", "state", "scope", "date")
_SCOPES = {"training", "all"}
_SYNTHETIC_SCOPES = {"synthetic", "all"}


@dataclass(frozen=True)
class Consent:
    """What one subject allowed.

    Attributes:
        state: As the table has it.
        covers_training: Whether the scope has training in it.
        covers_synthetic: Whether it has training what draws synthetic scans in it.
    """

    state: str
    covers_training: bool
    covers_synthetic: bool


def read_consent(path: Path) -> dict[str, Consent]:
    """The consent of each subject.

    A CSV with the columns subject, state ("yes", "no", "withdrawn" ...), scope (words such as
    "training", "synthetic" or "all", separated by ";") and date. Subjects are as in the source, or
    pseudonyms; "sub-" before them does not matter.

    Raises:
        ConfigError: A column is missing, or a subject is listed twice with different consent.
            Messages name lines and never a subject, who may be a patient ID.
    """
    found: dict[str, Consent] = {}
    lines: dict[str, int] = {}
    for line in read_table(path, _COLUMNS, "the consent table"):
        subject, state = plain_id(line["subject"]), line["state"].lower()
        words = {w for w in re.split(r"[;,/\s]+", line["scope"].lower()) if w}
        consent = Consent(state, bool(words & _SCOPES), bool(words & _SYNTHETIC_SCOPES))
        if found.setdefault(subject, consent) != consent:
            raise ConfigError(
                f"the consent table {path} contradicts itself: lines {lines[subject]} and "
                f"{line.number} are of one subject and differ; keep the one that holds"
            )
        lines.setdefault(subject, line.number)
    return found


def plain_id(subject: str) -> str:
    """A subject's id without the "sub-" of BIDS."""
    return subject.strip().removeprefix("sub-")


def consent_of(found: Found, table: dict[str, Consent], pseudonyms: Pseudonyms) -> Consent | None:
    """What the subject of a scan allowed; None if the table does not say.

    The table may have the source's own id, with or without its issuer, or the pseudonym.
    """
    own = found.original.rpartition("\\")[2]
    names = (found.original, own, pseudonyms.subject(found.original), found.row.subject)
    return next((table[n] for n in map(plain_id, names) if n in table), None)


def why_not(consent: Consent | None) -> str:
    """Why a scan may not be trained on, "" if it may."""
    if consent is None:
        return "not in the consent table"
    if consent.state != "yes":
        return "the consent table does not say yes"
    return "" if consent.covers_training else "the scope of the consent does not cover training"


def for_generators(rows: Iterable[ScanRow]) -> list[ScanRow]:
    """The scans that what draws synthetic scans may be trained on.

    All whose subject was not asked (no table was given) or allowed it.
    """
    return [row for row in rows if row.synthetic != "no" and row.consent in ("", "yes")]


def synthetic_counts(rows: Iterable[ScanRow]) -> dict[str, int]:
    """Scans by what their subjects said to synthetic scans, for the card of a generator."""
    return dict(sorted(Counter(row.synthetic or "not asked" for row in rows).items()))
