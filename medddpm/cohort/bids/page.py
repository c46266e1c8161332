"""One HTML page a subject, and one that lists the subjects. No script, no link to elsewhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from medddpm.io import atomic_path, read_volume
from medddpm.io.outputs import file_stem, write_html
from medddpm.io.provenance import STATEMENT
from medddpm.io.sidecar import Sidecar, read_sidecar

_STYLE = (
    "body{font:15px sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}"
    "img{max-width:100%}table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left;"
    "border-bottom:1px solid #ccc}.flag{color:#a00}"
)


def write_subject_page(out: Path, subject: str, pairs: Sequence[tuple[Path, Path]]) -> Path:
    """Write `sub-LABEL.html`: each scan before and after, with what the checks found.

    Args:
        out: Root of the derivative.
        subject: Label without "sub-".
        pairs: (raw scan, denoised scan).
    """
    title = f"sub-{html.escape(subject)}: denoised scans"
    parts = [_section(raw, denoised) for raw, denoised in pairs]
    return _write(out / f"sub-{subject}.html", title, parts)


def write_index(out: Path, rows: Sequence[tuple[str, int, int, int]]) -> Path:
    """Write `index.html` with a row a subject, and a link to the page over all scans.

    Args:
        out: Root of the derivative.
        rows: (label, scans, flagged, failed), by label.
    """
    lines = [
        f'<tr><td><a href="sub-{label}.html">sub-{label}</a></td>'
        f"<td>{scans}</td><td>{flagged}</td><td>{failed}</td></tr>"
        for label, scans, flagged, failed in rows
    ]
    head = "<tr><th>subject</th><th>scans</th><th>flagged</th><th>failed</th></tr>"
    table = f"<table>{head}{''.join(lines)}</table>"
    more = '<p><a href="cohort.html">Numbers of all scans, outliers first</a></p>'
    return _write(out / "index.html", "Denoised scans", [table, more])


def _write(path: Path, title: str, parts: Sequence[str]) -> Path:
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1><p>{STATEMENT}</p>{''.join(parts)}</html>\n"
    )
    with atomic_path(path) as partial:
        write_html(partial, page)
    return path


def _section(raw: Path, denoised: Path) -> str:
    facts = read_sidecar(denoised.parent / f"{file_stem(denoised)}.json")
    frame = facts.shown
    flags = "".join(f'<p class="flag">{html.escape(text)}</p>' for text in frame.guard.messages)
    return (
        f"<h2>{html.escape(file_stem(denoised))}</h2>"
        f"<p>Noise {frame.sigma.sigma:.4g} in scan units, {frame.sigma.fraction:.4f} "
        f"of the intensity scale; mode {facts.options['mode']}.</p>{flags}"
        '<img alt="before, after, difference" '
        f'src="data:image/png;base64,{_picture(raw, denoised, facts)}">'
    )


def _picture(raw: Path, denoised: Path, facts: Sidecar) -> str:
    """The middle slice before, after, and the difference at a fifth of the window."""
    trust, frame = facts.run.trust, facts.shown_frame
    before, after = read_volume(raw, trust=trust), read_volume(denoised, trust=trust)
    middle = before.data.shape[2] // 2
    a, b = before.frame(frame)[:, :, middle].T, after.frame(frame)[:, :, middle].T
    top = float(np.percentile(a, 99.5)) or 1.0
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    x, y, _ = before.spacing
    planes = ((a, 0, top, "before"), (b, 0, top, "after"), (a - b, -top / 5, top / 5, "difference"))
    for axes, (plane, low, high, name) in zip(figure.subplots(1, 3), planes, strict=True):
        axes.imshow(plane, cmap="gray", vmin=low, vmax=high, origin="lower", aspect=y / x)
        axes.set_title(name)
        axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")
