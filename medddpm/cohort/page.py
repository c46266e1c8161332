"""One page over a cohort, made of the sidecars alone: no scan is read for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medddpm.cohort.records import Outcome
from medddpm.errors import VolumeReadError
from medddpm.io import atomic_path
from medddpm.io.outputs import file_stem, write_html
from medddpm.io.results import read_result
from medddpm.report.group import GroupRow, Missing, group_page
from medddpm.workflows.reporting import link_to

NAME = "cohort.html"
_ADVICE = (
    "Names lead to the report of a scan where there is one, else to its sidecar. The command "
    "medddpm report, on this folder or on some of its scans, writes reports with a viewer."
)


def write_page(out: Path, outcomes: Sequence[Outcome], total: int) -> Path:
    """Write `cohort.html`: sortable numbers, distributions, outliers first, what failed and why.

    Args:
        out: Folder of the cohort.
        outcomes: What is known.
        total: Scans of the cohort.
    """
    path = out / NAME
    ordered = sorted(outcomes, key=lambda outcome: outcome.scan)
    rows = [row for outcome in ordered for row in _rows(out, path, outcome)]
    missing = [Missing(o.scan, f"{o.error}: {o.reason}") for o in ordered if o.state == "failed"]
    page = group_page(
        rows, missing=missing, num_unreached=total - len(ordered), advice=_ADVICE if rows else ""
    )
    with atomic_path(path) as partial:
        write_html(partial, page)
    return path


def _rows(out: Path, page: Path, outcome: Outcome) -> list[GroupRow]:
    """A row an output; without numbers where its sidecar has gone since."""
    rows = []
    for name in outcome.outputs:
        image = out / name
        stem = file_stem(image) if image.is_file() else image.name
        label = outcome.scan if len(outcome.outputs) == 1 else f"{outcome.scan}: {stem}"
        try:
            result = read_result(image.with_name(f"{stem}.json"))
        except VolumeReadError:
            flags = (outcome.reason,) if outcome.reason else ()
            rows.append(GroupRow(label, "", {}, flags))
            continue
        rows.append(GroupRow.of(label, link_to(result, page), result.facts, []))
    return rows
