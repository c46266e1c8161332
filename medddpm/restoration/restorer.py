"""The one object that holds a model and restores a scan. Read `Restorer._restore_frame` first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medddpm.errors import ConfigError, SamplingDivergedError
from medddpm.guard import Guard, guard_of, inspect
from medddpm.io import with_padding, without_padding
from medddpm.io.acquired import read_acquired
from medddpm.io.files import check_intensities
from medddpm.io.sidecar import Facts, IntervalFacts, SeriesFacts, WeightsFacts
from medddpm.model.blocks import channels_last
from medddpm.model.interval import NOMINAL, interval_table
from medddpm.model.model import Model, find_weights, load_model
from medddpm.preprocess.degrade import volume_seed
from medddpm.preprocess.frame import Frame
from medddpm.preprocess.intensity import emptied
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.preprocess.tiles import (
    TilePlan,
    Triple,
    batches,
    blended,
    filled,
    pad_mirrored,
    plan_tiles,
)
from medddpm.preprocess.values import Looked, look_at, look_at_parts
from medddpm.restoration.blank import first_frame
from medddpm.restoration.complex_frame import Turned, shrunk_imaginary
from medddpm.restoration.frame_facts import frame_facts
from medddpm.restoration.memory import tile_batch
from medddpm.restoration.moments import Moments, smooth_spread
from medddpm.restoration.options import RestoreOptions, warn_of_idle
from medddpm.restoration.probe import probe
from medddpm.restoration.referenced import Reference
from medddpm.restoration.restored import Restored
from medddpm.restoration.restored_frame import RestoredFrame, as_scan, assemble, untouched
from medddpm.restoration.seen_frame import frame_of, noise_of
from medddpm.restoration.series import Series, check_series, restore_series
from medddpm.restoration.tile import TileRestorer, uses_bf16
from medddpm.restoration.told import Told, told_of_frames
from medddpm.restoration.weak_signal import with_weak_signal
from medddpm.volume import ComplexVolume, Volume

Array = NDArray[np.float32]
OnProgress = Callable[[int, int], None]

__all__ = ["RestoreOptions", "Restored", "Restorer"]


@dataclass(frozen=True)
class _Task:
    """What is asked of a scan: how, with what noise in each frame, and who hears of it."""

    volume: Volume
    options: RestoreOptions
    told: list[Told]
    on_progress: OnProgress | None
    reference: Reference | None = None

    def seed(self, index: int) -> int:
        """That of a frame, which fixes its noise field."""
        return volume_seed(self.options.seed, self.volume.case_id, index)

    @property
    def is_series(self) -> bool:
        """True if the frames are restored together before each alone."""
        return self.options.frames != "each"

    def progress(self, index: int) -> OnProgress | None:
        """Who hears of a frame, as a part of all; with a series the first half is that."""
        tell, count = self.on_progress, self.volume.num_frames
        if tell is None:
            return None
        before, parts = (count, 2 * count) if self.is_series else (0, count)
        return lambda done, total: tell((before + index) * total + done, parts * total)

    def slabs(self) -> OnProgress | None:
        """Who hears of the slabs of a series."""
        tell = self.on_progress
        return None if tell is None else lambda done, total: tell(done, 2 * total)


class Restorer:
    """Restores scans with one model.

    Example:
        >>> restorer = Restorer.from_pretrained()               # doctest: +SKIP
        >>> result = restorer.restore(volume, mode="mean")      # doctest: +SKIP
    """

    def __init__(self, model: Model, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.model = model.to(self.device).eval()
        self.intervals = interval_table(model.card)
        channels_last(self.model)

    @classmethod
    def from_pretrained(cls, weights: str | Path = "default", device: str = "auto") -> Restorer:
        """A restorer with shipped weights by name, or with those of a file."""
        return cls(load_model(find_weights(weights)), device)

    def restore(
        self,
        volume: Volume,
        *,
        options: RestoreOptions | None = None,
        law: NoiseLaw | None = None,
        sigma_map: Array | None = None,
        reference: Reference | None = None,
        on_progress: OnProgress | None = None,
        **changes: Any,
    ) -> Restored:
        """The scan with its noise removed, in its own units, on its own grid.

        Args:
            volume: 3D or 4D; the frames of a 4D scan are restored one by one, or with
                frames="mppca" first together, and blank ones pass through.
            options: All options; default ones if not given.
            law: The noise, where it is known, in scan units and on the scan's grid.
            sigma_map: Sigma of one real component at each voxel, (X, Y, Z) or of the scan's
                shape, in scan units, where that alone is known.
            reference: Another contrast of the same person, for `mean`.
            on_progress: Called as (tiles done, tiles in all).
            **changes: Single options, such as mode="ensemble"; those without effect are warned of.

        Raises:
            ConfigError: An option is out of range, or two contradict each other, or a scan has too
                few frames to be restored together.
            MissingExtraError: DIPY is missing, which "mppca" needs.
            CheckpointError: The reference belongs to other weights.
            GeometryError: It lies elsewhere.
            VolumeReadError: This is no scan (one slice, NaN, blank), or its values are such as
                the law of the noise does not know; see `preprocess.values.look`.
            MemoryBudgetError: The budget is smaller than one tile needs.
            SamplingDivergedError: A network produced NaN or infinity.
        """
        image = _checked(without_padding(volume))
        try:
            options = replace(options or RestoreOptions(), **changes)
        except TypeError as error:
            raise ConfigError(f"unknown option of restore: {error}") from error
        options = options.for_weights(self.model.own_sampler)
        warn_of_idle({name: text for name, text in options.idle().items() if name in changes})
        told = told_of_frames(volume, options, law, sigma_map)
        if reference is not None:
            reference.check(options, self.model.networks_digest)
        task, began = _Task(volume, options, told, on_progress, reference), time.perf_counter()
        frames, series = self._restore_all(image, task)
        facts = self._facts(volume, frames, options, time.perf_counter() - began)
        if series is not None:
            facts = facts.model_copy(update={"series": series})
        whole = as_scan(volume, frames, facts, least=-np.inf if options.noise == "gaussian" else 0)
        return replace(
            whole,
            volume=with_padding(whole.volume, volume),
            std=None if whole.std is None else without_padding(whole.std),
            lower=None if whole.lower is None else with_padding(whole.lower, volume),
            upper=None if whole.upper is None else with_padding(whole.upper, volume),
        )

    def restore_complex(
        self,
        scan: ComplexVolume,
        *,
        options: RestoreOptions | None = None,
        sigma_map: Array | None = None,
        on_progress: OnProgress | None = None,
    ) -> Restored:
        """The magnitude and the phase of a scan with its noise removed from both.

        The object's smooth phase is taken off: it then lies in the real part, in Gaussian noise,
        which the networks restore. Noise is found in the imaginary part, where no anatomy is, and
        the shrinkage that the networks start from restores it. The phase is given back.

        Args:
            scan: 3D or 4D, frame by frame.
            options: As in `restore`, with "gaussian" noise; spread is that of the real part.
            sigma_map: As in `restore`.
            on_progress: Called as (tiles done, tiles in all).

        Raises:
            ConfigError: Frames are to be restored together.
            VolumeReadError: This is no scan: one slice, NaN, blank.
        """
        volume = _checked(scan.magnitude)
        options = replace(options or RestoreOptions(), noise="gaussian")
        if options.frames != "each":
            raise ConfigError(
                f"restore.frames={options.frames} takes magnitudes, and this scan has its phase; "
                "leave the phase out, or use restore.frames=each"
            )
        options = options.for_weights(self.model.own_sampler)
        told = told_of_frames(volume, options, None, sigma_map)
        task, began = _Task(volume, options, told, on_progress), time.perf_counter()
        frames, phases = [], []
        for index in range(volume.num_frames):
            turned = Turned.of(scan.frame(index))
            seen = look_at_parts(volume, index, turned.real, turned.imaginary, turned.edges)
            done = self._restore_seen(seen, task, index)
            left = shrunk_imaginary(turned.imaginary, done.frame, seen, self.model, options)
            whole = (done.mean + 1j * left) * turned.turn
            frames.append(replace(done, mean=np.abs(whole)))
            phases.append(np.angle(whole).astype(np.float32))
        facts = self._facts(volume, frames, options, time.perf_counter() - began)
        return replace(as_scan(volume, frames, facts, least=0), phase=assemble(volume, phases))

    def _restore_all(
        self, image: Volume, task: _Task
    ) -> tuple[list[RestoredFrame], SeriesFacts | None]:
        """Each frame, alone or after all were restored together."""
        kind, indices = task.options.noise, range(image.num_frames)
        if not task.is_series:
            return [self._restore_seen(look_at(image, i, kind), task, i) for i in indices], None
        check_series(image)
        looks = [look_at(image, i, kind) for i in indices]
        series = restore_series(task.volume, looks, task.options, task.told, task.slabs())
        frames = [self._restore_seen(looks[i], task, i, series) for i in indices]
        return frames, series.facts

    def _restore_seen(
        self, seen: Looked, task: _Task, index: int, series: Series | None = None
    ) -> RestoredFrame:
        """A frame in its own values, whatever the networks were shown."""
        options, on_progress = task.options, task.progress(index)
        if series is None:
            frame = self.frame(seen, task.volume, options, task.told[index])
            work = frame
        else:
            frame = series.frames[index]
            work = series.cleaned.get(index, frame)
        if frame.noise.method == "none":
            if on_progress:
                on_progress(1, 1)
            return untouched(seen, frame, options)
        done = self._restore_frame(frame, work, task, index)
        return replace(
            done,
            mean=seen.restored(done.mean),
            std=seen.spread(done.std),
            half_width=seen.spread(done.half_width),
            values=seen.summary,
            sigma_left=None if series is None else series.left(index),
        )

    def _restore_frame(self, frame: Frame, work: Frame, task: _Task, index: int) -> RestoredFrame:
        """The main path: sigma, scale, acquired grid, tiles, decode, guard, and back.

        The networks go on from `work`, which is the frame itself, or the same without the noise
        that other frames told; the guard judges by the frame.
        """
        options, reference = task.options, task.reference
        placed = None if reference is None else reference.on(frame)
        box = filled(work.y, options.overlap // 2)
        plan = plan_tiles(frame.y.shape, options.tile, options.overlap, self.model.multiple, box)
        x_hat, std, num_tiles = self._restore_tiles(
            work, plan, task.seed(index), options, task.progress(index)
        )
        if options.noise != "gaussian":
            np.maximum(x_hat, 0, out=x_hat)
        if placed is not None:
            bf16 = uses_bf16(options, self.device)
            x_hat, misfit = placed.helps(x_hat, self.device, bf16=bf16)
        if options.give_back and options.mode == "mean":
            x_hat = with_weak_signal(work, x_hat, options.give_back)
        seen = probe(self.model, x_hat, options, self.device)
        usual = self._guard_of(options)
        guard = inspect(frame, x_hat, guard=usual, features=seen.features, std=std)
        if placed is not None:
            guard = placed.judged(guard, misfit)
        width = None if std is None else frame.enlarged(self._half_width(frame, x_hat, std))
        mean = frame.onto_scan(x_hat)
        if options.noise != "gaussian":
            np.maximum(mean, 0, out=mean)
        std = None if std is None else frame.enlarged(std)
        background = emptied(frame.image)
        for part in (mean, std):
            if part is not None and background is not None:
                part[background] = 0
        for part in (mean, std, width):
            if part is not None:
                part *= np.float32(frame.scale)
        return RestoredFrame(mean, std, width, frame, seen.ceiling, guard, num_tiles)

    def frame(
        self, seen: Looked, volume: Volume, options: RestoreOptions, told: Told = None
    ) -> Frame:
        """One frame of a scan with its noise, as given or as found in it."""
        return frame_of(seen, volume, noise_of(seen, volume, options, told))

    def _restore_tiles(
        self,
        frame: Frame,
        plan: TilePlan,
        seed: int,
        options: RestoreOptions,
        on_progress: OnProgress | None,
    ) -> tuple[Array, Array | None, int]:
        """Blend the tiles of each sample; returns mean, std and the number of tiles."""
        if np.max(frame.law.sigma) == 0:  # MPPCA left no noise
            return frame.y.copy(), None, 0
        num_samples = options.samples if options.mode == "ensemble" else 1
        size = tile_batch(plan, options.memory_gb, self.device, self.model)
        padded = pad_mirrored(frame.y, plan.padded)
        groups = list(batches(plan, size, padded == 0))
        num_tiles = sum(len(group) for group in groups)
        law = frame.law
        if not isinstance(law.sigma, float):
            law = replace(law, sigma=pad_mirrored(law.sigma, plan.padded))
        tiles = TileRestorer(self.model, self.device, law, frame.spacing, seed, options)
        moments, done = Moments(), 0

        def restored(sample: int, stack: Array, group: list[Triple]) -> Array:
            nonlocal done
            out = tiles.restore(stack, group, sample)
            done += len(group)
            if on_progress:
                on_progress(done, num_samples * num_tiles)
            return out

        for sample in range(num_samples):
            moments.add(blended(plan, padded, groups, partial(restored, sample)))
        if not np.isfinite(moments.mean).all():
            raise SamplingDivergedError("the restoration holds NaN or infinity; nothing was kept")
        std = smooth_spread(moments.std()) if num_samples > 1 else None
        return moments.mean, std, num_tiles

    def _guard_of(self, options: RestoreOptions) -> Guard:
        return guard_of(self.model.card, self.model.arrays, options.mode, options.other_than)

    def _half_width(self, frame: Frame, x_hat: Array, std: Array) -> Array:
        if self.intervals is None:
            return np.float32(NOMINAL) * std
        return self.intervals.half_width(x_hat, std, frame.law.sigma, frame.spacing)

    def _interval_facts(self, options: RestoreOptions) -> IntervalFacts | None:
        """What stands behind the interval of an ensemble: who calibrated it, and for what."""
        if options.mode != "ensemble":
            return None
        found = self.model.card.get("calibration")
        if found is None:
            return IntervalFacts(level=0.9, calibrated=False)
        other = options.other_than(found["options"])
        return IntervalFacts(level=0.9, calibrated=True, calibrated_for_other_options=other)

    def _facts(
        self, volume: Volume, frames: list[RestoredFrame], options: RestoreOptions, seconds: float
    ) -> Facts:
        return Facts(
            options=asdict(options),
            weights=WeightsFacts(sha256=self.model.digest, name=self.model.card.get("name", "")),
            device=str(self.device),
            torch=torch.__version__,
            seconds=round(seconds, 3),
            interval=self._interval_facts(options),
            guard_calibrated=self._guard_of(options).usual is not None,
            frames=tuple(
                frame_facts(
                    f.frame, f.guard, f.ceiling, f.num_tiles, f.values, f.is_blank, f.sigma_left
                )
                for f in frames
            ),
            header=read_acquired(volume),
        )


def _checked(volume: Volume) -> Volume:
    """A volume that can be restored: none of its values is NaN, and one frame holds something."""
    check_intensities(volume.data, volume.case_id)
    first_frame(volume)
    return volume


def pick_device(name: str) -> torch.device:
    """The device of "auto", "cpu", "cuda" or "cuda:1"; auto takes CUDA where there is one.

    Raises:
        ConfigError: CUDA was asked for, and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("device cuda was asked for, but PyTorch sees none; use --device cpu")
    return torch.device(name)
