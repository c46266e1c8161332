"""Do a reconstruction again from its sidecar, and compare every byte."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medddpm.errors import CheckpointError, ConfigError, VolumeReadError
from medddpm.io import DicomOptions, checksum
from medddpm.io.outputs import NIFTI_SUFFIXES
from medddpm.io.provenance import machine, versions
from medddpm.model.model import find_weights, read_card
from medddpm.reconstruction.options import ReconstructOptions
from medddpm.restoration.options import RestoreOptions
from medddpm.workflows.reconstructing import KIND, reconstruct
from medddpm.workflows.replayed import Replay, changes


def reconstruction_facts(sidecar: Path) -> dict[str, Any] | None:
    """The sidecar of a reconstruction; None of any other file."""
    try:
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("kind") == KIND else None


def replay_reconstruction(
    sidecar: Path,
    facts: dict[str, Any],
    *,
    source: Path | None = None,
    weights: str | Path | None = None,
    device: str | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Replay:
    """Repeat a reconstruction in a folder that goes away, and compare its files.

    Args:
        sidecar: The .json beside the image.
        facts: Its content.
        source: The raw data, if it is no longer where the sidecar says.
        weights: The weights, likewise.
        device: Another device than that of the first run.
        on_progress: Called with the task, steps done and all steps.

    Raises:
        VolumeReadError: The raw data or the noise scan is gone or has changed, or the sidecar is
            damaged, or of another release.
        CheckpointError: The weights are others.
    """
    try:
        run, told, output = facts["run"], facts["input"], facts["output"]
        options = TypeAdapter(ReconstructOptions).validate_python(facts["options"])
        restore = TypeAdapter(RestoreOptions).validate_python(run["restore"])
        raw = _unchanged(sidecar, told["path"], told["sha256"], source, "--source")
        noise = run["noise_scan"]
        scan = None if noise is None else _unchanged(sidecar, noise["path"], noise["sha256"])
        before: dict[str, str] = output["files"]
        named = _weights(sidecar, facts, weights)
        phase, replicas = bool(run["phase"]), int(run["replicas"])
        is_dicom = run.get("format") == "dicom"
        dicom = TypeAdapter(DicomOptions).validate_python(run["dicom"]) if is_dicom else None
    except (KeyError, TypeError, ValidationError) as error:
        why = " ".join(str(error).split())
        raise VolumeReadError(
            f"{sidecar} is damaged, or of another release of medddpm: {why}"
        ) from None
    stem = sidecar.name.removesuffix(".json")
    suffix = next((s for s in NIFTI_SUFFIXES if f"{stem}{s}" in before), ".nii.gz")
    with tempfile.TemporaryDirectory(prefix="medddpm-") as folder:
        done = reconstruct(
            raw,
            folder if is_dicom else Path(folder) / f"{stem}{suffix}",
            options=options,
            restore=restore,
            weights=named,
            device=device or facts["device"],
            noise_scan=scan,
            phase=phase,
            replicas=replicas,
            format="dicom" if is_dicom else "nifti",
            dicom=dicom,
            on_progress=on_progress,
        )
        now = done.facts
    named = done.sidecar.name.removesuffix(".json")  # of raw data that may have been renamed
    files = {stem + name.removeprefix(named): sha for name, sha in now["output"]["files"].items()}
    other = [name for name in sorted({*before, *files}) if before.get(name) != files.get(name)]
    same_voxels = output["voxels_sha256"] == now["output"]["voxels_sha256"] and not other
    differences = [f"the bytes of {name} differ" for name in other]
    differences += changes(facts["versions"], versions(), "version of ")
    differences += changes(facts["machine"], machine(), "")
    differences += changes({"device": facts["device"]}, {"device": now["device"]}, "")
    return Replay(same_voxels, not other, differences)


def _unchanged(
    sidecar: Path, path: str, expected: str | None, given: Path | None = None, flag: str = ""
) -> Path:
    """A file that a sidecar names, which is what it was."""
    there = given or sidecar.parent / path
    base = there.with_suffix("") if there.suffix.lower() in (".cfl", ".hdr") else there
    data = base.with_name(f"{base.name}.cfl")
    data = data if data.is_file() else there
    if not data.is_file():
        advice = f"give {flag}" if flag else "put it back"
        raise VolumeReadError(f"what {sidecar.name} was made of is gone: {there}; {advice}")
    found = checksum([data])
    if found != expected:
        raise VolumeReadError(
            f"{there} is not what {sidecar.name} was made of, or has changed since: SHA-256 "
            f"{found}, expected {expected}"
        )
    return there


def _weights(sidecar: Path, facts: dict[str, Any], given: str | Path | None) -> str | Path:
    """The weights of the first run; any where it had none."""
    expected, named = facts["weights"], facts["run"]["weights"]
    if expected is None:
        return "default"
    if given is None:
        given = (sidecar.parent / named).resolve() if named.endswith(".safetensors") else named
    try:
        digest = read_card(find_weights(given))[1]
    except ConfigError as error:
        raise CheckpointError(f"{error}; give those of {sidecar.name} with --weights") from None
    if digest != expected:
        raise CheckpointError(
            f"the weights have SHA-256 {digest}, and {sidecar.name} was made with {expected}; give "
            "those with --weights"
        )
    return given
