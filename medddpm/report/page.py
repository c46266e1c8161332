"""A report as one HTML page that needs no other file and asks no network for anything."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from medddpm.io.frame_facts import FrameFacts, SigmaFacts
from medddpm.io.sidecar import IntervalFacts, Sidecar
from medddpm.report.calibration import calibration_part, listed
from medddpm.report.checks import check_rows
from medddpm.report.facts import Figure, ReportScan, decibels, measure
from medddpm.report.picture import comparison_picture
from medddpm.report.view import MAX_BYTES, pack_view
from medddpm.restoration.blank import BLANK

NIIVUE = "niivue-0.69.0.umd.js.gz"
MAX_PAGE = 14_500_000
"""Bytes of a page but for its words, which are a few tens of thousands; below 15 MB with them."""
_GRADIENT = "function Ti(B){"
_FOLDER = files("medddpm") / "report" / "files"
_SLIDERS = (
    ("x", "Left-right"),
    ("y", "Back-front"),
    ("z", "Down-up"),
    ("window", "Window"),
    ("level", "Level"),
    ("change", "Residual \u00b1"),
    ("swipe", "Swipe"),
)
_CARD = ("description", "intended_use", "out_of_scope", "limits")
_PANES = {
    "before": "Before",
    "after": "After",
    "residual": "Residual: before \u2212 after",
    "uncertainty": "Uncertainty: std",
    "reference": "Reference",
}


def report_page(scan: ReportScan, figures: Sequence[Figure] | None = None) -> str:
    """The page: verdict, numbers, viewer, static pictures, checks and provenance.

    Names and texts are escaped, and a content security policy lets no other script run than the
    two of the page, whose hashes it holds.

    Args:
        scan: What is shown.
        figures: What `measure` found in it, if it was asked already.
    """
    figures = measure(scan) if figures is None else figures
    niivue, script, picture = _niivue(), text("report.js"), _picture(scan)
    left = MAX_PAGE - len(niivue) - len(picture) - len(script)
    view = pack_view(scan, min(MAX_BYTES, max(left, 0) * 3 // 4))  # base64 adds a third
    frame = scan.frame_facts
    shown = ["before", "after", "residual"]
    shown += ["uncertainty"] if scan.std is not None else []
    shown += ["reference"] if scan.reference is not None else []
    content = template("report.html").render(
        name=scan.name,
        policy=policy(niivue, script),
        css=Markup(text("report.css")),
        frame=scan.frame,
        num_frames=len(scan.facts.frames),
        version=scan.facts.versions["medddpm"],
        time=scan.facts.time,
        statement=scan.facts.statement,
        flags=frame.guard.messages,
        notices=frame.guard.notices,
        cards=_cards(scan, figures),
        sliders=_SLIDERS,
        panes=[(name, _PANES[name]) for name in shown],
        view_note=view.note,
        picture=picture,
        picture_alt="Sagittal, coronal and axial plane through the middle of the scan: "
        + ", ".join(_PANES[name].lower() for name in shown),
        picture_note="Planes through the middle of the foreground, from the whole scan.",
        checks=check_rows(frame.guard),
        guard_calibrated=scan.facts.guard_calibrated,
        calibration=calibration_part(scan.facts, scan.card or {}, scan.frame),
        frames=[_frame_row(f) for f in scan.facts.frames],
        origin=_origin(scan.facts),
        options=scan.facts.options,
        card=[(k, scan.card[k]) for k in _CARD if k in scan.card] if scan.card else [],
        whole_card=json.dumps(scan.card, indent=1) if scan.card else "",
        view=_script_json(view.content),
        niivue=Markup(niivue),
        script=Markup(script),
    )
    return str(content)


def _cards(scan: ReportScan, figures: Sequence[Figure]) -> list[tuple[str, str, str]]:
    frame = scan.frame_facts
    sigma = frame.sigma
    cards = [
        (
            "Noise, sigma",
            f"{sigma.sigma:.4g}",
            f"in scan units; {sigma.fraction:.4f} of the intensity scale, {_how(sigma)}",
        ),
        (
            "VAE ceiling",
            decibels(frame.vae_ceiling_db),
            "PSNR of the autoencoder's round trip: the most that latents can hold",
        ),
    ]
    for f in figures:
        cards.append((f.label, f"{f.text(f.before)} \u2192 {f.text(f.after)}", f.note))
    seconds = f"on {scan.facts.device}, all frames"
    return [*cards, ("Time", f"{scan.facts.seconds:.1f} s", seconds)]


def _how(sigma: SigmaFacts) -> str:
    method = sigma.method
    known = {"given": "as given", "none": "no noise to be seen"}
    return known.get(method, f"estimated from the {method}")


def _frame_row(frame: FrameFacts) -> dict[str, str]:
    return {
        "sigma": f"{frame.sigma.sigma:.4g}",
        "ceiling": decibels(frame.vae_ceiling_db).removesuffix(" dB"),
        "flags": BLANK if frame.blank else "; ".join(frame.guard.messages) or "no flag",
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
        "Restored at": facts.time,
        "Versions": ", ".join(f"{k} {v}" for k, v in facts.versions.items()),
        "Machine": ", ".join(f"{k} {v}" for k, v in facts.machine.items()),
    }
    return [(label, str(value)) for label, value in rows.items() if value not in (None, "")]


def _interval(facts: IntervalFacts | None) -> str:
    """What stands behind the interval of an ensemble; "" where there is none."""
    if facts is None:
        return ""
    if not facts.calibrated:
        return "not calibrated: expect it to be too narrow"
    other = facts.calibrated_for_other_options
    return f"calibrated, but for {listed(other)}" if other else "calibrated"


def _picture(scan: ReportScan) -> str:
    file = io.BytesIO()
    comparison_picture(
        file,
        [scan.before, scan.after, *([] if scan.reference is None else [scan.reference])],
        spacing=scan.geometry.spacing,
        orientation=scan.geometry.orientation,
        sigma=scan.sigma or None,
        std=scan.std,
    )
    return base64.b64encode(file.getvalue()).decode("ascii")


def policy(*scripts: str) -> str:
    """A content security policy: these scripts, inline styles, pictures of the page; no network."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _script_json(content: Mapping[str, Any]) -> Markup:
    """JSON that cannot end the script element that holds it."""
    return Markup(json.dumps(content, allow_nan=False).replace("<", "\\u003c"))


@cache
def _niivue() -> str:
    """The viewer's script, less the gradients that it computes for 3D rendering.

    A report renders none, and without a GPU they take most of the time of each change of window.
    """
    script = gzip.decompress((_FOLDER / NIIVUE).read_bytes()).decode("utf-8")
    assert script.count(_GRADIENT) == 1, "another build of NiiVue has another such function"
    script = script.replace(_GRADIENT, f"{_GRADIENT}return null;")
    return script.replace("</script", "<\\/script")


@cache
def text(name: str) -> str:
    """A file of the pages' folder."""
    return (_FOLDER / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def template(name: str) -> Template:
    """A template of the pages' folder; all that goes in is escaped."""
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(text(name))
