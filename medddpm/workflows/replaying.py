"""Do a restoration again from its sidecar, and compare."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from medddpm.errors import CheckpointError, MedddpmError, VolumeReadError
from medddpm.io import write_volume
from medddpm.restoration.restorer import Restored, RestoreOptions, Restorer
from medddpm.volume import Volume
from medddpm.workflows.provenance import checksum, machine, versions, voxel_checksum
from medddpm.workflows.reporting import weights_of
from medddpm.workflows.restoring import MAPS, OnProgress
from medddpm.workflows.results import Result, find_source, read_result


@dataclass(frozen=True)
class Replay:
    """What came out of a second run.

    Attributes:
        same_voxels: Every voxel of the scan and of its maps has the bits of the first run.
        same_file: The bytes of the NIfTI file are the same too; None where there is no such file.
        differences: Sentences: what differs in the result, and in versions and machine.
    """

    same_voxels: bool
    same_file: bool | None
    differences: list[str]


def replay(
    sidecar: Path,
    *,
    source: Path | None = None,
    weights: str | Path | None = None,
    device: str | None = None,
    on_progress: OnProgress | None = None,
) -> Replay:
    """Repeat the restoration that a sidecar describes; nothing is written.

    Args:
        sidecar: The .json beside a restored scan.
        source: The scan that was restored, if it is no longer where the sidecar says.
        weights: The weights, likewise.
        device: Another device than that of the first run.
        on_progress: Called with the task, steps done and all steps.

    Raises:
        VolumeReadError: The input is gone or has changed, or the sidecar cannot be replayed.
        CheckpointError: The weights are others.
    """
    result = read_result(sidecar)
    facts = result.facts
    if "output" not in facts:
        raise VolumeReadError(
            f"{sidecar} was written by an older release, which kept no checksum of its output"
        )
    options, volume = _options(result), find_source(result, source)
    restorer = Restorer.from_pretrained(
        weights_of(result) if weights is None else weights, device=device or facts["device"]
    )
    expected = facts["weights"]["sha256"]
    if restorer.model.digest != expected:
        raise CheckpointError(
            f"the weights have SHA-256 {restorer.model.digest}, and {result.stem} was made with "
            f"{expected}; give those with --weights"
        )
    step = None if on_progress is None else lambda done, total: on_progress("replay", done, total)
    restored = restorer.restore(volume, options=options, on_progress=step)
    return _compared(result, restored)


def _options(result: Result) -> RestoreOptions:
    try:
        found: RestoreOptions = TypeAdapter(RestoreOptions).validate_python(result.facts["options"])
    except ValidationError as error:
        first = error.errors()[0]
        raise VolumeReadError(
            f"{result.sidecar} has options of another release of medddpm: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from error
    return found


def _compared(result: Result, restored: Restored) -> Replay:
    recorded = result.facts["output"]
    now = {"": voxel_checksum(restored.volume)}
    for name in MAPS:
        value = getattr(restored, name)
        if value is not None:
            now[name] = voxel_checksum(value)
    before = {"": recorded["voxels_sha256"], **recorded["maps_sha256"]}
    wrong = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    differences = [f"the voxels of {'_' + n if n else 'the scan'} differ" for n in wrong]
    if "" in wrong:
        differences += _distance(result, restored.volume)
    same_file = _same_file(result, restored.volume)
    if same_file is False and not wrong:
        differences.append("the voxels are the same, and the bytes of the file are not")
    differences += _changes(result.facts["versions"], versions(), "version of ")
    differences += _changes(result.facts.get("machine", {}), machine(), "")
    differences += _changes(
        {"device": result.facts["device"]}, {"device": restored.facts["device"]}, ""
    )
    return Replay(not wrong, same_file, differences)


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
    sigma = float(result.facts["frames"][0]["sigma"]["sigma"])
    return [
        f"{share:.3g} % of the voxels differ, by at most {float(gap.max()):.4g} "
        f"({float(gap.max()) / sigma if sigma else float('inf'):.3g} sigma)"
    ]


def _same_file(result: Result, again: Volume) -> bool | None:
    """Whether the file that this run would write has the recorded bytes."""
    names = {f"{result.stem}{suffix}" for suffix in (".nii.gz", ".nii")}
    recorded = {n: s for n, s in result.facts["output"]["files"].items() if n in names}
    if not recorded:
        return None
    [(name, expected)] = recorded.items()
    with tempfile.TemporaryDirectory(prefix="medddpm-") as folder:
        path = Path(folder) / name
        write_volume(again, path)
        return bool(checksum([path]) == expected)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], what: str) -> list[str]:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"{what}{n}: {before.get(n, 'none')} then, {now.get(n, 'none')} now" for n in names]
