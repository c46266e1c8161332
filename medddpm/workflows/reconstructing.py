"""Raw data to an image, from file to file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from medddpm.errors import ConfigError
from medddpm.io import (
    DicomOptions,
    Quantity,
    checksum,
    write_dicom,
    write_volume,
)
from medddpm.io.dicom_series import RECONSTRUCTED, Algorithm, Work
from medddpm.io.outputs import (
    OutputFormat,
    Target,
    check_targets,
    plan_targets,
    staged,
    write_html,
    write_json,
)
from medddpm.io.provenance import (
    STATEMENT,
    machine,
    now,
    output_checksum,
    relative_path,
    versions,
    voxel_checksum,
)
from medddpm.io.raw import read_noise, read_raw
from medddpm.io.raw_identity import check_identity, identified
from medddpm.io.raw_scan import RawScan
from medddpm.model.model import find_weights
from medddpm.reconstruction.options import ReconstructOptions
from medddpm.reconstruction.prior import Prior
from medddpm.reconstruction.scan import MakePrior, Reconstructed, reconstruct_scan
from medddpm.report.reconstruction import reconstruction_page
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Volume

KIND = "reconstruction"
"""What its sidecar calls itself, so that `replay` tells it from that of a restoration."""


@dataclass(frozen=True)
class ReconstructedScan:
    """What was written.

    Attributes:
        image: NIfTI file of the magnitude, or the folder of its DICOM files.
        phase: NIfTI file of the phase, if it was asked for.
        g_factor: NIfTI file of the g-factor, if it was asked for.
        sidecar: JSON report.
        facts: Its content.
        maps: NIfTI files of the spread and the interval of an ensemble.
        page: HTML report, if it was asked for.
    """

    image: Path
    phase: Path | None
    g_factor: Path | None
    sidecar: Path
    facts: dict[str, Any] = field(repr=False)
    maps: list[Path] = field(default_factory=list)
    page: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """All images, and the page, that were written."""
        found = (self.image, self.phase, self.g_factor, *self.maps, self.page)
        return [path for path in found if path is not None]

    @property
    def check(self) -> str:
        """How well what was held out is predicted, the worst of the frames; "" if nothing was."""
        found = [frame["held_out"] for frame in self.facts["frames"] if "held_out" in frame]
        if not found:
            return ""
        worst = max(found, key=lambda one: float(one["error_in_noise"]))
        more = " (the worst of the frames)" if len(found) > 1 else ""
        return (
            f"held-out k-space ({100 * worst['share']:.2g} % of the samples) is predicted within "
            f"{worst['error_in_noise']:.2f} of its noise{more}; 1 is noise alone"
        )

    @property
    def notices(self) -> list[str]:
        """What is to be known of the result, each sentence once."""
        found = [note for frame in self.facts["frames"] for note in frame.get("notices", [])]
        return list(dict.fromkeys(found))

    @property
    def interval(self) -> str:
        """What stands behind the interval of an ensemble; "" where there is none."""
        found = self.facts.get("interval")
        if found is None:
            return ""
        if not found["calibrated"]:
            return "the 90 % interval is not calibrated, as nothing was held out: it is too narrow"
        widths = ", ".join(f"{scale:.2f}" for scale in found["scales"])
        return f"the 90 % interval is the spread of the draws times {widths}, by what was held out"

    @property
    def summary(self) -> str:
        """One line: what was measured, how it was reconstructed, seconds."""
        options = self.facts["options"]
        mode = "" if options["mode"] == "mean" else f" ({options['mode']})"
        method = f"{options['method']}{mode}"
        return (
            f"{self.facts['input']['words']}; {method}, noise from {self.facts['noise']}; "
            f"{self.facts['seconds']:.1f} s on {self.facts['device']}"
        )


def reconstruct(
    raw: str | Path,
    output: str | Path,
    *,
    options: ReconstructOptions | None = None,
    restore: RestoreOptions | None = None,
    weights: str | Path = "default",
    device: str = "auto",
    noise_scan: str | Path | None = None,
    phase: bool = False,
    replicas: int = 0,
    report: bool = False,
    format: OutputFormat = "nifti",
    dicom: DicomOptions | None = None,
    overwrite: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> ReconstructedScan:
    """Write the image of a raw scan, with a sidecar beside it.

    Args:
        raw: ISMRMRD or fastMRI HDF5, BART cfl, or Siemens twix.
        output: A folder, or of NIfTI a .nii.gz file.
        options: Method and settings; the defaults if not given.
        restore: Tiles and memory of the networks.
        weights: A shipped name or a weights file; for method "ours".
        device: Where the networks run.
        noise_scan: Raw data without signal, in place of the scan's own noise readouts.
        phase: Write the phase too.
        replicas: Write a map of the g-factor too, from so many; 0 for none.
        report: Write an HTML page too, with the plain methods beside the result.
        format: Of the image; "dicom" is a derived series of the patient and study that the raw
            data name.
        dicom: How DICOM is written.
        overwrite: Replace outputs that exist.
        on_progress: Called with the task, steps done and all steps.

    Raises:
        VolumeReadError: The raw data cannot be read.
        ShapeError: It has no calibration lines, or the noise scan other coils.
        ConfigError: DICOM is asked for, and the raw data name no patient or no place, or there are
            maps to be written.
    """
    raw, options = Path(raw), options or ReconstructOptions()
    target = plan_targets([raw], output, format=format, label="desc-reconstructed")[0]
    wanted = {"phase": phase, "gfactor": replicas > 0}
    wanted |= dict.fromkeys(get_args(Quantity), options.mode == "ensemble")
    parts = [target.part(name) for name, is_wanted in wanted.items() if is_wanted]
    if format == "dicom":
        _check_dicom(parts, dicom or DicomOptions())
    inputs = [raw, *([Path(noise_scan)] if noise_scan is not None else [])]
    page = [target.html] if report else []
    check_targets(
        [target.image, target.sidecar, *parts, *page],
        overwrite=overwrite,
        inputs=inputs,
        folders=[target.image] if format == "dicom" else (),
    )
    noise = None if noise_scan is None else read_noise(noise_scan)
    scan = read_raw(raw)
    if format == "dicom":
        check_identity(scan)
    prior, used, digest = _prior(options, restore, weights, device)
    step = None if on_progress is None else _named(on_progress)
    done = reconstruct_scan(
        scan,
        options,
        make_prior=prior,
        noise=noise,
        replicas=replicas,
        compare=report,
        on_progress=step,
    )
    run = {
        "restore": asdict(restore or RestoreOptions()),
        "format": format,
        "dicom": asdict(dicom or DicomOptions()) if format == "dicom" else None,
        "phase": phase,
        "replicas": replicas,
        **_named_files(weights, noise_scan, target.folder),
    }
    facts = _sidecar(scan, raw, done, target) | {"run": run, "weights": digest, "device": used}
    magnitude = done.magnitude
    if format == "dicom":
        magnitude = identified(magnitude, scan, facts["input"]["sha256"])
    images = {target.image: magnitude}
    images |= {target.part("phase"): done.phase} if phase else {}
    images |= {} if done.g_factor is None else {target.part("gfactor"): done.g_factor}
    images |= {target.part(name): value for name, value in done.maps.items()}
    _write(target, images, facts, done if report else None, dicom)
    return ReconstructedScan(
        target.image,
        target.part("phase") if phase else None,
        target.part("gfactor") if replicas else None,
        target.sidecar,
        facts,
        [target.part(name) for name in done.maps],
        target.html if report else None,
    )


def _check_dicom(parts: list[Path], dicom: DicomOptions) -> None:
    if parts:
        raise ConfigError(
            "phase, g-factor and the maps of an ensemble are written as NIfTI alone; leave "
            "--format dicom out, or --phase, --g-factor and --mode ensemble"
        )
    if dicom.report != "none":
        raise ConfigError("dicom.report is a page of restore; --report writes one beside the image")


def page_of(name: str, done: Reconstructed, facts: dict[str, Any]) -> str:
    """The HTML page of a reconstruction; frame 0 is shown.

    Args:
        name: Of the result.
        done: Its images.
        facts: Its sidecar.
    """
    scans = {**done.others, facts["options"]["method"]: done.magnitude.frame(0)}
    spreads = {} if done.g_factor is None else {"g-factor": done.g_factor.frame(0)}
    if "std" in done.maps:
        spreads = {"std": done.maps["std"].frame(0), **spreads}
    return reconstruction_page(name, facts, scans, spreads, done.magnitude.geometry)


def _sidecar(scan: RawScan, raw: Path, done: Reconstructed, target: Target) -> dict[str, Any]:
    """What a reconstruction says of itself, but for how it was asked for."""
    return {
        "kind": KIND,
        "statement": STATEMENT,
        "time": now(),
        "input": {**describe_raw(scan), "path": relative_path(scan.source or raw, target.folder)},
        **done.facts,
        "units": "signal over the noise of a fully measured image",
        "versions": versions(),
        "machine": machine(),
        "output": {
            "voxels_sha256": voxel_checksum(done.magnitude),
            "maps": {name: target.part(name).name for name in done.maps},
        },
    }


def describe_raw(scan: RawScan) -> dict[str, Any]:
    """Identity of what was read: a checksum and the encoding; no names, no dates."""
    return {
        "case_id": scan.case_id,
        "format": scan.format,
        "sha256": checksum([scan.source]) if scan.source is not None else None,
        "samples": list(scan.kspace.shape),
        "words": scan.words,
        "image": list(scan.image_shape),
        "spacing_mm": [round(s, 6) for s in scan.spacing],
        "placed": scan.placed,
        "facts": scan.facts,
    }


def _prior(
    options: ReconstructOptions, restore: RestoreOptions | None, weights: str | Path, device: str
) -> tuple[MakePrior | None, str, str | None]:
    """What makes the denoiser, where it runs, and the digest of its weights."""
    if options.method != "ours":
        return None, "cpu", None
    restorer = Restorer.from_pretrained(find_weights(weights), device=device)
    used = restore or RestoreOptions()
    return (
        lambda spacing: Prior(restorer, spacing, used),
        str(restorer.device),
        restorer.model.digest,
    )


def _write(
    target: Target,
    images: dict[Path, Volume],
    facts: dict[str, Any],
    page: Reconstructed | None,
    dicom: DicomOptions | None,
) -> None:
    """All files or none; the checksums of the images go to facts."""
    with staged(target.folder) as folder:
        for path, image in images.items():
            if image.format == "raw":
                write_dicom(image, folder / path.name, options=dicom, work=_work(facts))
            else:
                write_volume(image, folder / path.name)
        sums = {path.name: output_checksum(folder / path.name) for path in images}
        facts["output"]["files"] = sums
        if page is not None:
            write_html(folder / target.html.name, page_of(target.stem, page, facts))
        write_json(folder / target.sidecar.name, facts)


def _work(facts: dict[str, Any]) -> Work:
    """What a derived series says of itself."""
    method, digest = facts["options"]["method"], facts["weights"]
    done = "reconstructed from k-space"
    if digest is None:
        return Work("reconstructed", f"{done} by {method}", RECONSTRUCTED, Algorithm())
    used = json.dumps(facts["options"], sort_keys=True)
    return Work("AI-reconstructed", done, RECONSTRUCTED, Algorithm(method, digest, used))


def _named_files(
    weights: str | Path, noise_scan: str | Path | None, folder: Path
) -> dict[str, Any]:
    """The weights, a shipped name or a path, and the noise scan, as seen from the sidecar."""
    path, noise = Path(weights), None
    named = relative_path(path, folder) if path.suffix or path.exists() else str(weights)
    if noise_scan is not None:
        scan = Path(noise_scan)
        files = [scan] if scan.is_file() else [scan.with_name(f"{scan.name}.cfl")]
        noise = {"path": relative_path(scan, folder), "sha256": checksum(files)}
    return {"weights": named, "noise_scan": noise}


def _named(on_progress: Callable[[str, int, int], None]) -> Callable[[int, int], None]:
    return lambda done, total: on_progress("reconstruct", done, total)
