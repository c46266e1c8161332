"""A raw scan to a volume: frames, slices, oversampling, matrix, place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medddpm.errors import MedddpmError
from medddpm.io import Quantity
from medddpm.io.raw_scan import RawScan, Trajectory
from medddpm.model.interval import NOMINAL
from medddpm.operators.fourier import cropped, on_matrix, without_oversampling
from medddpm.reconstruction.gridless import make_gridless_problem
from medddpm.reconstruction.held_out import held_out_notices, hold_out
from medddpm.reconstruction.interval import interval_scale
from medddpm.reconstruction.methods import DrawingPrior, solve, solve_frame
from medddpm.reconstruction.noise_map import g_factor_map
from medddpm.reconstruction.options import Method, ReconstructOptions
from medddpm.reconstruction.problem import Problem, make_problem
from medddpm.reconstruction.wrap import wrap_notices
from medddpm.restoration.moments import Moments, smooth_spread
from medddpm.volume import Geometry, Volume

OnProgress = Callable[[int, int], None]
Triple = tuple[float, float, float]
MakePrior = Callable[[Triple], DrawingPrior]
"""The denoiser for images of a voxel size in mm."""


@dataclass(frozen=True)
class Reconstructed:
    """An image of raw data.

    Attributes:
        magnitude: In units of the noise of a fully measured image ("SNR units", Kellman and
            McVeigh, Magn Reson Med 54:1439, 2005); the fourth axis is the scan's frames.
        phase: The same grid, radians.
        maps: "std", "lower" and "upper" of an ensemble, in the same units: standard deviation over
            its draws, widened by what was held out (see `interval_scale`), and a 90 % interval.
        g_factor: How much parallel imaging amplifies noise, if that was asked for; frame 0.
        facts: JSON-able: method, noise and acceleration of each frame, seconds.
        others: (X, Y, Z) magnitudes of frame 0 by other methods, if they were asked for.
    """

    magnitude: Volume
    phase: Volume
    g_factor: Volume | None
    facts: dict[str, Any] = field(repr=False)
    maps: dict[Quantity, Volume] = field(default_factory=dict)
    others: dict[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)


COMPARED: tuple[Method, ...] = ("zero-filled", "cg-sense")
"""What a report shows beside a result: they take seconds."""


def reconstruct_scan(
    scan: RawScan,
    options: ReconstructOptions,
    *,
    make_prior: MakePrior | None = None,
    noise: NDArray[np.complex64] | None = None,
    replicas: int = 0,
    compare: bool = False,
    on_progress: OnProgress | None = None,
) -> Reconstructed:
    """The image of all frames of a scan.

    Args:
        scan: What was measured.
        options: Method and settings.
        make_prior: For "ours".
        noise: (C, N) samples without signal, in place of the scan's own.
        replicas: Reconstructions of noise for the g-factor map; 0 for no map.
        compare: Reconstruct frame 0 by `COMPARED` too.
        on_progress: Called as (steps done, steps in all).

    Raises:
        ShapeError: There are no calibration lines, or the noise has other coils.
    """
    began = time.perf_counter()
    images, facts, spreads, widths = [], [], [], []
    g_map: NDArray[np.float32] | None = None
    count = len(scan.kspace)
    others: dict[str, NDArray[np.float32]] = {}
    for frame in range(count):
        try:
            problem = frame_problem(scan, frame, noise=noise, coils=options.coils)
        except MedddpmError as error:
            raise type(error)(f"{scan.case_id}: {error}") from None
        prior = None if make_prior is None else make_prior(problem.spacing)
        step = _scaled(on_progress, frame, count)
        solved = solve_frame(problem, options, prior, step)
        images.append(on_recon_grid(solved.image * problem.scale, scan))
        if len(solved.draws) > 1:
            draws = (np.abs(on_recon_grid(d * problem.scale, scan)) for d in solved.draws)
            spread = spread_of(draws)
            widths.append(_interval_scale(solved.facts))
            spreads.append(spread * np.float32(widths[-1]))
        if replicas and frame == 0:
            g = g_factor_map(problem, replicas=replicas)
            g_map = np.abs(on_recon_grid(g.to(torch.complex64), scan))
        if compare and frame == 0:
            others = _others(problem, options, scan, solved.facts)
        facts.append(
            {"frame": scan.frames[frame], **_facts_of(problem, solved.facts), **solved.facts}
        )
        if on_progress:
            on_progress(frame + 1, count)
    whole = images[0] if count == 1 else np.stack(images, axis=-1)
    geometry = Geometry(scan.image_shape, scan.affine)
    volume = Volume(np.abs(whole), geometry, source=scan.source, case_id=scan.case_id)
    found = {
        "options": asdict(options),
        "noise": "given" if noise is not None else "own" if scan.noise is not None else "edges",
        "frames": facts,
        "seconds": round(time.perf_counter() - began, 3),
    }
    phase = volume.with_data(np.angle(whole).astype(np.float32))
    maps: dict[Quantity, Volume] = {}
    if spreads:
        maps = _maps(volume, spreads[0] if count == 1 else np.stack(spreads, axis=-1))
        found["interval"] = {
            "level": 0.9,
            "calibrated": all(frame.get("held_out") for frame in facts),
            "scales": [round(width, 4) for width in widths],
        }
    g_volume = None if g_map is None else volume.with_data(g_map)
    return Reconstructed(volume, phase, g_volume, found, maps, others)


def _facts_of(problem: Problem, solved: dict[str, Any]) -> dict[str, Any]:
    """What is known of a frame beside how it was solved, JSON-able."""
    notices = [*wrap_notices(problem), *held_out_notices(solved.get("held_out"))]
    return {
        "acceleration": round(problem.acceleration, 3),
        "scale_in_noise": round(problem.scale, 3),
        "coils": int(problem.sense.maps.shape[1]),
        "calibration": list(problem.centre.shape[2:]),
        **({"notices": notices} if notices else {}),
    }


def _others(
    problem: Problem, options: ReconstructOptions, scan: RawScan, facts: dict[str, Any]
) -> dict[str, NDArray[np.float32]]:
    """Magnitudes by the plain methods, of the same data; their held-out errors go to facts."""
    images: dict[str, NDArray[np.float32]] = {}
    share = options.share_held_out
    fewer, held = hold_out(problem, share, options.seed) if share else (problem, None)
    errors = {}
    for method in COMPARED:
        if method == options.method:
            continue
        image = solve(fewer, ReconstructOptions(method))
        images[method] = np.abs(on_recon_grid(image * problem.scale, scan))
        if held is not None:
            errors[method] = round(held.error(image), 4)
    if errors:
        facts["held_out"]["error_of_others"] = errors
    return images


def _interval_scale(facts: dict[str, Any]) -> float:
    """What the spread is multiplied by; 1 where nothing was held out."""
    held = facts.get("held_out")
    if held is None:
        return 1.0
    return interval_scale(held["error_in_noise"], held["spread_in_noise"])


def spread_of(magnitudes: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Standard deviation over two draws or more, as neighbours tell it, too."""
    moments = Moments()
    for magnitude in magnitudes:
        moments.add(magnitude)
    return smooth_spread(moments.std())


def _maps(mean: Volume, std: NDArray[np.float32]) -> dict[Quantity, Volume]:
    """The spread, and the interval that it stands for if errors are normal."""
    width = np.float32(NOMINAL) * std
    return {
        "std": mean.with_data(std),
        "lower": mean.with_data(np.maximum(mean.data - width, 0)),
        "upper": mean.with_data(mean.data + width),
    }


def frame_problem(
    scan: RawScan,
    frame: int = 0,
    *,
    noise: NDArray[np.complex64] | None = None,
    coils: int | None = None,
) -> Problem:
    """One frame of a scan as a problem, its slices as a batch, without readout oversampling."""
    samples = scan.noise if noise is None else noise
    told = None if samples is None else torch.from_numpy(samples)
    if scan.trajectory is not None:
        return _gridless(scan, scan.trajectory, frame, told, coils)
    size = _readout(scan)
    kspace, mask = _narrowed(scan.kspace[frame], scan.mask[frame], size)
    calibration = None
    if scan.calibration is not None:
        known, where = scan.calibration
        which = min(frame, len(known) - 1)
        calibration = _narrowed(known[which], where[which], size)
    matrix = kspace.shape[2:]
    ratio = [size / scan.encoded_matrix[0], 1.0, 1.0]
    fov = [f * r for f, r in zip(scan.fov_mm, ratio, strict=True)]
    x, y, z = (f / n for f, n in zip(fov, matrix, strict=True))
    return make_problem(
        kspace,
        mask,
        (x, y, scan.spacing[2] if matrix[2] == 1 else z),
        noise=told,
        calibration=calibration,
        coils=coils,
    )


def _gridless(
    scan: RawScan, trajectory: Trajectory, frame: int, noise: Tensor | None, coils: int | None
) -> Problem:
    """One frame of a scan with a trajectory."""
    x, y, z = (f / n for f, n in zip(scan.fov_mm, trajectory.matrix, strict=True))
    return make_gridless_problem(
        torch.from_numpy(scan.kspace[frame]),
        torch.from_numpy(scan.mask[frame]),
        torch.from_numpy(trajectory.places[min(frame, len(trajectory.places) - 1)]),
        trajectory.matrix,
        (x, y, scan.spacing[2] if trajectory.matrix[2] == 1 else z),
        noise=noise,
        coils=coils,
    )


def on_recon_grid(image: Tensor, scan: RawScan) -> NDArray[np.complex64]:
    """(B, X, Y, Z) of the encoded matrix to (X, Y, Z or slices) of the scan's image."""
    ratio = [image.shape[1] / scan.encoded_matrix[0], 1.0, 1.0]
    fov = [f * r for f, r in zip(scan.fov_mm, ratio, strict=True)]
    sizes = [
        min(n, max(1, round(n * r / f)))
        for n, r, f in zip(image.shape[1:], scan.recon_fov_mm, fov, strict=True)
    ]
    image = on_matrix(cropped(image, sizes), scan.recon_matrix)
    out: NDArray[np.complex64] = torch.cat(list(image), dim=-1).numpy()
    return out


def _readout(scan: RawScan) -> int:
    """Samples along kx without oversampling; all where some are missing, or it is none."""
    n = scan.encoded_matrix[0]
    lines = scan.mask.any(axis=2)
    if not np.array_equal(scan.mask.all(axis=2), lines):  # an asymmetric echo
        return n
    size = round(n * scan.recon_fov_mm[0] / scan.fov_mm[0])
    return min(n, max(1, size))


def _narrowed(
    kspace: NDArray[np.complex64], mask: NDArray[np.bool_], size: int
) -> tuple[Tensor, Tensor]:
    """K-space and mask of one frame as tensors, the readout cropped to `size` voxels."""
    data = without_oversampling(torch.from_numpy(np.ascontiguousarray(kspace)), size)
    where = torch.from_numpy(np.ascontiguousarray(mask))
    return data, cropped(where, (size,), (-3,))


def _scaled(on_progress: OnProgress | None, frame: int, count: int) -> OnProgress | None:
    if on_progress is None:
        return None
    return lambda done, total: on_progress(frame * total + done, count * total)
