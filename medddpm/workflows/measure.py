"""Simulate noise, estimate it, and compare scans: the verbs that need no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medddpm.errors import ConfigError
from medddpm.evaluation.metrics import evaluate_arrays
from medddpm.io import OnError, Trust, read_volume, read_volumes, write_volume
from medddpm.preprocess import degrade, noise
from medddpm.preprocess.intensity import foreground_mask, intensity_scale, is_blank
from medddpm.preprocess.noise_law import NoiseKind
from medddpm.preprocess.noise_map import noise_map
from medddpm.restoration.blank import first_frame
from medddpm.volume import Array, Volume
from medddpm.workflows.outputs import check_targets, one_scan, plan_targets, staged, write_json
from medddpm.workflows.provenance import describe_input, source_files, versions


@dataclass(frozen=True)
class NoiseSettings:
    """The law of the noise: "rician", "gaussian" or "ncchi" with a number of coils."""

    kind: NoiseKind = "rician"
    coils: int = 1


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a restored scan, and of the noisy one where it was given; JSON-able dicts."""

    restored: dict[str, Any]
    noisy: dict[str, Any] | None
    data_range: float


def simulate(
    clean: Path,
    noisy: str | Path,
    sigma: float,
    *,
    noise_settings: NoiseSettings | None = None,
    gmap: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write a scan with noise of a known size; returns the path of the NIfTI file.

    Args:
        clean: A scan; its grid and units are kept.
        noisy: A .nii.gz file or a folder.
        sigma: Standard deviation as a fraction of the intensity scale.
        noise_settings: Law of the noise; Rician if not given.
        gmap: A scan on the same grid that multiplies sigma.
        seed: Fixes the noise.
        overwrite: Replace an existing output.
    """
    settings = noise_settings or NoiseSettings()
    volume = read_volume(clean)
    target = plan_targets([volume], noisy, format="nifti", label="desc-noisy")[0]
    inputs = [*source_files(volume), *([gmap] if gmap else [])]
    check_targets([target.image, target.sidecar], overwrite=overwrite, inputs=inputs)
    gain = None
    if gmap is not None:
        gain_volume = read_volume(gmap)
        volume.geometry.require_match(gain_volume.geometry, f"the g-map {gmap.name}")
        gain = gain_volume.frame(0)
    result = degrade.simulate(
        volume, sigma, kind=settings.kind, coils=settings.coils, gmap=gain, seed=seed
    )
    scale = intensity_scale(volume.frame(0))
    report = {
        "noise": asdict(settings) | {"sigma_fraction": sigma, "sigma": sigma * scale},
        "intensity_scale": scale,
        "gmap": gmap is not None,
        "seed": seed,
        "input": describe_input(volume),
        "versions": versions(),
    }
    with staged(target.folder) as folder:
        write_volume(result, folder / target.image.name)
        write_json(folder / target.sidecar.name, report)
    return target.image


def estimate_noise(
    source: Path,
    *,
    noise_settings: NoiseSettings | None = None,
    force: bool = False,
    trust: Trust | None = None,
    on_error: OnError | None = None,
) -> list[tuple[Volume, list[noise.NoiseEstimate]]]:
    """Each scan of a file or folder with the noise estimate of each of its frames.

    Args:
        source: A scan, or a folder of DICOM series.
        noise_settings: Law of the noise; Rician if not given.
        force: Take scans of another modality than MR.
        trust: "sform" or "qform", where those of a NIfTI file disagree.
        on_error: Called with the error of each bad scan, and the others are measured; without
            it the first error is raised.
    """
    settings = noise_settings or NoiseSettings()
    found = []
    for volume in read_volumes(source, force=force, trust=trust, on_error=on_error):
        with one_scan(volume.case_id, on_error):
            first_frame(volume)
            frames = (volume.frame(index) for index in range(volume.num_frames))
            found.append((volume, [_estimate(frame, volume, settings) for frame in frames]))
    return found


def _estimate(image: Array, volume: Volume, settings: NoiseSettings) -> noise.NoiseEstimate:
    """The noise of a frame; none where it is blank."""
    if is_blank(image):
        return noise.NO_NOISE
    return noise.estimate_noise(
        image, kind=settings.kind, coils=settings.coils, spacing=volume.spacing
    )


def write_noise_map(
    source: Path,
    output: str | Path,
    *,
    noise_settings: NoiseSettings | None = None,
    overwrite: bool = False,
) -> Path:
    """Write sigma at every voxel of a scan, in its units; returns the path of the NIfTI file.

    Where the noise is the same everywhere the map is constant.

    Args:
        source: A scan; of a 4D one each frame gets its map.
        output: A .nii.gz file or a folder.
        noise_settings: Law of the noise; Rician if not given.
        overwrite: Replace an existing output.
    """
    settings = noise_settings or NoiseSettings()
    volume = read_volume(source)
    target = plan_targets([volume], output, format="nifti", label="desc-sigma")[0]
    check_targets([target.image], overwrite=overwrite, inputs=source_files(volume))
    maps = np.empty_like(volume.data, dtype=np.float32)
    for index in range(volume.num_frames):
        image = volume.frame(index)
        estimate = _estimate(image, volume, settings)
        found = (
            None
            if is_blank(image)
            else noise_map(
                image, estimate, kind=settings.kind, coils=settings.coils, spacing=volume.spacing
            )
        )
        frame = maps if maps.ndim == 3 else maps[..., index]
        frame[...] = estimate.sigma if found is None else found
    with staged(target.folder) as folder:
        write_volume(volume.with_data(maps), folder / target.image.name)
    return target.image


def evaluate(
    reference: Path,
    restored: Path,
    *,
    noisy: Path | None = None,
    mask: Path | None = None,
    trust: Trust | None = None,
) -> Evaluation:
    """Metrics of a scan against its clean reference, inside the mask and over the whole volume.

    The data range is the intensity scale of the reference: the 99.5th percentile of its
    foreground. Scans on other grids raise GeometryError.
    """
    truth = read_volume(reference, trust=trust)
    region = foreground_mask(truth.frame(0))
    if mask is not None:
        mask_volume = read_volume(mask, trust=trust)
        truth.geometry.require_match(mask_volume.geometry, f"the mask {mask.name}")
        region = mask_volume.frame(0) > 0
        if not region.any():
            raise ConfigError(f"the mask {mask.name} is empty")
    data_range = intensity_scale(truth.frame(0), region)

    def compare(path: Path) -> dict[str, Any]:
        other = read_volume(path, trust=trust)
        truth.geometry.require_match(other.geometry, path.name)
        return evaluate_arrays(truth.data, other.data, mask=region, data_range=data_range)

    return Evaluation(compare(restored), compare(noisy) if noisy else None, data_range)
