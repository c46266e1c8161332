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

from medddpm.benchmark.measure import BenchmarkOptions, Case, NoiseName, prepare_case, spoil
from medddpm.benchmark.rows import with_units
from medddpm.calibration.figure import calibration_figure
from medddpm.calibration.intervals import (
    LEVEL,
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
from medddpm.data.scan_list import named_scans, subjects_of
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
    data: str | Path,
    out: str | Path,
    *,
    sigmas: Sequence[float] = (0.03, 0.05, 0.09, 0.15),
    noises: Sequence[NoiseName] = NOISES,
    options: RestoreOptions | None = None,
    crop: tuple[int, int, int] | None = None,
    weights: str | Path = "default",
    device: str = "auto",
    include: str = "*",
    limit: int | None = None,
    test: str | Path | None = None,
    overwrite: bool = False,
    on_scan: Callable[[str, str, float], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Fit the 90 % intervals of an ensemble to clean scans; writes weights with a new card.

    Noise of each kind and level is added to each scan, an ensemble restores it with a blind
    sigma, and the table takes the widths that would have held 90 %.
    The coverage that is reported is that of
    each subject under a table of the others, and that of the test scans under the table itself.
    A run that was stopped goes on.

    Args:
        data: Clean scans: a file, a folder or a CSV file with a column `file`, and `subject` if
            the names do not tell who it is.
        out: Folder for model.safetensors, calibration.json, coverage.csv and coverage.png.
        sigmas: Noise levels, fractions of each scan's intensity scale.
        noises: Kinds of noise, as in `BenchmarkOptions`; each scan gets a scanner of its own.
        options: The ensemble; the defaults if not given.
        crop: Box of so many voxels around the middle of the foreground; None is the whole scan.
        weights: Model to calibrate.
        device: Where it runs.
        include: Pattern of scan names.
        limit: At most so many scans.
        test: Clean scans of other subjects, given as `data`, that the table is tested on and not
            fitted to.
        overwrite: Replace outputs that exist.
        on_scan: Called with each scan, kind and level of noise when it is done.
        on_progress: Called with how much is done, and of how much.

    Raises:
        ConfigError: No scan, scans of one subject alone, or a subject of both parts.
    """
    data, out = Path(data), Path(out)
    test = None if test is None else Path(test)
    files = named_scans(data, include, limit)
    subjects = subjects_of(data, files)
    if len(set(subjects.values())) < 2:
        raise ConfigError(
            f"{data} holds one subject; coverage is tested on other subjects than the intervals "
            "were fitted to, so give scans of two or more (a CSV with a column `subject` tells)"
        )
    tested = {} if test is None else _test_subjects(test, set(subjects.values()))
    check_targets([out / name for name in NAMES], overwrite=overwrite)
    settings = replace(options or RestoreOptions(), mode="ensemble", sigma=None)
    restorer = Restorer.from_pretrained(weights, device)
    points: list[Points] = []
    who, spoilt = subjects | tested, list(product(noises, sorted(sigmas)))
    for path, subject in who.items():
        for noise, sigma in spoilt:
            points.append(_measure(path, subject, noise, sigma, settings, crop, restorer, out))
            if on_scan:
                on_scan(file_stem(path), noise, sigma)
            if on_progress:
                on_progress(len(points), len(who) * len(spoilt))
    held = set(tested.values())
    fitted = [p for p in points if p.subject not in held]
    parts = {"calibration": cross_fit(fitted)}
    if tested:
        table = fit_table(fitted)
        parts["test"] = in_order([(p, table) for p in points if p.subject in held])
    rows = [{**scores(*pair), "part": part} for part, found in parts.items() for pair in found]
    content = _content(fitted, parts, rows, settings, crop)
    _write(out, rows, content, find_weights(weights), restorer.model.card)
    return Calibration(rows, content, out / NAMES[0])


def _test_subjects(test: Path, fitted: set[str]) -> dict[Path, str]:
    found = subjects_of(test, named_scans(test))
    both = sorted(fitted & set(found.values()))
    if both:
        raise ConfigError(
            f"{both[0]} is in the calibration and in {test}; a subject can be in one of them only"
        )
    return found


def _measure(
    path: Path,
    subject: str,
    noise: NoiseName,
    sigma: float,
    options: RestoreOptions,
    crop: tuple[int, int, int] | None,
    restorer: Restorer,
    out: Path,
) -> Points:
    """The points of one scan and noise: read where they are there, else computed and kept."""
    parts = [checksum([path]), noise, sigma, asdict(options), crop, restorer.model.digest]
    parts += [versions()["medddpm"], "seen"]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
    kept = out / "points" / f"{key}.npz"
    if not kept.exists():
        bench = BenchmarkOptions(sigmas=(sigma,), crop=crop, noises=(noise,))
        spoilt = spoil(prepare_case(read_volume(path), bench), sigma, noise, bench)
        case, law = spoilt.case, spoilt.law
        told = replace(options, noise=law.kind, coils=law.coils)
        done = restorer.restore(spoilt.noisy, options=told)
        if done.std is None:
            raise AssertionError("an ensemble has a spread")
        scale = np.float32(case.scale)
        images = (case.volume.data / scale, done.volume.data / scale, done.std.data / scale)
        inside, seen = case.regions["foreground"], _seen(done, case)
        found = points_of(subject, file_stem(path), noise, sigma, images, inside, seen)
        out.mkdir(exist_ok=True)
        kept.parent.mkdir(exist_ok=True)
        with staged(kept.parent) as work:
            arrays: dict[str, Any] = {name: getattr(found, name) for name in _ARRAYS}
            np.savez(work / kept.name, seen=[*seen.spacing, seen.sigma, seen.scale], **arrays)
    with np.load(kept) as file:
        x, y, z, level, factor = file["seen"].tolist()
        arrays = {name: file[name] for name in _ARRAYS}
    seen = Seen((x, y, z), level, factor)
    return Points(subject, file_stem(path), noise, sigma, seen=seen, **arrays)


def _seen(done: Restored, case: Case) -> Seen:
    frame = done.facts.frames[0]
    sigma, scale = frame.sigma.sigma, frame.intensity_scale
    return Seen(case.volume.spacing, sigma / case.scale, scale / case.scale)


def _content(
    points: Sequence[Points],
    parts: dict[str, Tested],
    rows: Sequence[Row],
    options: RestoreOptions,
    crop: tuple[int, int, int] | None,
) -> dict[str, Any]:
    """What the card holds; the curves are those of the test scans where there are some."""
    last = list(parts.values())[-1]
    shown = [p for p, _ in last]
    content: dict[str, Any] = {
        "level": LEVEL,
        **asdict(fit_table(points)),
        "options": options.method,
        "scans": len({p.scan for p in points}),
        "subjects": len({p.subject for p in points}),
        "noises": sorted({p.noise for p in points}),
        "crop": crop,
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
