"""Estimate noise, and compare scans: verbs that need no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medddpm.errors import ConfigError
from medddpm.io import (
    OnError,
    Trust,
    atomic_path,
    check_magnitude,
    check_output,
    read_volume,
    read_volumes,
    without_padding,
    write_volume,
)
from medddpm.io.acquired import read_acquired
from medddpm.io.outputs import check_targets, one_scan, plan_targets, staged
from medddpm.io.provenance import source_files
from medddpm.metrics.scores import evaluate_arrays
from medddpm.preprocess.found_noise import FoundNoise
from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.preprocess.noise_law import RICIAN, NoiseLaw
from medddpm.preprocess.noise_words import noise_words
from medddpm.preprocess.values import Looked, look_at, measure_noise
from medddpm.restoration.blank import first_frame
from medddpm.volume import Volume


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a restored scan, and of the noisy one where it was given; JSON-able dicts."""

    restored: dict[str, Any]
    noisy: dict[str, Any] | None
    data_range: float


def estimate_noise(
    source: str | Path,
    *,
    law: NoiseLaw = RICIAN,
    force: bool = False,
    trust: Trust | None = None,
    on_error: OnError | None = None,
) -> list[tuple[Volume, list[FoundNoise]]]:
    """Each scan of a file or folder with the noise of each of its frames.

    Args:
        source: A scan, or a folder of DICOM series.
        law: Kind and coils of the noise.
        force: Take scans of another modality than MR.
        trust: "sform" or "qform", where those of a NIfTI file disagree.
        on_error: Called with the error of each bad scan, and the others are measured; without
            it the first error is raised.
    """
    source = Path(source)
    found = []
    for volume in read_volumes(source, force=force, trust=trust, on_error=on_error):
        with one_scan(volume.case_id, on_error):
            check_magnitude(volume)
            image = without_padding(volume)
            first_frame(image)
            estimates = [_measured(image, index, law)[1] for index in range(image.num_frames)]
            found.append((volume, estimates))
    return found


def _measured(volume: Volume, index: int, law: NoiseLaw) -> tuple[Looked, FoundNoise]:
    """One frame as it was looked at, and its noise."""
    seen = look_at(volume, index, law.kind)
    return seen, measure_noise(
        seen,
        law=law,
        spacing=volume.spacing,
        hint=read_acquired(volume).edge,
    )


def write_noise_map(
    source: str | Path,
    output: str | Path,
    *,
    law: NoiseLaw = RICIAN,
    trust: Trust | None = None,
    overwrite: bool = False,
) -> Path:
    """Write sigma at every voxel of a scan, in its units; returns the path of the NIfTI file.

    Where the noise is the same everywhere the map is constant.

    Args:
        source: A scan; of a 4D one each frame gets its map.
        output: A .nii.gz file or a folder.
        law: Kind and coils of the noise.
        trust: "sform" or "qform", where those of a NIfTI file disagree.
        overwrite: Replace an existing output.
    """
    source = Path(source)
    volume = without_padding(read_volume(source, trust=trust))
    check_magnitude(volume)
    target = plan_targets([volume], output, format="nifti", label="desc-sigma")[0]
    check_targets([target.image], overwrite=overwrite, inputs=source_files(volume))
    maps = np.empty_like(volume.data, dtype=np.float32)
    for index in range(volume.num_frames):
        frame = maps if maps.ndim == 3 else maps[..., index]
        frame[...] = _measured(volume, index, law)[1].law.sigma
    with staged(target.folder) as folder:
        write_volume(volume.with_data(maps), folder / target.image.name)
    return target.image


def write_noise_picture(
    output: str | Path, volume: Volume, found: FoundNoise, *, overwrite: bool = False
) -> Path:
    """Write a PNG of the first frame's k-space, of the edges that were found and of sigma.

    Args:
        output: A .png file.
        volume: The scan.
        found: Its noise, from `estimate_noise`.
        overwrite: Replace an existing output.
    """
    from medddpm.report.noise_figure import noise_picture

    path = check_output(output, overwrite)
    image = without_padding(volume).frame(0)
    picture = noise_picture(image, found, noise_words(found, image.shape, volume.spacing))
    with atomic_path(path) as partial:
        partial.write_bytes(picture)
    return path


def evaluate(
    reference: str | Path,
    restored: str | Path,
    *,
    noisy: str | Path | None = None,
    mask: str | Path | None = None,
    trust: Trust | None = None,
) -> Evaluation:
    """Metrics of a scan against its clean reference, inside the mask and over the whole volume.

    The data range is the intensity scale of the reference: the 99.5th percentile of its
    foreground. Scans on other grids raise GeometryError.
    """
    reference, restored = Path(reference), Path(restored)
    noisy = None if noisy is None else Path(noisy)
    mask = None if mask is None else Path(mask)
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
