"""Frames of a 4D scan that hold nothing: they pass through, and the facts name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medddpm.errors import VolumeReadError
from medddpm.preprocess.intensity import is_blank
from medddpm.volume import Volume

BLANK = "blank: passed through as it is"


def shown_frame(facts: Mapping[str, Any]) -> int:
    """The frame that stands for a scan: the first that is not blank."""
    blank = blank_frames(facts)
    return next((i for i in range(len(facts["frames"])) if i not in blank), 0)


def blank_frames(facts: Mapping[str, Any]) -> list[int]:
    """The frames that a restoration found blank, from 0."""
    return [index for index, frame in enumerate(facts["frames"]) if frame.get("blank")]


def first_frame(volume: Volume) -> int:
    """The first frame of a scan that is not blank.

    Raises:
        VolumeReadError: There is none.
    """
    for index in range(volume.num_frames):
        if not is_blank(volume.frame(index)):
            return index
    raise VolumeReadError(f"{volume.case_id} is blank: every voxel of a frame has one value")
