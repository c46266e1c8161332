"""Restore a scan from file to file: read, restore, write, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from medddpm.display import mime_bundle
from medddpm.errors import ConfigError, VolumeReadError
from medddpm.io import (
    DicomOptions,
    OnError,
    Quantity,
    Trust,
    check_dicom,
    is_parametric_map,
    read_volume,
    read_volumes,
    write_volume,
)
from medddpm.restoration.model import find_weights
from medddpm.restoration.restorer import Restored, RestoreOptions, Restorer
from medddpm.volume import Volume
from medddpm.workflows.dicom_outputs import write_dicom_outputs
from medddpm.workflows.outputs import (
    OutputFormat,
    Target,
    check_targets,
    one_scan,
    plan_targets,
    staged,
    write_html,
    write_json,
)
from medddpm.workflows.provenance import (
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

OnProgress = Callable[[str, int, int], None]
MAPS: tuple[Quantity, ...] = ("std", "lower", "upper")


@dataclass(frozen=True)
class RestoredScan:
    """What was written for one scan.

    Attributes:
        image: NIfTI file or folder of DICOM files.
        sidecar: JSON report.
        maps: Name ("std", "lower", "upper") to NIfTI file or DICOM Parametric Map, for an ensemble.
        facts: The content of the report.
        flags: What a person should look at; empty if the guard passed.
        page: DICOM report page, if one was asked for.
        html: HTML report, if one was asked for.
    """

    image: Path
    sidecar: Path
    maps: dict[str, Path]
    facts: dict[str, Any]
    flags: list[str] = field(default_factory=list)
    page: Path | None = None
    html: Path | None = None

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """What Jupyter shows: the summary, flags and the scan."""
        ras = read_volume(self.image, force=True).to_ras()
        words = ". ".join([self.summary, *(f"Flagged: {flag}" for flag in self.flags)])
        return mime_bundle({self.image.name: ras.frame(0)}, ras.affine, words)

    @property
    def summary(self) -> str:
        """One line: noise level and VAE ceiling of the (first) frame, seconds, device."""
        frames = self.facts["frames"]
        sigma = frames[0]["sigma"]
        took = f"{self.facts['seconds']:.1f} s on {self.facts['device']}"
        if sigma["method"] == "none":
            return f"no noise to be seen; the output is the input; {took}"
        more = f" (frame 0 of {len(frames)})" if len(frames) > 1 else ""
        return (
            f"sigma {sigma['sigma']:.4g} in scan units, {sigma['fraction']:.4f} of the intensity "
            f"scale, from {sigma['method']}{more}; "
            f"VAE ceiling {frames[0]['vae_ceiling_db']:.1f} dB; {took}"
        )


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
    """

    format: OutputFormat
    force: bool
    trust: Trust | None
    weights: str | Path
    dicom: DicomOptions
    card: dict[str, Any] | None
    home: Path | None = None


def restore(
    source: str | Path,
    output: str | Path,
    *,
    options: RestoreOptions | None = None,
    weights: str | Path = "default",
    device: str = "auto",
    format: OutputFormat = "nifti",
    dicom: DicomOptions | None = None,
    overwrite: bool = False,
    force: bool = False,
    trust: Trust | None = None,
    report: bool = False,
    on_progress: OnProgress | None = None,
    on_error: OnError | None = None,
) -> list[RestoredScan]:
    """Restore every scan of a file or folder; each appears with its report, or not at all.

    Args:
        source: A NIfTI or DICOM file, or a folder of one or more DICOM series.
        output: A folder, or for one scan a .nii.gz file.
        options: How; the defaults if not given.
        weights: A shipped name or a weights file.
        device: "auto", "cpu", "cuda", "cuda:1".
        format: "dicom" writes a derived series a scan, in a folder of its own.
        dicom: How DICOM is written.
        overwrite: Replace outputs that exist.
        force: Take scans of another modality than MR.
        trust: "sform" or "qform", where those of a NIfTI file disagree.
        report: Write an HTML report beside each scan too.
        on_progress: Called with the task, steps done and all steps.
        on_error: Called with the error of each scan that cannot be read or restored, and the
            others are restored; without it the first error is raised.
    """
    source, output = Path(source), Path(output)
    options, dicom = options or RestoreOptions(), dicom or DicomOptions()
    volumes: list[Volume] = []
    for volume in read_volumes(source, force=force, trust=trust, on_error=on_error):
        with one_scan(volume, on_error):
            check_scan(volume)
            check_format(volume, format, dicom)
            volumes.append(volume)
    if not volumes:
        return []
    targets = plan_targets(volumes, output, format=format, label="desc-denoised")
    parts: list[str] = [*MAPS] if options.mode == "ensemble" else []
    if format == "dicom" and dicom.report != "none":
        parts.append("report")
    outputs = [path for target in targets for path in _paths(target, parts, report)]
    check_targets(outputs, overwrite=overwrite)
    restorer = Restorer.from_pretrained(weights, device=device)
    run = Run(format, force, trust, weights, dicom, restorer.model.card if report else None)
    done = []
    for number, (volume, target) in enumerate(zip(volumes, targets, strict=True), start=1):
        task = "restore" if len(volumes) == 1 else f"restore {number} of {len(volumes)}"
        step = _named(on_progress, task)
        with one_scan(volume, on_error):
            restored = restorer.restore(volume, options=options, on_progress=step)
            done.append(write_restored(restored, volume, target, run))
    return done


def check_scan(volume: Volume) -> None:
    """Refuse a Parametric Map, such as one of ours that came back with its study."""
    if is_parametric_map(volume):
        raise VolumeReadError("this is a Parametric Map, not a scan; there is nothing to restore")


def check_format(volume: Volume, format: OutputFormat, dicom: DicomOptions | None = None) -> None:
    """Refuse to derive DICOM from a scan that was not DICOM, not MR, or does not fit into it."""
    if format == "dicom" and volume.format != "dicom":
        raise ConfigError(
            "--format dicom derives a series from DICOM input, and this is none; restore to NIfTI, "
            "and `medddpm convert` makes DICOM of it"
        )
    if format == "dicom" and volume.modality not in ("", "MR"):
        raise ConfigError(
            f"--format dicom derives MR series, and this one is {volume.modality}; write NIfTI"
        )
    if format == "dicom":
        check_dicom(volume, dicom or DicomOptions())


def write_restored(restored: Restored, volume: Volume, target: Target, run: Run) -> RestoredScan:
    """Write the scan, its maps, its sidecar and the pages that were asked for, all together."""
    maps = maps_of(restored)
    facts = _facts(restored, volume, target, run)
    with staged(target.folder) as folder:
        place = replace(target, folder=folder)
        write_images(restored, volume, place, facts, run.format, run.dicom)
        facts["output"] = {
            "voxels_sha256": voxel_checksum(restored.volume),
            "maps_sha256": {name: voxel_checksum(value) for name, value in maps.items()},
            "maps": {name: place.part(name).name for name in maps},
            "files": {path.name: output_checksum(path) for path in sorted(folder.iterdir())},
        }
        if run.card is not None:
            # it draws, which takes a while to import
            from medddpm.evaluation.report_page import report_page
            from medddpm.workflows.reporting import scan_of

            scan = scan_of(
                target.stem, volume, restored.volume, facts, std=restored.std, card=run.card
            )
            write_html(place.html, report_page(scan))
        write_json(folder / target.sidecar.name, facts)
    return RestoredScan(
        target.image,
        target.sidecar,
        {name: target.part(name) for name in maps},
        facts,
        guard_flags(facts),
        target.part("report") if run.format == "dicom" and run.dicom.report != "none" else None,
        target.html if run.card is not None else None,
    )


def maps_of(restored: Restored) -> dict[Quantity, Volume]:
    """The maps that a restoration has: "std", "lower", "upper" of an ensemble."""
    known = {name: getattr(restored, name) for name in MAPS}
    return {name: value for name, value in known.items() if value is not None}


def write_images(
    restored: Restored,
    volume: Volume,
    target: Target,
    facts: dict[str, Any],
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
    maps = maps_of(restored)
    if format == "dicom":
        write_dicom_outputs(restored, maps, volume, target, facts, dicom)
        return
    write_volume(restored.volume, target.image)
    for name, value in maps.items():
        write_volume(value, target.part(name))


def guard_flags(facts: dict[str, Any]) -> list[str]:
    """What the guard found in any frame, each sentence once."""
    found: dict[str, None] = {}
    for frame in facts["frames"]:
        found |= dict.fromkeys(frame["guard"]["messages"])
    return list(found)


def _paths(target: Target, parts: Sequence[str], report: bool) -> list[Path]:
    html = [target.html] if report else []
    return [target.image, target.sidecar, *html, *(target.part(name) for name in parts)]


def _facts(restored: Restored, volume: Volume, target: Target, run: Run) -> dict[str, Any]:
    """The sidecar: all that is needed to do the same again."""
    path, home = find_weights(run.weights), run.home or target.folder
    source = path.stem if str(run.weights) == path.stem else relative_path(path, home)
    facts = {
        "statement": STATEMENT,
        "time": now(),
        "input": {**describe_input(volume), "path": input_path(volume, home)},
        "run": {
            "format": run.format,
            "force": run.force,
            "trust": run.trust,
            "dicom": asdict(run.dicom) if run.format == "dicom" else None,
        },
        **restored.facts,
        "versions": versions(),
        "machine": machine(),
    }
    facts["weights"] = {**facts["weights"], "source": source}
    return facts


def _named(on_progress: OnProgress | None, task: str) -> Callable[[int, int], None] | None:
    if on_progress is None:
        return None
    return lambda done, total: on_progress(task, done, total)
