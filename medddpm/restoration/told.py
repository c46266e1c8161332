"""What a caller knows of the noise of a scan."""

from __future__ import annotations

from medddpm.errors import ConfigError
from medddpm.preprocess.noise_law import Image, NoiseLaw
from medddpm.restoration.options import RestoreOptions
from medddpm.volume import Volume

Told = float | Image | NoiseLaw | None
"""Sigma as a number or at each voxel, in scan units; the whole law; or None: it is to be found."""


def told_of_frames(
    volume: Volume, options: RestoreOptions, law: NoiseLaw | None, sigma_map: Image | None
) -> list[Told]:
    """What is known of the noise of each frame of a scan, beside the options.

    Args:
        volume: The scan.
        options: How it is restored.
        law: The noise, if all of it is known.
        sigma_map: Sigma at each voxel, (X, Y, Z) for all frames or of the scan's shape.

    Raises:
        ConfigError: Two of these contradict each other, or the map has another shape.
    """
    if sigma_map is None:
        return [law] * volume.num_frames
    if law is not None or options.sigma is not None:
        raise ConfigError("a noise map holds sigma already; give either the map or sigma")
    if options.noise_map != "auto":
        raise ConfigError(
            f"a noise map is given, and restore.noise_map={options.noise_map} makes it one number; "
            "give one of them"
        )
    if sigma_map.shape == volume.geometry.shape:
        return [sigma_map] * volume.num_frames
    if sigma_map.shape != volume.data.shape:
        raise ConfigError(
            f"the noise map has {sigma_map.shape} values, the scan {volume.data.shape}; give one "
            "map for all frames, or one for each"
        )
    return [sigma_map[..., index] for index in range(volume.num_frames)]
