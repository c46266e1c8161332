"""Frames of a 4D scan that hold nothing: they pass through, and the facts name them."""

from __future__ import annotations

from medddpm.errors import VolumeReadError
from medddpm.preprocess.intensity import is_blank
from medddpm.volume import Volume

BLANK = "blank: passed through as it is"


def first_frame(volume: Volume) -> int:
    """The first frame of a scan that is not blank.

    Raises:
        VolumeReadError: There is none.
    """
    for index in range(volume.num_frames):
        if not is_blank(volume.frame(index)):
            return index
    raise VolumeReadError(f"{volume.case_id} is blank: every voxel of a frame has one value")
