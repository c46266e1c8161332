"""The consent table: who may be trained on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from medddpm.data.private import Pseudonyms
from medddpm.data.sources import Found
from medddpm.errors import ConfigError
from medddpm.io.tables import read_table

_COLUMNS = ("subject", "state", "scope", "date")
_SCOPES = {"training", "all"}


@dataclass(frozen=True)
class Consent:
    """What one subject allowed: `state` as the table has it, and whether it covers training."""

    state: str
    covers_training: bool


def read_consent(path: Path) -> dict[str, Consent]:
    """The consent of each subject.

    A CSV with the columns subject, state ("yes", "no", "withdrawn" ...), scope (words such as
    "training" or "all", separated by ";") and date. Subjects are as in the source, or pseudonyms;
    "sub-" before them does not matter.

    Raises:
        ConfigError: A column is missing, or a subject is listed twice with different consent.
            Messages name lines and never a subject, who may be a patient ID.
    """
    found: dict[str, Consent] = {}
    lines: dict[str, int] = {}
    for line in read_table(path, _COLUMNS, "the consent table"):
        subject, state = plain_id(line["subject"]), line["state"].lower()
        words = {w for w in re.split(r"[;,/\s]+", line["scope"].lower()) if w}
        consent = Consent(state, bool(words & _SCOPES))
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


def why_not(found: Found, table: dict[str, Consent], pseudonyms: Pseudonyms) -> str:
    """Why a scan may not be trained on, "" if it may.

    The table may have the source's own id, with or without its issuer, or the pseudonym.
    """
    own = found.original.rpartition("\\")[2]
    names = (found.original, own, pseudonyms.subject(found.original), found.row.subject)
    consent = next((table[n] for n in map(plain_id, names) if n in table), None)
    if consent is None:
        return "not in the consent table"
    if consent.state != "yes":
        return "the consent table does not say yes"
    return "" if consent.covers_training else "the scope of the consent does not cover training"
