"""A clean scan as a scanner would have acquired it, or with white noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medddpm.errors import ConfigError
from medddpm.io import check_magnitude, read_volume, without_padding, write_volume
from medddpm.io.outputs import check_targets, plan_targets, staged, write_json
from medddpm.io.provenance import describe_input, source_files, versions
from medddpm.io.yaml_text import parse_yaml
from medddpm.preprocess import degrade
from medddpm.preprocess.acquisition import Acquisition
from medddpm.preprocess.acquisition_words import in_words
from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.preprocess.simulated_scan import (
    AcquisitionName,
    acquire_scan,
    choose_acquisition,
    parse_acquisition,
)
from medddpm.preprocess.values import require_sign
from medddpm.volume import Volume

Images = dict[str, Volume]
"""By what stands behind the name of the noisy scan; "" is that scan."""


@dataclass(frozen=True)
class Scanner:
    """How `simulate` acquires a scan.

    Attributes:
        name: "acquired", at random or as given, or "ellipse".
        acquisition: One's own, in place of a random one.
        changes: Fields of the acquisition that are set on top.
    """

    name: AcquisitionName = "acquired"
    acquisition: Acquisition | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Simulated:
    """What was written: files of NIfTI, and the report beside them.

    Attributes:
        noisy: The scan with noise.
        clean: The scan through the same chain without it; of white noise that is the input.
        sigma: The noise at each voxel, where it varies.
        sidecar: What was simulated, as JSON.
        words: The acquisition, for a person; "" for white noise.
    """

    noisy: Path
    clean: Path
    sigma: Path | None
    sidecar: Path
    words: str = ""


def simulate(
    clean: str | Path,
    noisy: str | Path,
    sigma: float,
    *,
    scanner: Scanner | NoiseLaw | None = None,
    gmap: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Simulated:
    """Write a scan with noise of a known size, as a scanner makes it.

    Args:
        clean: A scan; its grid and units are kept.
        noisy: A .nii.gz file or a folder.
        sigma: Standard deviation as a fraction of the intensity scale.
        scanner: How it is acquired, at random if not given; a `NoiseLaw` is white noise of its
            kind.
        gmap: A scan on the same grid that multiplies sigma of white noise.
        seed: Fixes the acquisition and the noise.
        overwrite: Replace existing outputs.

    Raises:
        ConfigError: Sigma or a field of the acquisition cannot be used.
    """
    clean = Path(clean)
    gmap = None if gmap is None else Path(gmap)
    volume = without_padding(read_volume(clean))
    check_magnitude(volume)
    inputs = [*source_files(volume), *([gmap] if gmap else [])]
    target = plan_targets([volume], noisy, format="nifti", label="desc-noisy")[0]
    if isinstance(scanner, NoiseLaw):
        check_targets([target.image, target.sidecar], overwrite=overwrite, inputs=inputs)
        images, report = _with_white(volume, sigma, scanner, gmap, seed)
    elif gmap is not None:
        raise ConfigError("a g-map amplifies white noise: give --noise white with it")
    else:
        chosen = _chosen(volume, sigma, scanner or Scanner(), seed)
        parts = ("clean", "sigma") if chosen.is_uneven else ("clean",)
        paths = [target.image, *map(target.part, parts), target.sidecar]
        check_targets(paths, overwrite=overwrite, inputs=inputs)
        images, report = _as_acquired(volume, chosen, seed)
    given = describe_input(volume).model_dump(exclude_unset=True)
    report |= {"seed": seed, "input": given, "versions": versions()}
    written = {name: target.part(name) if name else target.image for name in images}
    with staged(target.folder) as folder:
        for name, image in images.items():
            write_volume(image, folder / written[name].name)
        write_json(folder / target.sidecar.name, report)
    return Simulated(
        target.image,
        written.get("clean", clean),
        written.get("sigma"),
        target.sidecar,
        report.get("words", ""),
    )


def read_acquisition(path: Path) -> Acquisition:
    """The acquisition of a JSON file, or of the sidecar of `simulate`; sigma is not taken.

    Raises:
        ConfigError: The file cannot be read, or holds none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    content = parse_yaml(text, str(path))  # JSON is YAML
    fields = content.get("acquisition", content) if isinstance(content, dict) else content
    if not isinstance(fields, dict):
        raise ConfigError(f'{path} holds no acquisition such as {{"matrix": [0.62, 0.62, 0.9]}}')
    return parse_acquisition(fields | {"sigma": 0.0}, str(path))


def _chosen(volume: Volume, sigma: float, scanner: Scanner, seed: int) -> Acquisition:
    return choose_acquisition(
        scanner.name, sigma, volume, seed, given=scanner.acquisition, changes=scanner.changes
    )


def _as_acquired(volume: Volume, chosen: Acquisition, seed: int) -> tuple[Images, dict[str, Any]]:
    """The scan with and without noise, its sigma where that varies, and all it takes to redo it."""
    for index in range(volume.num_frames):
        require_sign(volume.frame(index), "rician")
    scale = intensity_scale(volume.frame(0))
    made = acquire_scan(volume, chosen, scale, seed)
    law = made.laws[0]  # that of all frames
    images = {"": made.noisy, "clean": made.clean}
    if isinstance(law.sigma, np.ndarray):
        images["sigma"] = volume.with_data(law.sigma)
    noise = {"kind": law.kind, "coils": law.coils, "sigma_fraction": chosen.sigma}
    noise |= {"sigma": law.level(foreground_mask(made.clean.frame(0)))}
    return images, {
        "noise": noise | {"colour": asdict(law.colour)},
        "acquisition": asdict(chosen),
        "words": in_words(chosen),
        "intensity_scale": scale,
    }


def _with_white(
    volume: Volume, sigma: float, law: NoiseLaw, gmap: Path | None, seed: int
) -> tuple[Images, dict[str, Any]]:
    """The finished scan with white noise, and what was added."""
    gain = None
    if gmap is not None:
        gain_volume = read_volume(gmap)
        volume.geometry.require_match(gain_volume.geometry, f"the g-map {gmap.name}")
        gain = gain_volume.frame(0)
    noisy = degrade.simulate(volume, sigma, law=law, gmap=gain, seed=seed)
    scale = intensity_scale(volume.frame(0))
    noise = {"kind": law.kind, "coils": law.coils, "sigma_fraction": sigma}
    noise |= {"sigma": sigma * scale}
    report = {"noise": noise, "intensity_scale": scale, "gmap": gmap is not None}
    return {"": noisy}, report
