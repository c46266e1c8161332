"""What a restoration leaves on the disk: the scan, its maps, its sidecar and its pages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medddpm.io import DicomOptions, NumberType, Quantity, Trust, write_volume
from medddpm.io.outputs import OutputFormat, Target, staged, write_html
from medddpm.io.provenance import (
    STATEMENT,
    describe_input,
    input_path,
    machine,
    now,
    output_checksum,
    relative_path,
    versions,
    voxel_checksum,
)
from medddpm.io.sidecar import (
    SCHEMA_VERSION,
    OutputFacts,
    PhaseFacts,
    RunFacts,
    Sidecar,
    write_sidecar,
)
from medddpm.model.model import find_weights
from medddpm.restoration.restorer import Restored
from medddpm.volume import Volume
from medddpm.workflows.noise_files import NoiseFiles
from medddpm.workflows.number_type import in_type, type_of
from medddpm.workflows.reference_files import GivenReference
from medddpm.workflows.restored_scan import RestoredScan

MAPS: tuple[Quantity, ...] = ("std", "lower", "upper")
PHASE = "part-phase"
"""As BIDS calls it; the scan itself is the magnitude."""


@dataclass(frozen=True)
class Run:
    """How a scan was read and is written.

    Attributes:
        format: Of the output.
        force: Whether other modalities than MR were taken.
        trust: "sform" or "qform", if that was said.
        weights: A shipped name or a weights file.
        dicom: How DICOM is written.
        card: That of the weights, if a page is wanted.
        home: Where the outputs end up, if they are moved from where they are written.
        dtype: Number type of the scan in NIfTI.
        noise: Files that say what is known of the noise.
        overwrite: Whether outputs that exist are replaced.
        report: Whether each scan gets an HTML report.
        phase: Where the phase of the scan came from, if it has one.
        reference: Another contrast that helps, if there is one.
    """

    format: OutputFormat
    force: bool
    trust: Trust | None
    weights: str | Path
    dicom: DicomOptions
    card: dict[str, Any] | None
    home: Path | None = None
    dtype: NumberType = "float32"
    noise: NoiseFiles = field(default_factory=NoiseFiles)
    overwrite: bool = False
    report: bool = False
    phase: PhaseFacts | None = None
    reference: GivenReference | None = None


def write_restored(restored: Restored, volume: Volume, target: Target, run: Run) -> RestoredScan:
    """Write the scan, its maps, its sidecar and the pages that were asked for, all together."""
    maps = maps_of(restored)
    restored, rounding = in_type(restored, volume, run.dtype)
    facts = _facts(restored, volume, target, run)
    if rounding:
        facts = facts.model_copy(update={"rounding": rounding})
    with staged(target.folder) as folder:
        place = replace(target, folder=folder)
        write_images(restored, volume, place, facts, run.format, run.dicom)
        output = OutputFacts(
            voxels_sha256=voxel_checksum(restored.volume),
            maps_sha256={name: voxel_checksum(value) for name, value in maps.items()},
            maps={name: place.part(name).name for name in maps},
            files={path.name: output_checksum(path) for path in sorted(folder.iterdir())},
        )
        facts = facts.model_copy(update={"output": output})
        if run.card is not None:
            # it draws, which takes a while to import
            from medddpm.report.page import report_page
            from medddpm.workflows.reporting import scan_of

            scan = scan_of(
                target.stem,
                volume,
                restored.volume,
                facts,
                std=restored.std,
                frame=facts.shown_frame,
            )
            write_html(place.html, report_page(replace(scan, card=run.card)))
        write_sidecar(folder / target.sidecar.name, facts)
    return RestoredScan(
        target.image,
        target.sidecar,
        {name: target.part(name) for name in maps},
        facts,
        facts.messages,
        facts.notices,
        target.part("report") if run.format == "dicom" and run.dicom.report != "none" else None,
        target.html if run.card is not None else None,
    )


def maps_of(restored: Restored) -> dict[str, Volume]:
    """What a restoration has beside the scan: "std", "lower", "upper" of an ensemble, its phase."""
    known: dict[str, Volume | None] = {name: getattr(restored, name) for name in MAPS}
    known[PHASE] = restored.phase
    return {name: value for name, value in known.items() if value is not None}


def write_images(
    restored: Restored,
    volume: Volume,
    target: Target,
    facts: Sidecar,
    format: OutputFormat,
    dicom: DicomOptions,
) -> None:
    """Write the scan and its maps, and for DICOM the page that was asked for.

    The same input, options, weights and versions give the same bytes.

    Args:
        restored: The restoration.
        volume: The scan as it was.
        target: Where to.
        facts: The sidecar.
        format: Of the output.
        dicom: How DICOM is written.
    """
    if format == "dicom":
        # Here, because it brings the pictures of its page, for which a scan need not wait.
        from medddpm.workflows.dicom_outputs import write_dicom_outputs

        write_dicom_outputs(restored, volume, target, facts, dicom)
        return
    write_volume(restored.volume, target.image, stored=type_of(facts, volume))
    for name, value in maps_of(restored).items():
        write_volume(value, target.part(name))


def _facts(restored: Restored, volume: Volume, target: Target, run: Run) -> Sidecar:
    """The sidecar: all that is needed to do the same again."""
    path, home = find_weights(run.weights), run.home or target.folder
    source = path.stem if str(run.weights) == path.stem else relative_path(path, home)
    told = restored.facts.model_copy(
        update={"weights": restored.facts.weights.model_copy(update={"source": source})}
    )
    more: dict[str, Any] = {}
    given: dict[str, Any] = {"path": input_path(volume, home)}
    if run.phase is not None:
        given["phase"] = run.phase
    if run.noise.paths:
        more["noise_files"] = run.noise.facts(volume, home)
    if run.reference is not None:
        more["reference"] = run.reference.facts(home)
    return Sidecar(
        schema_version=SCHEMA_VERSION,
        statement=STATEMENT,
        time=now(),
        input=describe_input(volume).model_copy(update=given),
        run=RunFacts(
            format=run.format,
            force=run.force,
            trust=run.trust,
            dtype=run.dtype,
            dicom=run.dicom if run.format == "dicom" else None,
        ),
        **dict(told),
        versions=versions(),
        machine=machine(),
        **more,
    )
