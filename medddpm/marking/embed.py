"""Put the mark of a key on a synthetic scan, as strong as the image itself is where it lies."""

from __future__ import annotations

import numpy as np

from medddpm.errors import ConfigError
from medddpm.marking.detect import THRESHOLD, detect_in_place
from medddpm.marking.key import Key
from medddpm.marking.pattern import field
from medddpm.marking.residual import Image, fine_structure, local_strength
from medddpm.preprocess.intensity import Body
from medddpm.volume import Volume

_STRENGTHS = (0.12, 0.18, 0.27)
"""Of the local strength of the fine structure; the first that is surely found is taken."""
_SURE = 15.0
"""Score to aim at: what is left over the threshold is what attacks may take."""
_CAP = 0.06
"""Of the intensity scale: at sharper edges, such as the skin, the mark grows no further."""


def mark(volume: Volume, key: Key) -> Volume:
    """The scan with the mark in every frame; voxels of exactly 0 stay so, none falls below 0.

    It is called on synthetic scans and on nothing else.

    Args:
        volume: A synthetic scan, with the affine that it will have.
        key: Whose mark.

    Raises:
        ConfigError: The scan is too small or too even for the mark to be found again.
    """
    pattern = field(key, volume.affine, volume.geometry.shape)
    frames = [
        _marked(volume.with_data(volume.frame(i)), pattern, key) for i in range(volume.num_frames)
    ]
    return volume.with_data(frames[0] if volume.data.ndim == 3 else np.stack(frames, axis=-1))


def _marked(scan: Volume, pattern: Image, key: Key) -> Image:
    """One frame with the weakest mark that is surely found, or the strongest that is found."""
    image, spacing = scan.data, scan.spacing
    local = local_strength(fine_structure(image, spacing), spacing)
    cap = _CAP * Body.of(image).scale()
    change = pattern * local / np.sqrt(1 + np.square(local / cap))
    least = min(0.0, float(image.min()))
    for strength in _STRENGTHS:
        marked = np.maximum(image + strength * change, least)
        kept: Image = np.where(image == 0, 0, marked).astype(np.float32)
        found = detect_in_place(scan.with_data(kept), key)
        if found.z >= _SURE:
            return kept
    if not found.marked:
        raise ConfigError(
            f"{scan.case_id} is too small or too even to be marked: its mark would have a score "
            f"of {found.z:.1f}, and {THRESHOLD:.1f} is needed; draw a larger scan"
        )
    return kept
