"""One HTML page a subject, and one that lists the subjects. No script, no link to elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from medddpm.io import atomic_path, read_volume
from medddpm.io.outputs import file_stem, write_html
from medddpm.io.provenance import STATEMENT
from medddpm.io.sidecar import read_sidecar
from medddpm.report.checks import check_rows, short_words
from medddpm.report.cropped import crop
from medddpm.report.facts import ReportScan
from medddpm.report.html import (
    Flag,
    bullets,
    chips,
    fold,
    heading,
    html_page,
    link,
    paragraph,
    pictures,
    statement,
    table,
)
from medddpm.report.page import still_row, summary_of
from medddpm.workflows.reporting import scan_of

_PICTURES = (
    "Before and after at one window, by the percentiles of the tissue; removed is before \u2212 "
    "after, from \u22124 sigma (blue) to +4 sigma (orange)."
)


def write_subject_page(out: Path, subject: str, pairs: Sequence[tuple[Path, Path]]) -> Path:
    """Write `sub-LABEL.html`: each scan before and after, with what the checks found.

    Args:
        out: Root of the derivative.
        subject: Label without "sub-".
        pairs: (raw scan, denoised scan).
    """
    title = f"sub-{subject}: denoised scans"
    parts = [heading(title, 1), statement(STATEMENT), paragraph(_PICTURES)]
    for raw, denoised in pairs:
        parts += _section(out, raw, denoised)
    return _write(out / f"sub-{subject}.html", title, parts)


def write_index(out: Path, rows: Sequence[tuple[str, int, int, int]]) -> Path:
    """Write `index.html` with a row a subject, and a link to the page over all scans.

    Args:
        out: Root of the derivative.
        rows: (label, scans, flagged, failed), by label.
    """
    body = [
        [link(f"sub-{label}", f"sub-{label}.html"), *map(str, counts)] for label, *counts in rows
    ]
    parts = [
        heading("Denoised scans", 1),
        statement(STATEMENT),
        f"<p>{link('Numbers of all scans, outliers first', 'cohort.html')}</p>",
        table(["subject", "scans", "with an alarm", "failed"], body),
    ]
    return _write(out / "index.html", "Denoised scans", parts)


def _write(path: Path, title: str, parts: Sequence[str]) -> Path:
    with atomic_path(path) as partial:
        write_html(partial, html_page(title, parts))
    return path


def _section(out: Path, raw: Path, denoised: Path) -> list[str]:
    stem = file_stem(denoised)
    scan = _read(stem, raw, denoised)
    guard, shown = scan.frame_facts.guard, crop(scan)
    short = short_words(guard)
    told = [
        [(short.get(text, "see below"), text) for text in sentences]
        for sentences in (guard.messages, guard.notices)
    ]
    lines = [*map(Flag, guard.messages), *guard.notices]
    rows = [[r.name, r.value, r.allowed, _verdict(r.passed, r.tier)] for r in check_rows(guard)]
    page = denoised.with_name(f"{stem}.html")
    report = f"<p>{link('Report with a viewer', _relative(page, out))}</p>"
    return [
        heading(stem),
        f"<p>{chips(*told)}</p>" if lines else "",
        paragraph(summary_of(scan).text),
        bullets(lines) if lines else "",
        pictures(still_row(shown, shown.axis)),
        report if page.is_file() else "",
        fold("Checks", table(["check", "value", "usual", "verdict"], rows, words=2)),
    ]


def _read(stem: str, raw: Path, denoised: Path) -> ReportScan:
    facts = read_sidecar(denoised.with_name(f"{stem}.json"))
    before, after = (read_volume(path, trust=facts.run.trust) for path in (raw, denoised))
    return scan_of(stem, before, after, facts, frame=facts.shown_frame)


def _verdict(passed: bool | None, tier: str) -> str:
    if passed is False:
        return Flag(tier)
    return "as usual" if passed else "not judged"


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
