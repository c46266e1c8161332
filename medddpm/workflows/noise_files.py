"""What a user knows of a scan's noise, from files: sigma at each voxel, and the spectrum."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from medddpm.errors import ConfigError, VolumeReadError
from medddpm.io import read_volume
from medddpm.preprocess.noise_law import Colour, Image
from medddpm.preprocess.noise_spectrum import colour_of_power
from medddpm.volume import Volume


def read_noise_map(path: str | Path, scan: Volume) -> Image:
    """Sigma of one real component at each voxel of a scan, in its units: (X, Y, Z).

    Raises:
        GeometryError: It lies on another grid than the scan.
        ConfigError: A value is negative or not finite, or all are zero.
    """
    volume = read_volume(path)
    scan.geometry.require_match(volume.geometry, f"the noise map {Path(path).name}")
    sigma = np.asarray(volume.frame(0), np.float32)
    if not np.isfinite(sigma).all() or sigma.min() < 0 or sigma.max() <= 0:
        raise ConfigError(
            f"the noise map {Path(path).name} holds values that no sigma has; give sigma at each "
            "voxel in scan units: finite, zero or more"
        )
    return sigma


def read_noise_spectrum(path: str | Path, scan: Volume) -> Colour:
    """The colour that a file holds: JSON of a `Colour`, or NIfTI of power on the scan's FFT grid.

    Raises:
        ConfigError: The file holds no colour, or its grid has other voxels than the scan.
        VolumeReadError: It cannot be read.
    """
    path = Path(path)
    if path.suffix == ".json":
        return _colour_of_json(path)
    power = read_volume(path).frame(0)
    if power.shape != scan.geometry.shape:
        raise ConfigError(
            f"the noise spectrum {path.name} has {power.shape} values, the scan "
            f"{scan.geometry.shape} voxels; give the power at each frequency of the scan's FFT"
        )
    return colour_of_power(power)


def _colour_of_json(path: Path) -> Colour:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VolumeReadError(f"cannot read the noise spectrum {path.name}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"the noise spectrum {path.name} is no JSON: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("colour"), dict):
        content = content["colour"]  # as estimate-noise writes it
    names = {f.name for f in fields(Colour)}
    if not isinstance(content, dict) or not content or not set(content) <= names:
        raise ConfigError(
            f"the noise spectrum {path.name} holds no colour: {', '.join(sorted(names))}"
        )
    try:
        return Colour(**{name: _tuples(value) for name, value in content.items()})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the noise spectrum {path.name}: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
