"""Does a scan show a face? Whoever draws heads must draw nobody who could be known again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medddpm.errors import ConfigError
from medddpm.generation.heads import Head

_TISSUE = 0.1
"""Of the intensity scale."""
_LEAST = 0.3
"""Share of the region of nose and mouth: 0.52 in a scan with a face, 0.08 at most without."""


def face_share(head: Head) -> float:
    """Share of tissue where nose and mouth lie: in the lowest, foremost quarter, in the middle.

    A brain alone, and a head without its face, have next to none there; nor has a scan that begins
    at the eyes. Relies on the orientation that the header tells.
    """
    x, y, z = head.image.shape
    region = head.image[x // 4 : x - x // 4, y - y // 4 :, : -(-z // 4)]
    return float(np.mean(region > _TISSUE))


def check_faces(heads: Sequence[Head]) -> None:
    """Refuse heads that show a face.

    Raises:
        ConfigError: One does.
    """
    found = [head.name for head in heads if face_share(head) > _LEAST]
    if found:
        raise ConfigError(
            f"{len(found)} of {len(heads)} scans seem to show a face, the first is {found[0]}; a "
            "prior would learn to draw it. Take the faces off (a defacing or brain extraction "
            "tool), leave these scans out, or say prior.faces=keep if the subjects agreed to that"
        )
