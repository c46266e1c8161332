"""Fit the guard's limits to good restorations, and see which faults it finds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.benchmark.degradation import NoiseModel
from medddpm.benchmark.measure import prepare_case
from medddpm.benchmark.options import BenchmarkOptions
from medddpm.benchmark.rows import with_units
from medddpm.calibration.faults import DIAMETERS, FAULTS, NONE, lesion_in
from medddpm.calibration.guard import FALSE_ALARMS, GuardFit, Trial, detection, fit_guard
from medddpm.data.scan_list import ScanList, scan_files
from medddpm.errors import ConfigError
from medddpm.guard import find_all
from medddpm.io import read_volume
from medddpm.io.kept import Kept, keep
from medddpm.io.outputs import check_targets, file_stem, staged, write_csv, write_json
from medddpm.io.provenance import checksum, versions
from medddpm.model.model import find_weights, with_card
from medddpm.preprocess.acquisition import acquire, draw_acquisition
from medddpm.preprocess.degrade import volume_seed
from medddpm.preprocess.intensity import intensity_scale
from medddpm.preprocess.noise import estimate_noise
from medddpm.preprocess.values import look
from medddpm.restoration.probe import probe
from medddpm.restoration.restorer import Restored, RestoreOptions, Restorer
from medddpm.volume import Volume

Row = dict[str, Any]
Image = NDArray[np.float32]
Tried = tuple[str, float, str]
"""A scan, its noise level and its fault."""
FOREIGN, LESION = "foreign scan", "lesion"
NAMES = ("model.safetensors", "guard.json", "detection.csv", "trials.csv")


@dataclass(frozen=True)
class GuardOptions:
    """What the guard is fitted to, and tested on.

    Attributes:
        sigmas: Noise levels, fractions of each scan's intensity scale.
        restore: The restoration.
        crop: Box of so many voxels around the middle of the foreground; None is the whole scan.
        faults_on: Patterns of the names of scans that are also restored with faults.
        foreign: Scans that the model must not know, such as a CT or a knee.
    """

    sigmas: tuple[float, ...] = (0.0, 0.03, 0.05, 0.09, 0.15)
    restore: RestoreOptions = field(default_factory=RestoreOptions)
    crop: tuple[int, int, int] | None = None
    faults_on: tuple[str, ...] = ()
    foreign: tuple[Path, ...] = ()


@dataclass(frozen=True)
class GuardCalibration:
    """What a calibration of the guard found.

    Attributes:
        rows: One a fault and noise level; see `detection`.
        fit: The limits and their false alarms.
        weights: The weights file with that card.
    """

    rows: list[Row] = field(repr=False)
    fit: GuardFit = field(repr=False)
    weights: Path


def calibrate_guard(
    scans: ScanList,
    out: Path,
    options: GuardOptions,
    *,
    weights: str | Path = "default",
    device: str = "auto",
    overwrite: bool = False,
    on_scan: Callable[[Tried, int, int], None] | None = None,
) -> GuardCalibration:
    """Fit the guard to restorations of clean scans with noise; writes weights with a new card.

    Each scan is spoilt with each level of noise, white and as acquired, and restored with a blind
    sigma; at level 0 it has its own noise alone. The limits of all alarms together flag 5 % of
    these, and so do those of all notices, each kind of scan judged by the others. Then scans are
    restored with something wrong on purpose, and it is counted what the guard sees. A run that was
    stopped goes on.

    Args:
        scans: Clean scans; the columns `subject` and `kind` (what shares scanner and contrast) of
            a CSV are used if they are there.
        out: Folder for model.safetensors, guard.json, detection.csv and trials.csv.
        options: What the guard is fitted to, and tested on.
        weights: Model to calibrate.
        device: Where it runs.
        overwrite: Replace outputs that exist.
        on_scan: Called with each scan, noise level and fault, how many are done, and of how many.

    Raises:
        ConfigError: No scan, or scans of one subject alone.
    """
    subjects, kinds = scans.subjects(), scans.column("kind")
    if len(set(subjects.values())) < 2:
        raise ConfigError(
            f"{scans.data} holds one subject; the guard is tested on other subjects than it learns "
            "from, so give scans of two or more (a CSV with a column `subject` tells)"
        )
    check_targets([out / name for name in NAMES], overwrite=overwrite)
    restorer = Restorer.from_pretrained(weights, device)
    settings = replace(options.restore, sigma=None).for_weights(restorer.model.own_sampler)
    options = replace(options, restore=settings)
    lab = _Lab(restorer, options.restore, options.crop, out)
    trials: list[Trial] = []
    work = list(product(_plan(list(subjects), options), sorted(options.sigmas)))
    for done, ((path, fault), sigma) in enumerate(work, start=1):
        who = (file_stem(path), subjects.get(path, file_stem(path)), kinds.get(path, ""))
        trials += [Trial(*who, **row) for row in lab.trials(path, sigma, fault)]
        if on_scan:
            on_scan((who[0], sigma, fault), done, len(work))
    fit = fit_guard(trials)
    rows, content = detection(trials, fit), _content(trials, fit, options)
    mode, card = options.restore.mode, lab.restorer.model.card
    card = card | {"guard": card.get("guard", {}) | {mode: content}}
    with staged(out) as folder:
        with_card(find_weights(weights), folder / NAMES[0], card, _arrays(fit, mode))
        write_json(folder / NAMES[1], content)
        write_csv(folder / NAMES[2], with_units(rows))
        write_csv(folder / NAMES[3], with_units([_line(trial) for trial in trials]))
    return GuardCalibration(rows, fit, out / NAMES[0])


def _plan(files: Sequence[Path], options: GuardOptions) -> Iterator[tuple[Path, str]]:
    """Which scan is restored with which fault: first all without one."""
    wanted = options.faults_on
    spoilt = [path for path in files if any(fnmatch(file_stem(path), p) for p in wanted)]
    yield from ((path, NONE) for path in files)
    for fault in [LESION, *FAULTS]:
        yield from ((path, fault) for path in spoilt if fault != NONE)
    yield from ((path, FOREIGN) for given in options.foreign for path in scan_files(given))


@dataclass(frozen=True)
class _Lab:
    restorer: Restorer
    options: RestoreOptions
    crop: tuple[int, int, int] | None
    out: Path

    def trials(self, path: Path, sigma: float, fault: str) -> list[Row]:
        """What was found with a fault: read where it is there, else computed and kept."""
        digest = self.restorer.model.digest
        parts = [checksum([path]), sigma, fault, asdict(self.options), self.crop, digest]
        key = hashlib.sha256(json.dumps([*parts, versions()["medddpm"]]).encode()).hexdigest()[:20]
        kept = self.out / "trials" / f"{key}.json"
        found = keep(kept, lambda: Kept({"trials": list(self._run(path, sigma, fault))}))
        trials: list[Row] = found["trials"]
        return trials

    def _run(self, path: Path, sigma: float, fault: str) -> Iterator[Row]:
        clean = prepare_case(read_volume(path), BenchmarkOptions(crop=self.crop)).volume
        scale = intensity_scale(np.asarray(clean.data, np.float32))
        if fault == NONE:
            for noisy in _as_scanned(clean, scale, sigma):
                done = self.restorer.restore(noisy, options=self.options)
                yield self._row(noisy, done, sigma, fault, done.volume.data)
            return
        made, noise = FAULTS.get(fault, FAULTS[NONE]), NoiseModel()
        noisy = made.spoil(clean, sigma * scale, noise)
        options = self.options
        if made.sigma_factor != 1:
            estimate = estimate_noise(noisy.data, spacing=noisy.spacing)
            options = replace(options, sigma=made.sigma_factor * estimate.sigma)
        done = self.restorer.restore(noisy, options=options)
        if fault == LESION:
            yield from self._with_lesions(clean, scale, sigma, noisy, done)
        else:
            yield self._row(noisy, done, sigma, fault, done.volume.data)

    def _with_lesions(
        self, clean: Volume, scale: float, sigma: float, noisy: Volume, done: Restored
    ) -> Iterator[Row]:
        """A lesion that the restoration made up, and one that it lost."""
        for diameter in DIAMETERS:
            lesion = lesion_in(clean, scale, diameter)
            if lesion is None:
                continue
            added = np.maximum(done.volume.data + lesion, 0)
            yield self._row(noisy, done, sigma, f"lesion added, {diameter:g} mm", added)
            ill = clean.with_data(np.maximum(clean.data + lesion, 0))
            seen = FAULTS[NONE].spoil(ill, sigma * scale, NoiseModel())
            lost = f"lesion removed, {diameter:g} mm"
            yield self._row(seen, done, sigma, lost, done.volume.data)

    def _row(self, noisy: Volume, done: Restored, sigma: float, fault: str, restored: Image) -> Row:
        level = done.facts.frames[0].sigma.fraction
        options = replace(self.options, sigma=_told(done))
        frame = self.restorer.frame(look(noisy.data, options.noise), noisy, options)
        x_hat = frame.from_scan(np.asarray(restored, np.float32))
        std = None if done.std is None else np.maximum(frame.from_scan(done.std.data), 0)
        found = find_all(frame.y, x_hat, frame.law, frame.mask, spacing=frame.spacing, std=std)
        features = probe(self.restorer.model, x_hat, options, self.restorer.device).features
        return {
            "sigma": sigma,
            "fault": fault,
            "level": level,
            "findings": {name: round(f.value, 6) for name, f in found.items()},
            "features": None if features is None else [round(float(v), 4) for v in features],
        }


def _as_scanned(clean: Volume, scale: float, sigma: float) -> Iterator[Volume]:
    """A scan with white noise, and as acquired; at sigma 0 with its own noise alone."""
    image = np.asarray(clean.data, np.float32)
    if sigma == 0:
        yield clean
        return
    yield FAULTS[NONE].spoil(clean, sigma * scale, NoiseModel())
    rng = np.random.default_rng(volume_seed(round(1e4 * sigma), clean.case_id))
    acquisition = draw_acquisition(sigma, clean.spacing, rng)
    if acquisition.kind != "rician":  # of which the restoration would have to be told
        acquisition = replace(acquisition, kind="rician")
    made = acquire(image / np.float32(scale), acquisition, rng)
    yield clean.with_data(made.noisy * np.float32(scale))


def _told(done: Restored) -> float | None:
    """The level of a restoration that was told one."""
    found = done.facts.frames[0].sigma
    return found.sigma if found.method == "given" else None


def _content(
    trials: Sequence[Trial],
    fit: GuardFit,
    options: GuardOptions,
) -> Row:
    good = [t for t in trials if t.fault == NONE]
    return {
        "options": options.restore.method,
        "checks": list(fit.usual.known.findings),
        "reach": dict(fit.usual.reach),
        "ranges": dict(fit.usual.ranges),
        "false_alarms": dict(fit.false_alarms),
        "any_false_alarm": round(fit.any_flag, 4),
        "aim": FALSE_ALARMS,
        "sigmas": sorted({t.sigma for t in good}),
        "scans": len({t.scan for t in good}),
        "subjects": len({t.subject for t in good}),
        "crop": options.crop,
    }


def _arrays(fit: GuardFit, mode: str) -> dict[str, Image]:
    known = fit.usual.known
    table = np.stack(list(known.findings.values()), axis=1)
    parts = {"features": known.features, "levels": known.levels, "findings": table}
    parts["spread"] = known.spread
    return {f"guard.{mode}.{name}": a.astype(np.float32) for name, a in parts.items()}


def _line(trial: Trial) -> Row:
    """A trial in the table of all."""
    names = ("scan", "subject", "kind", "sigma", "fault", "level")
    return {name: getattr(trial, name) for name in names} | dict(trial.findings)
