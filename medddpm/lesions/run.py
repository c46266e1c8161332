"""Run the lesion test over a folder of clean scans; it goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from medddpm.benchmark.measure import prepare_case
from medddpm.benchmark.rows import BenchmarkRun, prepare_run, with_units
from medddpm.data.scan_list import ScanList
from medddpm.io import read_volume
from medddpm.io.kept import Kept, keep, key_of
from medddpm.io.outputs import file_stem, plain, staged, write_csv, write_html, write_json
from medddpm.io.provenance import checksum, versions
from medddpm.lesions.page import lesion_page, own_lesion_page
from medddpm.lesions.real_trial import (
    find_own_lesions,
    measure_own_lesions,
    summarise_own_lesions,
)
from medddpm.lesions.summary import summarise_lesions
from medddpm.lesions.trial import (
    Kind,
    LesionOptions,
    Trial,
    measure_lesions,
    plant_lesions,
)

Row = dict[str, Any]
NAMES = ("lesions.csv", "summary.csv", "summary.json", "lesions.html")


@dataclass(frozen=True)
class _Study:
    """How one kind of lesion is found, measured, summarised and shown."""

    find: Callable[..., Any]
    measure: Callable[..., Row]
    summarise: Callable[..., list[Row]]
    page: Callable[[list[Row], Row], str]


_STUDIES: dict[Kind, _Study] = {
    "synthetic": _Study(plant_lesions, measure_lesions, summarise_lesions, lesion_page),
    "real": _Study(find_own_lesions, measure_own_lesions, summarise_own_lesions, own_lesion_page),
}


@dataclass(frozen=True)
class LesionTest:
    """One cell a scan, draw, noise level and method; their summary; what was written."""

    cells: list[Row] = field(repr=False)
    summary: list[Row] = field(repr=False)
    paths: list[Path]


def lesion_test(
    scans: ScanList,
    out: Path,
    options: LesionOptions,
    *,
    weights: str | Path = "default",
    device: str = "auto",
    on_cell: Callable[[Row, int, int], None] | None = None,
) -> LesionTest:
    """Plant lesions in clean scans, or find theirs; add noise, restore, and see what is left.

    Each cell is a file in `out`/cells, named by a hash of all that it depends on: a run that was
    stopped, or has new methods, computes only what is missing.

    Args:
        scans: The clean scans.
        out: Folder for lesions.csv, summary.csv, summary.json and lesions.html.
        options: What is planted, and what restores.
        weights: Our model, unless a method names its own.
        device: Where it runs.
        on_cell: Called with each cell, how many are done, and of how many.

    Raises:
        ConfigError: An option cannot be used, a package is missing, there is no scan, or one
            has no room for lesions, or no bright lesion of its own.
    """
    who = scans.subjects()
    run = prepare_run(options.run, None, weights, device)
    with staged(out):
        pass  # the folder exists and takes files, before any work
    total = len(who) * sum(1 for _ in _trials(options, run))
    cells: list[Row] = []
    for path in who:
        for cell in _cells_of(path, out / "cells", options, run):
            cells.append(cell)
            if on_cell:
                on_cell(cell, len(cells), total)
    subjects = {file_stem(path): name for path, name in who.items()}
    study = _STUDIES[options.kind]
    summary = study.summarise(cells, subjects)
    facts = {
        "options": asdict(options),
        "scans": subjects,
        "weights_sha256": {name: r.model.digest for name, r in run.restorers.items()},
        "versions": versions() | {name: text for name, text in run.peers.items() if text},
    }
    _write(out, cells, summary, facts, study.page(summary, plain(facts)))
    return LesionTest(cells, summary, [out / name for name in NAMES])


def _cells_of(path: Path, folder: Path, options: LesionOptions, run: BenchmarkRun) -> Iterator[Row]:
    """Each cell of one scan: read where it is there, else computed and kept."""
    scan, study = checksum([path]), _STUDIES[options.kind]
    prepare = cache(lambda: prepare_case(read_volume(path), options.run))
    find = cache(lambda draw: study.find(prepare(), options, draw))

    def measured(trial: Trial) -> Kept:
        restorer = run.restorer(trial.method)
        return Kept(study.measure(prepare(), find(trial.draw), trial, options, restorer))

    for trial in _trials(options, run):
        yield keep(folder / f"{_key(scan, trial, options, run)}.json", partial(measured, trial))


def _trials(options: LesionOptions, run: BenchmarkRun) -> Iterator[Trial]:
    for draw, sigma, method in product(range(options.draws), options.run.sigmas, run.methods):
        for source in options.run.sources(method, "white"):
            yield Trial(draw, sigma, method, source)


def _key(scan: str, trial: Trial, options: LesionOptions, run: BenchmarkRun) -> str:
    """A name for all that a cell depends on."""
    parts = {
        "scan": scan,
        "options": asdict(options) | {"run": None, "draws": None},
        "noise": asdict(options.run.noise),
        "crop": options.run.crop,
        "cell": [trial.draw, trial.sigma, trial.method.label, trial.source],
        "versions": [versions()["medddpm"], run.peers[trial.method.name]],
        "weights": run.digest(trial.method),
    }
    return key_of(parts)


def _write(out: Path, cells: list[Row], summary: list[Row], facts: Row, page: str) -> None:
    """Write the tables and the page, all at once."""
    shared = ("case", "draw", "sigma", "method", "sigma_source")
    left_out = ("present", "absent", "place")
    rows = [
        {name: cell[name] for name in shared}
        | {name: value for name, value in lesion.items() if name not in left_out}
        | dict(zip("xyz", lesion["place"], strict=True))
        for cell in cells
        for lesion in cell["lesions"]
    ]
    with staged(out) as folder:
        write_csv(folder / NAMES[0], with_units(rows))
        lines = [{k: v for k, v in line.items() if k != "over"} for line in summary]
        write_csv(folder / NAMES[1], with_units(lines))
        write_json(folder / NAMES[2], facts | {"summary": summary})
        write_html(folder / NAMES[3], page)
