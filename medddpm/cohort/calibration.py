"""How long a cohort will take and how much memory it needs, from a measurement on this machine.

A restoration takes a fixed time and a time for each voxel of its tiles. Two synthetic scans give
both; the measurement is kept for the same machine, weights and options.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from medddpm.cohort.job import Settings, do_job, find_done
from medddpm.cohort.pool import Pool
from medddpm.cohort.records import digest_of
from medddpm.cohort.run import CohortRun
from medddpm.cohort.sources import Job, find_jobs
from medddpm.errors import CohortError, MedddpmError
from medddpm.io import atomic_path, scan_shape, write_volume
from medddpm.io.outputs import write_json
from medddpm.model.model import load_model
from medddpm.preprocess.tiles import plan_tiles
from medddpm.restoration.memory import BYTES_A_VOLUME_VOXEL
from medddpm.restoration.options import RestoreOptions
from medddpm.threads import available_cores
from medddpm.volume import Geometry, Volume

_EDGES = (48, 96)
_BYTES_IN_HAND = 8
"""Input and output, in float32, of the scan that is read or written beside the one computed."""
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Calibration:
    """What was measured in one process with the threads of a worker.

    Attributes:
        fixed_s: Seconds of a scan whatever its size.
        voxel_s: Seconds of a voxel of a tile.
        peak_gb: Most memory of the process, at `_EDGES[-1]` voxels an edge.
        start_s: Seconds until a run computes: PyTorch is loaded by the command and then by its
            workers, and a worker's first scan takes longer.
    """

    fixed_s: float
    voxel_s: float
    peak_gb: float
    start_s: float

    def seconds(self, tile_voxels: int) -> float:
        """Time of one frame with so many voxels in its tiles."""
        return self.fixed_s + self.voxel_s * tile_voxels

    def memory_gb(self, voxels: int) -> float:
        """Most memory of a worker whose largest scan has so many voxels."""
        more = (voxels - _EDGES[-1] ** 3) * BYTES_A_VOLUME_VOXEL + voxels * _BYTES_IN_HAND
        return self.peak_gb + max(more, 0) / 1e9


@dataclass(frozen=True)
class Prediction:
    """What a cohort will take.

    Attributes:
        scans: In the source.
        to_do: Not done yet.
        unreadable: Of those to do, scans whose header cannot be read; they will fail at once.
        start_s: Seconds until the workers compute.
        work_s: Seconds of one worker for all of them.
        pool: The workers.
        memory_gb: Most memory of a worker.
    """

    scans: int
    to_do: int
    unreadable: int
    start_s: float
    work_s: float
    pool: Pool
    memory_gb: float

    @property
    def seconds(self) -> float:
        """From the start of the command to the last scan."""
        return self.start_s + self.work_s / self.pool.workers

    @property
    def text(self) -> str:
        """The prediction for a person."""
        share = f" of {self.pool.memory_gb:.1f} GB" if self.pool.memory_gb else ""
        return "\n".join(
            [
                f"scans        {self.scans}, {self.to_do} to do, {self.unreadable} unreadable",
                f"workers      {self.pool.workers} ({self.pool.where})",
                f"start        {self.start_s:.0f} s",
                f"work         {self.work_s:.0f} s of one worker",
                f"time         {self.seconds:.0f} s = {self.seconds / 3600:.2f} h",
                f"memory       {self.memory_gb:.1f} GB a worker{share}",
            ]
        )


def predict(
    run: CohortRun,
) -> Prediction:
    """What the run will take; nothing is written but the measurement."""
    found, settings = find_jobs(run.source, run.out), run.settings()
    to_do = [job for job in found.jobs if find_done(job, settings) is None]
    known = calibration(settings)
    multiple = load_model(settings.weights).multiple
    work, largest, unreadable = 0.0, 0, len(found.broken)
    for job in to_do:
        try:
            shape, frames = scan_shape(job.files)
        except MedddpmError:
            unreadable += 1
            continue
        work += frames * known.seconds(_tile_voxels(shape, run.options, multiple))
        largest = max(largest, math.prod(shape))
    total = len(found.jobs) + len(found.broken)
    start, memory = known.start_s if work else 0.0, known.memory_gb(largest)
    return Prediction(total, len(to_do), unreadable, start, work, run.pool, memory)


def calibration(settings: Settings) -> Calibration:
    """The measurement for these weights and options on this machine; made once and kept."""
    where = [
        platform.node(),
        platform.machine(),
        available_cores(),
        settings.threads,
        settings.device,
    ]
    path = _cache() / f"calibration-{digest_of([where, settings.deciding()])}.json"
    with suppress(OSError, ValueError, TypeError):
        return Calibration(**json.loads(path.read_text(encoding="utf-8")))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        measured = process.submit(_measure, settings, time.time()).result()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            write_json(partial, asdict(measured))
    return measured


def _measure(settings: Settings, asked: float) -> Calibration:
    """Restore two synthetic scans from file to file; the first of all only warms up.

    Args:
        settings: Of the run.
        asked: When the process of this was asked for, in seconds since 1970.
    """
    loading = time.time() - asked
    multiple = load_model(settings.weights).multiple
    with tempfile.TemporaryDirectory(prefix="medddpm-") as name:
        folder = Path(name)
        settings = replace(settings, out=folder, state=folder / "state", format="nifti")
        seconds, voxels = [], []
        for number, edge in enumerate((_EDGES[0], *_EDGES)):
            path = write_volume(_head(edge), folder / f"{number}.nii.gz")
            outcome = do_job(Job(str(number), (path,), stem=f"{number}_restored"), settings)
            if not outcome.is_done:
                raise CohortError(f"the calibration failed: {outcome.reason}")
            seconds.append(outcome.seconds)
            voxels.append(_tile_voxels((edge, edge, edge), settings.options, multiple))
    voxel_s = max(seconds[2] - seconds[1], 0) / (voxels[2] - voxels[1])
    fixed_s = max(seconds[1] - voxel_s * voxels[1], 0)
    unit = 1e9 if sys.platform == "darwin" else 1e9 / 1024
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    start_s = 2 * loading + max(seconds[0] - seconds[1], 0)
    return Calibration(fixed_s, voxel_s, peak_gb, start_s)


def _head(edge: int) -> Volume:
    """A ball of tissue with Rician noise that fills most of its grid, as a head does."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, edge, dtype=np.float32)
    inside = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 0.9
    clean = (900 + 90 * np.sin(20 * axis)) * inside
    real, imaginary = (rng.standard_normal(clean.shape, np.float32) * 45 for _ in range(2))
    data = np.hypot(clean + real, imaginary)
    return Volume(data, Geometry((edge, edge, edge), np.eye(4)), case_id="calibration")


def _tile_voxels(shape: Shape, options: RestoreOptions, multiple: int) -> int:
    plan = plan_tiles(shape, options.tile, options.overlap, multiple)
    return len(plan.starts) * math.prod(plan.tile)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "medddpm"
