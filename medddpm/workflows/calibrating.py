"""Calibrate the intervals of an ensemble on clean scans that no training has seen."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medddpm.errors import ConfigError
from medddpm.evaluation.benchmark import BenchmarkOptions, prepare_case
from medddpm.evaluation.calibration import (
    LEVEL,
    Points,
    cross_validate,
    fit_table,
    points_of,
    reliability,
    risk_coverage,
)
from medddpm.evaluation.calibration_figure import calibration_figure
from medddpm.evaluation.degradation import degrade
from medddpm.io import read_volume
from medddpm.restoration.model import find_weights, with_card
from medddpm.restoration.restorer import RestoreOptions, Restorer
from medddpm.workflows.outputs import check_targets, file_stem, staged, write_json
from medddpm.workflows.provenance import checksum, versions
from medddpm.workflows.scan_list import named_scans, subjects_of

Row = dict[str, Any]
_SETTINGS = ("samples", "steps", "sampler", "texture", "fidelity", "start", "noise", "coils")
"""Options of a restoration that change the spread of an ensemble."""
_ARRAYS = ("mean", "std", "error", "block_std", "block_error")
NAMES = ("model.safetensors", "calibration.json", "coverage.csv", "coverage.png")


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Attributes:
        rows: One a scan and noise level: its coverage under a table fitted to other subjects.
        content: The table as the card holds it.
        weights: The weights file with that card.
    """

    rows: list[Row]
    content: dict[str, Any]
    weights: Path


def calibrate(
    data: Path,
    out: Path,
    *,
    sigmas: Sequence[float] = (0.03, 0.05, 0.09, 0.15),
    options: RestoreOptions | None = None,
    crop: tuple[int, int, int] | None = None,
    weights: str | Path = "default",
    device: str = "auto",
    include: str = "*",
    limit: int | None = None,
    overwrite: bool = False,
    on_scan: Callable[[str, float], None] | None = None,
) -> Calibration:
    """Fit the 90 % intervals of an ensemble to held-out scans; writes weights with a new card.

    Noise of each level is added to each scan, an ensemble restores it with a blind sigma, and the
    table takes the widths that would have held 90 %. The coverage that is reported is that of
    each subject under a table of the others. A run that was stopped goes on.

    Args:
        data: Clean scans: a file, a folder or a CSV file with a column `file`, and `subject` if
            the names do not tell who it is.
        out: Folder for model.safetensors, calibration.json, coverage.csv and coverage.png.
        sigmas: Noise levels, fractions of each scan's intensity scale.
        options: The ensemble; the defaults if not given.
        crop: Box of so many voxels around the middle of the foreground; None is the whole scan.
        weights: Model to calibrate.
        device: Where it runs.
        include: Pattern of scan names.
        limit: At most so many scans.
        overwrite: Replace outputs that exist.
        on_scan: Called with each scan and noise level when it is done.

    Raises:
        ConfigError: No scan, or scans of one subject alone.
    """
    files = named_scans(data, include, limit)
    subjects = subjects_of(data, files)
    if len(set(subjects.values())) < 2:
        raise ConfigError(
            f"{data} holds one subject; coverage is tested on other subjects than the intervals "
            "were fitted to, so give scans of two or more (a CSV with a column `subject` tells)"
        )
    check_targets([out / name for name in NAMES], overwrite=overwrite)
    settings = replace(options or RestoreOptions(), mode="ensemble", sigma=None)
    restorer = Restorer.from_pretrained(weights, device)
    points = []
    for path in files:
        for sigma in sorted(sigmas):
            points.append(_measure(path, subjects[path], sigma, settings, crop, restorer, out))
            if on_scan:
                on_scan(file_stem(path), sigma)
    rows = cross_validate(points)
    content = _content(points, rows, settings, crop)
    _write(out, rows, content, find_weights(weights), restorer.model.card)
    return Calibration(rows, content, out / NAMES[0])


def _measure(
    path: Path,
    subject: str,
    sigma: float,
    options: RestoreOptions,
    crop: tuple[int, int, int] | None,
    restorer: Restorer,
    out: Path,
) -> Points:
    """The points of one scan and noise level: read where they are there, else computed and kept."""
    parts = [checksum([path]), sigma, asdict(options), crop, restorer.model.digest]
    key = hashlib.sha256(json.dumps([*parts, versions()["medddpm"]]).encode()).hexdigest()[:20]
    kept = out / "points" / f"{key}.npz"
    if not kept.exists():
        bench = BenchmarkOptions(sigmas=(sigma,), crop=crop)
        case = prepare_case(read_volume(path), bench)
        noisy = degrade(case.volume, sigma * case.scale, bench.noise, case.gain)
        done = restorer.restore(noisy, options=options)
        if done.std is None:
            raise AssertionError("an ensemble has a spread")
        scale = np.float32(case.scale)
        images = (case.volume.data / scale, done.volume.data / scale, done.std.data / scale)
        found = points_of(subject, file_stem(path), sigma, images, case.regions["foreground"])
        out.mkdir(exist_ok=True)
        kept.parent.mkdir(exist_ok=True)
        with staged(kept.parent) as work:
            arrays: dict[str, Any] = {name: getattr(found, name) for name in _ARRAYS}
            np.savez(work / kept.name, **arrays)
    with np.load(kept) as file:
        return Points(subject, file_stem(path), sigma, **{name: file[name] for name in file})


def _content(
    points: Sequence[Points],
    rows: Sequence[Row],
    options: RestoreOptions,
    crop: tuple[int, int, int] | None,
) -> dict[str, Any]:
    table = fit_table(points)
    coverage = {}
    for sigma in table.sigmas:
        held = [row["coverage"] for row in rows if row["sigma"] == sigma]
        coverage[f"{sigma:g}"] = {
            "mean": round(float(np.mean(held)), 4),
            "lowest": round(min(held), 4),
            "highest": round(max(held), 4),
        }
    return {
        "level": LEVEL,
        **asdict(table),
        "options": {name: getattr(options, name) for name in _SETTINGS},
        "scans": len({p.scan for p in points}),
        "subjects": len({p.subject for p in points}),
        "crop": crop,
        "coverage_of_other_subjects": coverage,
        "reliability": _rounded(reliability(points, table)),
        "risk_coverage": _rounded(risk_coverage(points)),
    }


def _rounded(rows: Sequence[tuple[float, ...]]) -> list[list[float]]:
    """Short enough for a card: two curves of 11 and 20 points."""
    return [[round(value, 5) for value in row] for row in rows]


def _write(
    out: Path,
    rows: Sequence[Row],
    content: dict[str, Any],
    weights: Path,
    card: dict[str, Any],
) -> None:
    curves = {name: content[name] for name in ("reliability", "risk_coverage")}
    with staged(out) as folder:
        with_card(weights, folder / NAMES[0], card | {"calibration": content})
        write_json(folder / NAMES[1], content)
        with (folder / NAMES[2]).open("w", newline="", encoding="utf-8") as file:
            columns = list(dict.fromkeys(name for row in rows for name in row))
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        (folder / NAMES[3]).write_bytes(calibration_figure(rows, **curves))
