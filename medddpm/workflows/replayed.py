"""What came out of doing something again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Replay:
    """What came out of a second run.

    Attributes:
        same_voxels: Every voxel of the scan and of its maps has the bits of the first run.
        same_file: The bytes of all files are the same too, NIfTI or DICOM; None where the sidecar
            is of a release that kept no checksum of them.
        differences: Sentences: what differs in the result, and in versions and machine.
    """

    same_voxels: bool
    same_file: bool | None
    differences: list[str]


def changes(before: Mapping[str, Any], now: Mapping[str, Any], what: str) -> list[str]:
    """Sentences: what was another thing then."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"{what}{n}: {before.get(n, 'none')} then, {now.get(n, 'none')} now" for n in names]
