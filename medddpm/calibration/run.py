"""Calibrate the intervals of an ensemble on clean scans that no training has seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from medddpm.benchmark.measure import Case, prepare_case, spoil
from medddpm.benchmark.options import BenchmarkOptions, NoiseName
from medddpm.benchmark.rows import with_units
from medddpm.calibration.figure import calibration_figure
from medddpm.calibration.intervals import (
    LEVEL,
    Origin,
    Points,
    Seen,
    Tested,
    cross_fit,
    fit_table,
    in_order,
    points_of,
    pooled_rank,
    reliability,
    risk_coverage,
    scores,
)
from medddpm.data.scan_list import ScanList
from medddpm.errors import ConfigError
from medddpm.io import read_volume
from medddpm.io.outputs import check_targets, file_stem, staged, write_csv, write_json
from medddpm.io.provenance import checksum, versions
from medddpm.model.model import find_weights, with_card
from medddpm.restoration.restorer import Restored, RestoreOptions, Restorer

Row = dict[str, Any]
_ARRAYS = ("mean", "std", "error", "block_std", "block_error")
NOISES: tuple[NoiseName, ...] = ("white", "acquired")
NAMES = ("model.safetensors", "calibration.json", "coverage.csv", "coverage.png")


@dataclass(frozen=True)
class CalibrationOptions:
    """What the intervals are fitted to.

    Attributes:
        sigmas: Noise levels, fractions of each scan's intensity scale.
        noises: Kinds of noise, as in `BenchmarkOptions`; each scan gets a scanner of its own.
        restore: The ensemble.
        crop: Box of so many voxels around the middle of the foreground; None is the whole scan.
        test: Clean scans of other subjects that the table is tested on and not fitted to.
    """

    sigmas: tuple[float, ...] = (0.03, 0.05, 0.09, 0.15)
    noises: tuple[NoiseName, ...] = NOISES
    restore: RestoreOptions = field(default_factory=RestoreOptions)
    crop: tuple[int, int, int] | None = None
    test: ScanList | None = None


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Attributes:
        rows: One a scan and noise: its coverage under a table fitted to other subjects;
            "part" says whether it is a scan of the "calibration" or of the "test".
        content: The table as the card holds it.
        weights: The weights file with that card.
    """

    rows: list[Row] = field(repr=False)
    content: dict[str, Any] = field(repr=False)
    weights: Path


def calibrate(
    scans: ScanList,
    out: Path,
    options: CalibrationOptions,
    *,
    weights: str | Path = "default",
    device: str = "auto",
    overwrite: bool = False,
    on_scan: Callable[[Points, int, int], None] | None = None,
) -> Calibration:
    """Fit the 90 % intervals of an ensemble to clean scans; writes weights with a new card.

    Noise of each kind and level is added to each scan, an ensemble restores it with a blind
    sigma, and the table takes the widths that would have held 90 %.
    The coverage that is reported is that of
    each subject under a table of the others, and that of the test scans under the table itself.
    A run that was stopped goes on.

    Args:
        scans: Clean scans; a CSV has a column `subject` if the names do not tell who it is.
        out: Folder for model.safetensors, calibration.json, coverage.csv and coverage.png.
        options: What the intervals are fitted to.
        weights: Model to calibrate.
        device: Where it runs.
        overwrite: Replace outputs that exist.
        on_scan: Called with the points of each scan and noise, how many are done, and of how many.

    Raises:
        ConfigError: No scan, scans of one subject alone, or a subject of both parts.
    """
    subjects = scans.subjects()
    if len(set(subjects.values())) < 2:
        raise ConfigError(
            f"{scans.data} holds one subject; coverage is tested on other subjects than the "
            "intervals were fitted to, so give scans of two or more (a CSV with a column `subject` "
            "tells)"
        )
    tested = {} if options.test is None else _test_subjects(options.test, {*subjects.values()})
    check_targets([out / name for name in NAMES], overwrite=overwrite)
    settings = replace(options.restore, mode="ensemble", sigma=None)
    restorer = Restorer.from_pretrained(weights, device)
    options = replace(options, restore=settings.for_weights(restorer.model.own_sampler))
    points: list[Points] = []
    who, spoilt = subjects | tested, list(product(options.noises, sorted(options.sigmas)))
    for (path, subject), (noise, sigma) in product(who.items(), spoilt):
        origin = Origin(subject, file_stem(path), noise, sigma)
        points.append(_measure(path, origin, options, restorer, out))
        if on_scan:
            on_scan(points[-1], len(points), len(who) * len(spoilt))
    held = set(tested.values())
    fitted = [p for p in points if p.subject not in held]
    parts = {"calibration": cross_fit(fitted)}
    if tested:
        table = fit_table(fitted)
        parts["test"] = in_order([(p, table) for p in points if p.subject in held])
    rows = [{**scores(*pair), "part": part} for part, found in parts.items() for pair in found]
    content = _content(fitted, parts, rows, options)
    _write(out, rows, content, find_weights(weights), restorer.model.card)
    return Calibration(rows, content, out / NAMES[0])


def _test_subjects(test: ScanList, fitted: set[str]) -> dict[Path, str]:
    found = test.subjects()
    both = sorted(fitted & set(found.values()))
    if both:
        raise ConfigError(
            f"{both[0]} is in the calibration and in {test.data}; a subject can be in one of them "
            "only"
        )
    return found


def _measure(
    path: Path, origin: Origin, options: CalibrationOptions, restorer: Restorer, out: Path
) -> Points:
    """The points of one scan and noise: read where they are there, else computed and kept."""
    noise, sigma, crop = origin.noise, origin.sigma, options.crop
    parts = [checksum([path]), noise, sigma, asdict(options.restore), crop, restorer.model.digest]
    parts += [versions()["medddpm"], "seen"]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
    kept = out / "points" / f"{key}.npz"
    if not kept.exists():
        bench = BenchmarkOptions(sigmas=(sigma,), crop=crop, noises=(noise,))
        spoilt = spoil(prepare_case(read_volume(path), bench), sigma, noise, bench)
        case, law = spoilt.case, spoilt.law
        told = replace(options.restore, noise=law.kind, coils=law.coils)
        done = restorer.restore(spoilt.noisy, options=told)
        if done.std is None:
            raise AssertionError("an ensemble has a spread")
        scale = np.float32(case.scale)
        images = (case.volume.data / scale, done.volume.data / scale, done.std.data / scale)
        inside, seen = case.regions["foreground"], _seen(done, case)
        found = points_of(origin, images, inside, seen)
        out.mkdir(exist_ok=True)
        kept.parent.mkdir(exist_ok=True)
        with staged(kept.parent) as work:
            arrays: dict[str, Any] = {name: getattr(found, name) for name in _ARRAYS}
            np.savez(work / kept.name, seen=[*seen.spacing, seen.sigma, seen.scale], **arrays)
    with np.load(kept) as file:
        x, y, z, level, factor = file["seen"].tolist()
        arrays = {name: file[name] for name in _ARRAYS}
    seen = Seen((x, y, z), level, factor)
    return Points(**asdict(origin), seen=seen, **arrays)


def _seen(done: Restored, case: Case) -> Seen:
    frame = done.facts.frames[0]
    sigma, scale = frame.sigma.sigma, frame.intensity_scale
    return Seen(case.volume.spacing, sigma / case.scale, scale / case.scale)


def _content(
    points: Sequence[Points],
    parts: dict[str, Tested],
    rows: Sequence[Row],
    options: CalibrationOptions,
) -> dict[str, Any]:
    """What the card holds; the curves are those of the test scans where there are some."""
    last = list(parts.values())[-1]
    shown = [p for p, _ in last]
    content: dict[str, Any] = {
        "level": LEVEL,
        **asdict(fit_table(points)),
        "options": options.restore.method,
        "scans": len({p.scan for p in points}),
        "subjects": len({p.subject for p in points}),
        "noises": sorted({p.noise for p in points}),
        "crop": options.crop,
        "coverage_of_other_subjects": _coverage(rows, "calibration"),
        "reliability": [_rounded(pair) for pair in reliability(last)],
        "risk_coverage": [_rounded(row) for row in risk_coverage(shown)],
        "rank_over_all_levels": {k: round(v, 4) for k, v in pooled_rank(shown).items()},
    }
    if "test" in parts:
        content["coverage_of_test_scans"] = _coverage(rows, "test")
        content["test_scans"] = sorted({p.scan for p in shown})
    return content


def _coverage(rows: Sequence[Row], part: str) -> dict[str, dict[str, float]]:
    """By noise level, over the scans."""
    mine = [row for row in rows if row["part"] == part]
    out = {}
    for sigma in sorted({row["sigma"] for row in mine}):
        held = [row["coverage"] for row in mine if row["sigma"] == sigma]
        middle = float(np.mean(held))
        found = {"mean": middle, "lowest": min(held), "highest": max(held)}
        out[f"{sigma:g}"] = {name: round(value, 4) for name, value in found.items()}
    return out


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


def _write(
    out: Path, rows: Sequence[Row], content: dict[str, Any], weights: Path, card: dict[str, Any]
) -> None:
    with staged(out) as folder:
        with_card(weights, folder / NAMES[0], card | {"calibration": content})
        write_json(folder / NAMES[1], content)
        write_csv(folder / NAMES[2], with_units(rows))
        figure = calibration_figure(
            rows, reliability=content["reliability"], risk_coverage=content["risk_coverage"]
        )
        (folder / NAMES[3]).write_bytes(figure)
