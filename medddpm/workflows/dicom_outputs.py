"""What a restoration leaves in the study of a DICOM scan: a derived series, maps, a page."""

from __future__ import annotations

from typing import Any, get_args

from medddpm.io import DicomOptions, Quantity, write_dicom, write_dicom_page, write_parametric_map
from medddpm.io.outputs import Target
from medddpm.io.sidecar import Sidecar
from medddpm.report.facts import decibels
from medddpm.report.picture import comparison_figure
from medddpm.report.sheet import pdf_of, report_page, rgb_of
from medddpm.restoration.restorer import Restored
from medddpm.volume import Volume


def write_dicom_outputs(
    restored: Restored,
    source: Volume,
    target: Target,
    facts: Sidecar,
    options: DicomOptions,
) -> None:
    """Write the series, a Parametric Map for each map, and the report page if it is wanted.

    Args:
        restored: The restoration.
        source: The scan as it was.
        target: Where to.
        facts: The report.
        options: Kind of objects, encoding, page.
    """
    write_dicom(restored.volume, target.image, facts=facts, options=options)
    for name in get_args(Quantity):
        value = getattr(restored, name)
        if value is not None:
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


def _page(restored: Restored, source: Volume, facts: Sidecar) -> Any:
    """The page of the first frame that is not blank; it names neither patient nor date."""
    shown = facts.shown_frame
    picture = comparison_figure(
        [source.frame(shown), restored.volume.frame(shown)],
        spacing=source.spacing,
        orientation=source.geometry.orientation,
        sigma=facts.shown.sigma.sigma,
    )
    return report_page(picture, f"Restoration of {source.case_id}", report_lines(facts))


def report_lines(facts: Sidecar) -> list[str]:
    """The report in words: scan, noise, guard, settings, provenance."""
    given, first, weights = facts.input, facts.shown, facts.weights
    flags, sigma = facts.messages, first.sigma
    shape = " x ".join(str(n) for n in given.shape)
    spacing = " x ".join(f"{s:.3g}" for s in given.spacing_mm)
    checks = ", ".join(f"{c.name} {c.value:.3g}" for c in first.guard.checks)
    told = {key: value for key, value in facts.options.items() if value is not None}
    settings = ", ".join(f"{key} {value}" for key, value in told.items())
    versions = ", ".join(f"{key} {value}" for key, value in facts.versions.items())
    return [
        facts.statement,
        "",
        f"Scan: {shape} voxels of {spacing} mm, {given.orientation}",
        f"Noise: sigma {sigma.sigma:.4g} in scan units, {sigma.fraction:.4f} of the intensity "
        f"scale, from {sigma.method}; frame {facts.shown_frame + 1} of {len(facts.frames)} is "
        "shown",
        f"Guard: {'nothing was flagged' if not flags else 'LOOK AT THIS SCAN'}; {checks}",
        *(f"  {text}" for text in flags),
        f"Fidelity limit of the model: {decibels(first.vae_ceiling_db)}",
        f"Settings: {settings}",
        f"Model: {weights.name} {weights.sha256}",
        f"Input: {given.num_files} files, sha256 {given.sha256}",
        f"Software: {versions}",
    ]
