"""What a user knows of a scan's noise, from files: sigma at each voxel, and the spectrum."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from medddpm.errors import ConfigError, VolumeReadError
from medddpm.io import Trust, checksum
from medddpm.io.nifti import read_nifti
from medddpm.io.provenance import input_path, relative_path
from medddpm.io.sidecar import FileFacts, NoiseFilesFacts
from medddpm.preprocess.noise_law import Colour, Image
from medddpm.preprocess.noise_spectrum import colour_of_power
from medddpm.restoration.options import RestoreOptions
from medddpm.volume import Volume

_FAINTEST = 0.01
"""Of the median of a map: what is less, such as a masked background, counts as this much."""


@dataclass(frozen=True)
class NoiseFiles:
    """The files that say what is known of the noise of a scan.

    Attributes:
        map: NIfTI of sigma, on the grid of the scan: see `read_noise_map`.
        spectrum: JSON or NIfTI of the colour: see `read_noise_spectrum`.
    """

    map: Path | None = None
    spectrum: Path | None = None

    @classmethod
    def of(cls, map: str | Path | None, spectrum: str | Path | None) -> NoiseFiles:
        """Those at these paths, which may be missing."""
        return cls(Path(map) if map else None, Path(spectrum) if spectrum else None)

    @property
    def paths(self) -> list[Path]:
        """Those that were given."""
        return [path for path in (self.map, self.spectrum) if path is not None]

    def check(self, options: RestoreOptions) -> None:
        """Raise before the work what would go wrong in it.

        Raises:
            ConfigError: A file contradicts an option.
            VolumeReadError: A file does not exist.
        """
        if self.map is not None and options.sigma is not None:
            raise ConfigError("--noise-map and --sigma both say how loud the noise is; give one")
        if self.map is not None and options.noise_map == "off":
            raise ConfigError("--noise-map and restore.noise_map=off contradict each other")
        if self.spectrum is not None and options.colour != "auto":
            raise ConfigError(
                "--noise-spectrum and restore.colour both say which colour the noise has; give one"
            )
        for path in self.paths:
            if not path.is_file():
                raise VolumeReadError(f"{path} does not exist, or is no file")

    def told(
        self, scan: Volume, options: RestoreOptions, trust: Trust | None = None
    ) -> tuple[RestoreOptions, Image | None]:
        """The options with the colour of the spectrum, and sigma at each voxel, for one scan."""
        sigma = None if self.map is None else read_noise_map(self.map, scan, trust)
        if self.spectrum is not None:
            options = replace(options, colour=read_noise_spectrum(self.spectrum, scan))
        return options, sigma

    def facts(self, scan: Volume, folder: Path) -> NoiseFilesFacts:
        """What a sidecar in a folder says of them: names, checksums and where the map is.

        Beside DICOM, whose paths may name patients, the place is left out.
        """
        named = {"map": self.map, "spectrum": self.spectrum}
        found = {
            name: FileFacts(file=path.name, sha256=checksum([path]))
            for name, path in named.items()
            if path is not None
        }
        if self.map is not None and input_path(scan, folder) is not None:
            place = {"path": relative_path(self.map, folder)}
            found["map"] = found["map"].model_copy(update=place)
        return NoiseFilesFacts(**found)


def recorded_map(
    told: FileFacts | None,
    sidecar: Path,
    given: str | Path | None,
    scan: Volume,
    trust: Trust | None = None,
) -> Image | None:
    """The noise map of a restoration that a sidecar describes; None if it had none.

    Args:
        told: What it says of the map.
        sidecar: Where.
        given: Where the map is now, if not where the sidecar says.
        scan: What was restored.
        trust: As in `read_noise_map`.

    Raises:
        VolumeReadError: The map is gone, has changed, or was never named.
    """
    if told is None:
        return None
    if given is None and told.path is None:
        raise VolumeReadError(
            f"{sidecar} does not say where the noise map {told.file} is; give --noise-map"
        )
    path = sidecar.parent / (told.path or "") if given is None else Path(given)
    if not path.is_file():
        raise VolumeReadError(f"the noise map {path} is gone; give --noise-map")
    found = checksum([path])
    if found != told.sha256:
        raise VolumeReadError(
            f"{path} is not the noise map of {sidecar.name}, or it has changed since: SHA-256 "
            f"{found}, expected {told.sha256}; give --noise-map"
        )
    return read_noise_map(path, scan, trust)


def read_noise_map(path: str | Path, scan: Volume, trust: Trust | None = None) -> Image:
    """Sigma of one real component at each voxel of a scan, in its units: (X, Y, Z) or (..., T).

    A frame of zeros has no noise. Zeros elsewhere, as in a map of a part of the scan, count as a
    hundredth of the median of the rest.

    Args:
        path: A NIfTI file.
        scan: The scan.
        trust: "sform" or "qform", where those of the map disagree, as with the scan.

    Raises:
        GeometryError: It lies on another grid than the scan.
        ConfigError: A value is negative or not finite, or all are zero.
    """
    volume = read_nifti(path, trust=trust, may_be_even=True)
    scan.geometry.require_match(volume.geometry, f"the noise map {Path(path).name}")
    sigma = np.array(volume.data, np.float32)
    if not np.isfinite(sigma).all() or sigma.min() < 0 or sigma.max() <= 0:
        raise ConfigError(
            f"the noise map {Path(path).name} holds values that no sigma has; give sigma at each "
            "voxel in scan units: finite, zero or more"
        )
    for index in range(volume.num_frames):
        frame = sigma if sigma.ndim == 3 else sigma[..., index]
        if frame.any():
            np.maximum(frame, _FAINTEST * np.median(frame[frame > 0]), out=frame)
    return sigma


def read_noise_spectrum(path: str | Path, scan: Volume) -> Colour:
    """The colour that a file holds: JSON, or NIfTI of power on the grid of the scan's FFT.

    JSON is a `Colour`, what `medddpm estimate-noise --json` prints (of several frames the first
    with noise counts), or the sidecar of a simulated scan.

    Raises:
        ConfigError: The file holds no colour, or its grid has other voxels than the scan.
        VolumeReadError: It cannot be read.
    """
    path = Path(path)
    if path.suffix == ".json":
        return _colour_of_json(path, scan.case_id)
    power = read_nifti(path, may_be_even=True).frame(0)
    if power.shape != scan.geometry.shape:
        raise ConfigError(
            f"the noise spectrum {path.name} has {power.shape} values, the scan "
            f"{scan.geometry.shape} voxels; give the power at each frequency of the scan's FFT"
        )
    return colour_of_power(power)


def _colour_of_json(path: Path, case_id: str) -> Colour:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise VolumeReadError(f"cannot read the noise spectrum {path.name}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"the noise spectrum {path.name} is no JSON: {error}") from error
    content = _spectrum_in(content, case_id)
    names = {f.name for f in fields(Colour)}
    if not isinstance(content, dict) or not content or not set(content) <= names:
        raise ConfigError(
            f"the noise spectrum {path.name} holds no colour: {', '.join(sorted(names))}"
        )
    try:
        return Colour(**{name: _tuples(value) for name, value in content.items()})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the noise spectrum {path.name}: {error}") from error


def _spectrum_in(content: Any, case_id: str) -> Any:
    """The part of a file of ours that is a colour; what is none of ours as it is."""
    if isinstance(content, list):  # of several scans, this one's
        rows = [row for row in content if isinstance(row, dict)]
        named = [row for row in rows if row.get("case_id") == case_id]
        rows = named or rows
        content = rows[0] if named or len(rows) == 1 else None
    if isinstance(content, dict) and "statement" in content:
        return None  # of a restored scan: that colour is of the acquired grid
    if isinstance(content, dict) and isinstance(content.get("frames"), list):
        frames = [frame for frame in content["frames"] if isinstance(frame, dict)]
        content = next((f for f in frames if f.get("method") != "none"), None)
    for name in ("noise", "colour"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    return content


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
