"""The page of a reconstruction from raw data."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.report.html import (
    fold,
    heading,
    html_page,
    image,
    paragraph,
    statement,
    summary,
    table,
)
from medddpm.report.picture import panel_picture
from medddpm.volume import Geometry

Images = Mapping[str, NDArray[np.float32]]
_BADLY_PREDICTED = 1.5
"""Held-out error in units of the noise above which the page warns: anatomy is missing, or wrong."""


def reconstruction_page(
    name: str, facts: Mapping[str, Any], scans: Images, spreads: Images, geometry: Geometry
) -> str:
    """One HTML file: pictures, how well held-out data is predicted, facts, provenance.

    Args:
        name: Of the result.
        facts: Its sidecar.
        scans: (X, Y, Z) magnitudes of frame 0 by method; the last is the result.
        spreads: (X, Y, Z) "std" and "g-factor", where there are any.
        geometry: Of frame 0.
    """
    file = io.BytesIO()
    panel_picture(file, scans, spreads, spacing=geometry.spacing, orientation=geometry.orientation)
    shown = ", ".join([*scans, *spreads])
    parts = [
        heading(name, 1),
        statement(f"{facts['statement']} Reconstruction report, {_made(facts)}"),
        summary(_sentence(facts), _notices(facts)),
        image(file.getvalue(), f"Three planes through the middle of the scan: {shown}", fit=True),
        paragraph(f"Units: {facts['units']}. Planes through the middle of the foreground."),
        *_held_out(facts),
        heading("Raw data"),
        table(["", "value"], _raw(facts), words=1),
        heading("Frames"),
        table(["frame", "R", "coils", "calibration", "scale, noise"], _frames(facts["frames"])),
        fold("Provenance", table(["", "value"], _origin(facts), words=1)),
    ]
    return html_page(f"{name}: reconstruction report", parts)


def _made(facts: Mapping[str, Any]) -> str:
    return f"medddpm {facts['versions']['medddpm']}, {facts['time']}"


def _sentence(facts: Mapping[str, Any]) -> str:
    """What was done, and whether it can be trusted, in one sentence."""
    fastest = max(frame["acceleration"] for frame in facts["frames"])
    measured = "all of k-space" if fastest < 1.05 else f"one in {fastest:.1f} samples of k-space"
    errors = [f["held_out"]["error_in_noise"] for f in facts["frames"] if "held_out" in f]
    predicted = "nothing was held out to check it"
    if errors:
        predicted = f"held-out samples are predicted to {max(errors):.2f} times their noise"
    return f"Reconstructed from {measured} by {facts['options']['method']}; {predicted}."


def _notices(facts: Mapping[str, Any]) -> list[str]:
    found = [note for frame in facts["frames"] for note in frame.get("notices", [])]
    worst = max((f["held_out"]["error_in_noise"] for f in facts["frames"] if "held_out" in f),
                default=0.0)  # fmt: skip
    if worst > _BADLY_PREDICTED:
        found.append(
            f"Held-out k-space is mispredicted by {worst:.2f} of its noise: the image lacks, or "
            "invents, what was not measured. Look before use."
        )
    return list(dict.fromkeys(found))


def _held_out(facts: Mapping[str, Any]) -> list[str]:
    """The section on what was kept out; none where nothing was."""
    rows = []
    for frame in facts["frames"]:
        held = frame.get("held_out")
        if held is None:
            continue
        label, share = frame["frame"] or "all", f"{100 * held['share']:.2g} %"
        all_errors = {**held.get("error_of_others", {}),
                      facts["options"]["method"]: held["error_in_noise"]}  # fmt: skip
        rows += [[label, method, share, f"{error:.3f}"] for method, error in all_errors.items()]
    if not rows:
        return []
    words = "Samples that the image did not get, and predicts. 1 is noise alone."
    lines = [heading("Held-out k-space"), paragraph(words)]
    lines.append(table(["frame", "method", "of the samples", "error over noise"], rows))
    return lines


def _raw(facts: Mapping[str, Any]) -> list[list[str]]:
    source = facts["input"]
    rows = {
        "measurement": source["words"],
        "format": source["format"],
        "image": f"{source['image']} voxels of {source['spacing_mm']} mm",
        "place in space": "as measured" if source["placed"] else "unknown: about the origin",
        "noise from": facts["noise"],
        **{key.replace("_", " "): value for key, value in source["facts"].items()},
    }
    return [[label, str(value)] for label, value in rows.items()]


def _frames(frames: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            frame["frame"] or str(number),
            f"{frame['acceleration']:.2f}",
            str(frame["coils"]),
            " x ".join(map(str, frame["calibration"])),
            f"{frame['scale_in_noise']:.1f}",
        ]
        for number, frame in enumerate(frames)
    ]


def _origin(facts: Mapping[str, Any]) -> list[list[str]]:
    options = facts["options"]
    interval = facts.get("interval")
    rows = {
        "Method": options["method"] if options["mode"] == "mean"
        else f"{options['method']}, {options['mode']}",
        "90 % interval": "" if interval is None else "widened by held-out data, "
        f"{', '.join(map(str, interval['scales']))}" if interval["calibrated"]
        else "not calibrated: expect it to be too narrow",
        "Input, SHA-256": facts["input"]["sha256"],
        "Weights, SHA-256": facts["weights"],
        "Options": ", ".join(f"{k} {v}" for k, v in options.items() if v is not None),
        "Device": facts["device"],
        "Seconds": facts["seconds"],
        "Time": facts["time"],
        "Versions": ", ".join(f"{k} {v}" for k, v in facts["versions"].items()),
        "Machine": ", ".join(f"{k} {v}" for k, v in facts["machine"].items()),
    }  # fmt: skip
    return [[label, str(value)] for label, value in rows.items() if value not in (None, "")]
