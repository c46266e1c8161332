"""The consent table: who may be trained on."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from medddpm.errors import ConfigError

_COLUMNS = ("subject", "state", "scope", "date")
_SCOPES = {"training", "all"}


@dataclass(frozen=True)
class Consent:
    """What one subject allowed: `state` as the table has it, and whether it covers training."""

    state: str
    covers_training: bool

    @property
    def given(self) -> bool:
        """True if the scans of the subject may be used."""
        return self.state == "yes" and self.covers_training


def read_consent(path: Path) -> dict[str, Consent]:
    """The consent of each subject.

    A CSV with the columns subject, state ("yes", "no", "withdrawn" ...), scope (words such as
    "training" or "all", separated by ";") and date. Subjects are as in the source, or pseudonyms;
    "sub-" before them does not matter.

    Raises:
        ConfigError: A column is missing, or a subject is listed twice with different consent.
            Messages name lines and never a subject, who may be a patient ID.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            missing = set(_COLUMNS) - set(table.fieldnames or ())
            rows = [] if missing else [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the consent table {path} cannot be read: {error}") from None
    if missing:
        raise ConfigError(
            f"the consent table {path} has no column {', '.join(sorted(missing))}; it needs "
            f"{', '.join(_COLUMNS)}"
        )
    found: dict[str, Consent] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        subject = plain_id(row["subject"] or "")
        state = (row["state"] or "").strip().lower()
        words = {w for w in re.split(r"[;,/\s]+", (row["scope"] or "").lower()) if w}
        consent = Consent(state, bool(words & _SCOPES))
        if found.setdefault(subject, consent) != consent:
            raise ConfigError(
                f"the consent table {path} contradicts itself: lines {lines[subject]} and {line} "
                "are of one subject and differ; keep the one that holds"
            )
        lines.setdefault(subject, line)
    return found


def plain_id(subject: str) -> str:
    """A subject's id without the "sub-" of BIDS."""
    return subject.strip().removeprefix("sub-")
