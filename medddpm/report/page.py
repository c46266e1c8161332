"""A report as one HTML page that needs no other file and asks no network for anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from medddpm.io.frame_facts import FrameFacts, SigmaFacts
from medddpm.io.sidecar import IntervalFacts, ReferenceFacts, Sidecar
from medddpm.report.calibration import calibration_part, listed
from medddpm.report.chart import Axis, Series, chart
from medddpm.report.checks import check_rows
from medddpm.report.cropped import Cropped, crop
from medddpm.report.facts import Figure, ReportScan, decibels, measure
from medddpm.report.html import Picture, data_uri, render
from medddpm.report.planes import (
    CHANGE,
    LETTERS,
    PLANES,
    SPREAD,
    cut,
    plane_edges,
    png,
    shades,
    table_of,
    thumbnail,
    to_scale,
)
from medddpm.report.summary import Summary, bright_signal, percent, summarise
from medddpm.report.view import MAX_BYTES, pack_view
from medddpm.restoration.blank import BLANK

MAX_PAGE = 14_450_000
"""Bytes of a page but for its words and its noise map, which are less than half a million."""
_SIGMAS = 4
_BINS = 128
_MORE = "orange: brighter before"
_CARD = ("description", "intended_use", "out_of_scope", "limits")
_TABS = (
    ("compare", "Before and after"),
    ("removed", "Removed"),
    ("noise", "Noise map"),
    ("uncertainty", "Uncertainty"),
    ("reference", "Reference"),
    ("histogram", "Histogram"),
)


def report_page(scan: ReportScan, figures: Sequence[Figure] | None = None) -> str:
    """The page: a sentence, the pictures, numbers, checks and provenance.

    Names and texts are escaped, and a content security policy lets no other script run than that
    of the page, whose hash it holds.

    Args:
        scan: What is shown.
        figures: What `measure` found in it, if it was asked already.
    """
    figures = measure(scan) if figures is None else figures
    shown, frame, facts = crop(scan), scan.frame_facts, scan.facts
    rows = [still_row(shown, axis) for axis in _axes(shown)]
    left = MAX_PAGE - sum(len(p.source) for row in rows for p in row)
    view = pack_view(shown, scan.geometry, min(MAX_BYTES, max(left, 0) * 3 // 4))  # base64
    return render(
        "report.html",
        ["planes.js", "drawing.js", "viewer.js"],
        name=scan.name,
        frame=scan.frame,
        num_frames=len(facts.frames),
        version=facts.versions["medddpm"],
        time=facts.time,
        statement=facts.statement,
        summary=summary_of(scan),
        flags=list(frame.guard.messages),
        notices=list(frame.guard.notices),
        cards=_cards(scan, figures),
        tabs=_tabs(scan),
        axis=PLANES[shown.axis],
        windows=[window.name for window in shown.windows],
        bars=_bars(shown),
        unit=shown.unit,
        rows=rows,
        histogram=_histogram(shown),
        view_note=view.note,
        checks=check_rows(frame.guard),
        guard_calibrated=facts.guard_calibrated,
        calibration=calibration_part(facts, scan.card or {}, scan.frame),
        frames=[_frame_row(f) for f in facts.frames],
        origin=_origin(facts),
        options=facts.options,
        card=[(k, scan.card[k]) for k in _CARD if k in scan.card] if scan.card else [],
        whole_card=json.dumps(scan.card, indent=1) if scan.card else "",
        view=_script_json(view.content),
        planes=Markup("\n".join(view.planes)),
    )


def thumbnails(scan: ReportScan, size: int) -> tuple[str, str]:
    """Addresses of small pictures of a scan before and after, for the page over several.

    Args:
        scan: What is shown.
        size: Pixels of the longer side.
    """
    shown = crop(scan)
    before, after = (
        data_uri(thumbnail(shown.arrays[name], shown.spacing, shown.windows[0], size), "jpeg")
        for name in ("before", "after")
    )
    return before, after


def summary_of(scan: ReportScan) -> Summary:
    """The scan in one sentence."""
    frame = scan.frame_facts
    signal = bright_signal(scan.after, scan.geometry.spacing) if scan.sigma > 0 else None
    return summarise(frame.guard, scan.sigma, signal, blank=frame.blank)


def _tabs(scan: ReportScan) -> list[tuple[str, str]]:
    there = {
        "noise": scan.sigma > 0,
        "uncertainty": scan.std is not None,
        "reference": scan.reference is not None,
    }
    return [(name, label) for name, label in _TABS if there.get(name, True)]


def _axes(shown: Cropped) -> list[int]:
    """The axis that is looked along first, and then the others."""
    return [shown.axis, *(axis for axis in (2, 1, 0) if axis != shown.axis)]


def still_row(shown: Cropped, axis: int) -> list[Picture]:
    """Before, after and what was removed; a reference where there is one."""
    window, span = shown.windows[0], _SIGMAS * shown.spread
    images = {"Before": shown.arrays["before"], "After": shown.arrays["after"]}
    if "reference" in shown.arrays:
        images["Reference"] = shown.arrays["reference"]
    left, right, *_ = LETTERS[axis]

    def picture(label: str, image: Any, low: float, high: float, colours: Any = None) -> Picture:
        plane = to_scale(cut(image, axis, shown.middle[axis]), plane_edges(shown.spacing, axis))
        content = png(shades(plane, low, high), colours)
        words = f"{label}, {PLANES[axis]} plane through the middle of the scan"
        return Picture(data_uri(content), label, words, left, right)

    found = [picture(name, image, window.low, window.high) for name, image in images.items()]
    removed = picture("Removed: before \u2212 after", shown.removed, -span, span, CHANGE)
    return [*found[:2], removed, *found[2:]]


def _bars(shown: Cropped) -> list[tuple[str, Markup, str, str, str]]:
    """Of each colour bar its name, its colours as CSS, its ends and its unit."""
    window = shown.windows[0]
    top = float(np.percentile(shown.arrays["std"], 99.5)) if "std" in shown.arrays else 1.0
    return [
        ("scan", Markup("#000, #fff"), f"{window.low:.4g}", f"{window.high:.4g}", "scan units"),
        ("change", _css(CHANGE), f"\u2212{_SIGMAS}", f"+{_SIGMAS}", f"{shown.unit}; {_MORE}"),
        ("noise", _css(SPREAD), "0", "2", "times the noise that was assumed"),
        ("spread", _css(SPREAD), "0", f"{top:.3g}", "scan units"),
    ]


def _css(colours: Any) -> Markup:
    picked = table_of(colours)[:: 255 // 15]
    return Markup(", ".join("#{:02x}{:02x}{:02x}".format(*map(int, c)) for c in picked))


def _histogram(shown: Cropped) -> Markup:
    """How often each intensity is there, before and after, and how what was removed is spread."""
    low, width = shown.windows[0].low, 1.2 * (shown.windows[0].high - shown.windows[0].low) / _BINS
    if width > 1:  # of whole numbers, each bin holds as many
        low, width = np.floor(low) - 0.5, np.ceil(width)
    edges = low + width * np.arange(_BINS + 1)
    high = float(edges[-1])
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    counts = [
        100 * np.histogram(shown.arrays[name], edges)[0] / shown.arrays[name].size
        for name in ("before", "after")
    ]
    tissue = np.array(middles) > low + 0.15 * (high - low)  # the peak of the air dwarfs the others
    top = 1.15 * max(float(c[tissue].max()) for c in counts) or 1.0
    scans = chart(
        "Intensities",
        [
            Series("before", middles, np.minimum(counts[0], top).tolist(), style="steps", colour=5),
            Series("after", middles, np.minimum(counts[1], top).tolist(), style="steps"),
        ],
        Axis("intensity, scan units", float(low), high),
        Axis("voxels of the box, %", 0, top),
        words="Histogram of the intensities before and after",
    )
    return scans + _removed_histogram(shown)


def _removed_histogram(shown: Cropped) -> Markup:
    edges = np.linspace(-5, 5, _BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    inside = shown.arrays["after"] > 0.15 * shown.windows[0].high
    removed = shown.removed[inside] / shown.spread
    share = 100 * np.histogram(removed, edges)[0] / max(removed.size, 1)
    bell = 100 * (edges[1] - edges[0]) * np.exp(-np.square(middles) / 2) / np.sqrt(2 * np.pi)
    return chart(
        "What was removed, in tissue",
        [
            Series("removed", middles.tolist(), share.tolist(), style="steps", colour=1),
            Series("noise assumed", middles.tolist(), bell.tolist(), style="dashed", colour=5),
        ],
        Axis(f"before \u2212 after, {shown.unit}", -5, 5),
        Axis("voxels of the tissue, %", 0),
        words="Histogram of what was removed, beside a normal distribution",
    )


def _cards(scan: ReportScan, figures: Sequence[Figure]) -> list[tuple[str, str, str]]:
    frame = scan.frame_facts
    sigma = frame.sigma
    cards = [
        (
            "Noise, sigma",
            f"{sigma.sigma:.3g}",
            f"scan units; {percent(sigma.fraction)} of the intensity scale, {_how(sigma)}",
        ),
    ]
    for f in figures:
        cards.append((f.label, f"{f.text(f.before)} \u2192 {f.text(f.after)}", f.note))
    limit = "PSNR of the scan passed through the autoencoder alone: no restoration comes closer"
    cards.append(("Fidelity limit of the model", decibels(frame.vae_ceiling_db), limit))
    seconds = f"on {scan.facts.device}, all frames"
    return [*cards, ("Time", _seconds(scan.facts.seconds), seconds)]


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def _how(sigma: SigmaFacts) -> str:
    method = sigma.method
    known = {"given": "as given", "none": "no noise to be seen"}
    error = f" \u00b1 {100 * sigma.error:.0f} %" if np.isfinite(sigma.error) else ""
    return known.get(method, f"estimated from the {method}{error}")


def _frame_row(frame: FrameFacts) -> dict[str, str]:
    messages = frame.guard.messages
    return {
        "sigma": f"{frame.sigma.sigma:.3g}",
        "ceiling": decibels(frame.vae_ceiling_db).removesuffix(" dB"),
        "flags": BLANK if frame.blank else "; ".join(messages) or "no alarm",
    }


def _origin(facts: Sidecar) -> list[tuple[str, str]]:
    source, weights = facts.input, facts.weights
    rows = {
        "Input, SHA-256": source.sha256,
        "Input": f"{source.case_id} ({source.format}, {source.num_files} file(s))",
        "Grid": f"{source.shape} voxels of {source.spacing_mm} mm, {source.orientation}",
        "Weights": weights.name,
        "Weights, SHA-256": weights.sha256,
        "Seed": facts.options["seed"],
        "Mode": facts.options["mode"],
        "90 % interval": _interval(facts.interval),
        "Frames": "" if facts.series is None else facts.series.words(len(facts.frames)),
        "Second contrast": _reference(facts.reference),
        "Restored at": facts.time,
        "Versions": ", ".join(f"{k} {v}" for k, v in facts.versions.items()),
        "Machine": ", ".join(f"{k} {v}" for k, v in facts.machine.items()),
    }
    return [(label, str(value)) for label, value in rows.items() if value not in (None, "")]


def _reference(facts: ReferenceFacts | None) -> str:
    """Which scan helped; "" where none did."""
    if facts is None:
        return ""
    return f"{facts.case_id}, SHA-256 {facts.sha256}"


def _interval(facts: IntervalFacts | None) -> str:
    """What stands behind the interval of an ensemble; "" where there is none."""
    if facts is None:
        return ""
    if not facts.calibrated:
        return "not calibrated: expect it to be too narrow"
    other = facts.calibrated_for_other_options
    return f"calibrated, but for {listed(other)}" if other else "calibrated"


def _script_json(content: Mapping[str, Any]) -> Markup:
    """JSON that cannot end the script element that holds it."""
    return Markup(json.dumps(content, allow_nan=False).replace("<", "\\u003c"))
