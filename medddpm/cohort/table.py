"""What became of a cohort, as tables for a person and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medddpm.cohort.records import Outcome
from medddpm.io import atomic_path
from medddpm.io.outputs import write_json
from medddpm.io.provenance import versions
from medddpm.io.tables import write_table

COLUMNS = ("scan", "state", "error", "reason", "sigma", "seconds", "outputs", "checksum")


@dataclass(frozen=True)
class Counts:
    """How many scans are in which state."""

    total: int
    restored: int
    flagged: int
    failed: int
    skipped: int

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], total: int) -> Counts:
        """Count them; `skipped` counts those of restored and flagged that were done before."""
        states = Counter(outcome.state for outcome in outcomes)
        skipped = sum(1 for outcome in outcomes if outcome.skipped and outcome.is_done)
        return cls(total, states["restored"], states["flagged"], states["failed"], skipped)

    @property
    def unreached(self) -> int:
        """Scans that nothing is known of, since the run ended early."""
        return self.total - self.restored - self.flagged - self.failed


def write_tables(
    out: Path,
    outcomes: Sequence[Outcome],
    settings: Mapping[str, Any],
    left_out: Mapping[str, str] | None = None,
) -> tuple[Path, Path]:
    """Write `cohort.csv` and `cohort.json`, sorted by scan.

    Args:
        out: The folder.
        outcomes: What became of each scan.
        settings: Of all.
        left_out: Images that are no scans to restore, and why.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.scan)
    rows = [_row(outcome) for outcome in ordered]
    paths = out / "cohort.csv", out / "cohort.json"
    cells = ({**row, "outputs": ";".join(row["outputs"])} for row in rows)
    write_table(paths[0], COLUMNS, ([cell[name] for name in COLUMNS] for cell in cells))
    with atomic_path(paths[1]) as partial:
        content = {"settings": settings, "versions": versions(), "scans": rows}
        write_json(partial, {**content, "left_out": dict(left_out or {})})
    return paths


def summary(counts: Counts, outcomes: Sequence[Outcome]) -> str:
    """A few lines: how many scans are in which state, and why scans failed."""
    lines = [
        f"{'scans':<12}{counts.total:>7}",
        f"{'restored':<12}{counts.restored:>7}",
        f"{'flagged':<12}{counts.flagged:>7}",
        f"{'failed':<12}{counts.failed:>7}",
    ]
    if counts.skipped:
        lines.append(f"{'done before':<12}{counts.skipped:>7}   (among the restored and flagged)")
    if counts.unreached:
        lines.append(f"{'not reached':<12}{counts.unreached:>7}")
    errors = Counter(outcome.error for outcome in outcomes if outcome.state == "failed")
    lines += [f"  {count} x {error}" for error, count in errors.most_common()]
    return "\n".join(lines)


def _row(outcome: Outcome) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in COLUMNS}
