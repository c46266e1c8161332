"""Do a restoration again from its sidecar, and compare."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from medddpm.errors import CheckpointError, ConfigError, MedddpmError, VolumeReadError
from medddpm.io import DicomOptions
from medddpm.io.outputs import NIFTI_SUFFIXES, OutputFormat, Target, plain
from medddpm.io.provenance import machine, output_checksum, versions, voxel_checksum
from medddpm.io.results import Result, find_complex_source, find_source, read_result
from medddpm.io.sidecar import OutputFacts
from medddpm.restoration.restorer import Restored, RestoreOptions, Restorer
from medddpm.volume import Volume
from medddpm.workflows.noise_files import recorded_map
from medddpm.workflows.number_type import in_type
from medddpm.workflows.reconstructing_again import reconstruction_facts, replay_reconstruction
from medddpm.workflows.reference_files import recorded_reference
from medddpm.workflows.replayed import Replay, changes
from medddpm.workflows.reporting import weights_of
from medddpm.workflows.restored_files import maps_of, write_images
from medddpm.workflows.restoring import OnProgress


def replay(
    sidecar: str | Path,
    *,
    source: str | Path | None = None,
    weights: str | Path | None = None,
    device: str | None = None,
    noise_map: str | Path | None = None,
    reference: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> Replay:
    """Repeat the restoration, or the reconstruction, of a sidecar; nothing is written.

    Args:
        sidecar: The .json beside a restored scan.
        source: The scan that was restored, if it is no longer where the sidecar says.
        weights: The weights, likewise.
        device: Another device than that of the first run.
        noise_map: The noise map, if it is no longer where the sidecar says.
        reference: The other contrast that helped, likewise.
        on_progress: Called with the task, steps done and all steps.

    Raises:
        VolumeReadError: The input is gone or has changed, or the sidecar cannot be replayed.
        ConfigError: A noise map was given for a reconstruction.
        CheckpointError: The weights are others.
    """
    sidecar = Path(sidecar)
    source = None if source is None else Path(source)
    told = reconstruction_facts(sidecar)
    if told is not None:
        if noise_map is not None or reference is not None:
            raise ConfigError(
                "--noise-map and --reference belong to restorations, and this is a reconstruction"
            )
        return replay_reconstruction(
            sidecar, told, source=source, weights=weights, device=device, on_progress=on_progress
        )
    result = read_result(sidecar)
    facts = result.facts
    if facts.output is None:
        raise VolumeReadError(
            f"{sidecar} keeps no checksum of its output, and so nothing to compare with"
        )
    options = _options(result)
    scan = find_source(result, source)
    whole = None if facts.input.phase is None else find_complex_source(result, source)
    restorer = Restorer.from_pretrained(
        weights_of(result) if weights is None else weights, device=device or facts.device
    )
    expected = facts.weights.sha256
    if restorer.model.digest != expected:
        raise CheckpointError(
            f"the weights have SHA-256 {restorer.model.digest}, and {result.stem} was made with "
            f"{expected}; give those with --weights"
        )
    step = None if on_progress is None else lambda done, total: on_progress("replay", done, total)
    sigma_map = recorded_map(facts.noise_files.map, sidecar, noise_map, scan, result.trust)
    helper = recorded_reference(
        facts.reference, sidecar, None if reference is None else Path(reference), result.trust
    )
    if whole is not None:
        again = partial(restorer.restore_complex, whole)
    else:
        again = partial(restorer.restore, scan, reference=helper)
    restored = again(options=options, sigma_map=sigma_map, on_progress=step)
    restored, _ = in_type(restored, scan, facts.run.dtype)
    return _compared(result, facts.output, restored, scan)


def _options(result: Result) -> RestoreOptions:
    """The options that a sidecar holds."""
    try:
        return TypeAdapter(RestoreOptions).validate_python(result.facts.options)
    except ValidationError as error:
        first = error.errors()[0]
        raise VolumeReadError(
            f"{result.sidecar} has options of another release of medddpm: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from error


def _compared(result: Result, recorded: OutputFacts, restored: Restored, source: Volume) -> Replay:
    facts = result.facts
    now = {"": voxel_checksum(restored.volume)}
    now |= {name: voxel_checksum(value) for name, value in maps_of(restored).items()}
    before = {"": recorded.voxels_sha256, **recorded.maps_sha256}
    wrong = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    differences = [f"the voxels of {'_' + n if n else 'the scan'} differ" for n in wrong]
    if "" in wrong:
        differences += _distance(result, restored.volume)
    files = _same_files(result, restored, source)
    if not wrong:
        other = [name for name, same in files.items() if same is False]
        differences += [
            f"the voxels are the same, and the bytes of {name} are not" for name in other
        ]
    differences += changes(facts.versions, versions(), "version of ")
    differences += changes(facts.machine, machine(), "")
    libraries = [told.series.library for told in (facts, restored.facts) if told.series]
    if len(set(libraries)) > 1:
        differences.append(f"the frames were restored together by {' and now by '.join(libraries)}")
    differences += changes({"device": facts.device}, {"device": restored.facts.device}, "")
    if facts.header and restored.facts.header:
        then, told = (plain(asdict(header)) for header in (facts.header, restored.facts.header))
        differences += changes(then, told, "what the header says of ")
    known = None not in files.values()
    return Replay(not wrong, all(files.values()) if known else None, differences)


def _distance(result: Result, again: Volume) -> list[str]:
    """How far the scan of this run is from the one on disk, if that is still there."""
    try:
        before = result.read()
    except MedddpmError as error:
        return [str(error)]
    if before.data.shape != again.data.shape:
        return [f"the shape was {before.data.shape} and is {again.data.shape}"]
    gap = np.abs(before.data - again.data)
    share = 100 * float(np.count_nonzero(gap)) / gap.size
    sigma = result.facts.shown.sigma.sigma
    return [
        f"{share:.3g} % of the voxels differ, by at most {float(gap.max()):.4g} "
        f"({float(gap.max()) / sigma if sigma else float('inf'):.3g} sigma)"
    ]


def _same_files(result: Result, again: Restored, source: Volume) -> dict[str, bool | None]:
    """Whether the files that this run would write have the recorded bytes; None if not known."""
    run = result.facts.run
    format: OutputFormat = "dicom" if run.format == "dicom" else "nifti"
    dicom = run.dicom or DicomOptions()
    suffix = "" if format == "dicom" else ".nii.gz"
    suffix = next((s for s in NIFTI_SUFFIXES if result.recorded(result.stem + s)), suffix)
    found: dict[str, bool | None] = {}
    with tempfile.TemporaryDirectory(prefix="medddpm-") as folder:
        target = Target(Path(folder), result.stem, suffix)
        told = result.facts.model_copy(update={"versions": versions()})
        write_images(again, source, target, told, format, dicom)
        written = {target.image.name: target.image}
        for part in maps_of(again):
            recorded = filter(result.recorded, result.map_files(part))
            written[next(recorded, target.part(part).name)] = target.part(part)
        if dicom.report != "none":
            written[target.part("report").name] = target.part("report")
        for name, path in written.items():
            before = result.recorded(name)
            found[name] = None if before is None else output_checksum(path) == before
    return found
