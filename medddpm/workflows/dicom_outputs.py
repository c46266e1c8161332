"""What a restoration leaves in the study of a DICOM scan: a derived series, maps, a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from medddpm.io import DicomOptions, Quantity, write_dicom, write_dicom_page, write_parametric_map
from medddpm.io.outputs import Target
from medddpm.report.facts import decibels
from medddpm.report.picture import comparison_figure
from medddpm.report.sheet import pdf_of, report_page, rgb_of
from medddpm.restoration.blank import shown_frame
from medddpm.restoration.restorer import Restored
from medddpm.volume import Volume


def write_dicom_outputs(
    restored: Restored,
    maps: Mapping[Quantity, Volume],
    source: Volume,
    target: Target,
    facts: Mapping[str, Any],
    options: DicomOptions,
) -> None:
    """Write the series, a Parametric Map for each map, and the report page if it is wanted.

    Args:
        restored: The restoration.
        maps: "std", "lower", "upper" of an ensemble.
        source: The scan as it was.
        target: Where to.
        facts: The report.
        options: Kind of objects, encoding, page.
    """
    write_dicom(restored.volume, target.image, facts=facts, options=options)
    for name, value in maps.items():
        write_parametric_map(value, target.part(name), quantity=name, facts=facts)
    if options.report != "none":
        page = _page(restored, source, facts)
        write_dicom_page(
            restored.volume,
            target.part("report"),
            pdf_of(page) if options.report == "pdf" else rgb_of(page),
            facts=facts,
            transfer_syntax=options.transfer_syntax,
        )


def _page(restored: Restored, source: Volume, facts: Mapping[str, Any]) -> Any:
    """The page of the first frame that is not blank; it names neither patient nor date."""
    shown = shown_frame(facts)
    picture = comparison_figure(
        source.frame(shown),
        restored.volume.frame(shown),
        spacing=source.spacing,
        orientation=source.geometry.orientation,
        sigma=float(facts["frames"][shown]["sigma"]["sigma"]),
    )
    return report_page(picture, f"Restoration of {source.case_id}", report_lines(facts))


def report_lines(facts: Mapping[str, Any]) -> list[str]:
    """The report in words: scan, noise, guard, settings, provenance."""
    given, frames, weights = facts["input"], facts["frames"], facts["weights"]
    shown, options = shown_frame(facts), facts["options"]
    first = frames[shown]
    flags = list(dict.fromkeys(text for f in frames for text in f["guard"]["messages"]))
    shape = " x ".join(str(n) for n in given["shape"])
    spacing = " x ".join(f"{s:.3g}" for s in given["spacing_mm"])
    sigma = first["sigma"]
    # of a sidecar, what is no number is null
    values = {c["name"]: c["value"] for c in first["guard"]["checks"]}
    checks = ", ".join(f"{k} {math.nan if v is None else v:.3g}" for k, v in values.items())
    settings = ", ".join(f"{key} {value}" for key, value in options.items() if value is not None)
    versions = ", ".join(f"{key} {value}" for key, value in facts["versions"].items())
    return [
        facts["statement"],
        "",
        f"Scan: {shape} voxels of {spacing} mm, {given['orientation']}",
        f"Noise: sigma {sigma['sigma']:.4g} in scan units, {sigma['fraction']:.4f} of the "
        f"intensity scale, from {sigma['method']}; frame {shown + 1} of {len(frames)} is shown",
        f"Guard: {'nothing was flagged' if not flags else 'LOOK AT THIS SCAN'}; {checks}",
        *(f"  {text}" for text in flags),
        f"VAE ceiling: {decibels(first['vae_ceiling_db'])}",
        f"Settings: {settings}",
        f"Model: {weights['name']} {weights['sha256']}",
        f"Input: {given['num_files']} files, sha256 {given['sha256']}",
        f"Software: {versions}",
    ]
