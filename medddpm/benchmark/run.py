"""Run a benchmark over a folder of clean scans; it goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from medddpm.benchmark.measure import (
    Spoilt,
    prepare_case,
    run_method,
    spoil,
)
from medddpm.benchmark.options import NoiseName
from medddpm.benchmark.page import Slices, benchmark_page
from medddpm.benchmark.repeats_page import repeats_parts
from medddpm.benchmark.row import Row
from medddpm.benchmark.rows import (
    BenchmarkRun,
    Trial,
    kept_planes,
    run_facts,
    with_slice,
    with_units,
)
from medddpm.benchmark.run_repeats import (
    OnRow,
    RepeatTest,
    find_repeats,
    measure_repeats,
    repeat_facts,
)
from medddpm.data.scan_list import ScanList
from medddpm.io import OnError, read_volume
from medddpm.io.gradients import gradient_files
from medddpm.io.kept import Kept, keep, key_of
from medddpm.io.outputs import file_stem, plain, staged, write_csv, write_html, write_json
from medddpm.io.provenance import checksum, versions
from medddpm.metrics.bootstrap import choose_reference, summarise
from medddpm.preprocess.acquisition_words import in_words
from medddpm.preprocess.simulated_scan import parse_acquisition
from medddpm.report.html import heading

Line = dict[str, Any]
"""Of a summary."""


@dataclass(frozen=True)
class Benchmark:
    """All rows, their summary a noise level and method, what was written; and what repeats told."""

    rows: list[Row] = field(repr=False)
    summary: list[Line] = field(repr=False)
    paths: list[Path]
    repeats: RepeatTest | None = None


@dataclass(frozen=True)
class Scan:
    """A file: its name, which is in the seed of the noise, and its checksum."""

    name: str
    sha256: str


def benchmark(
    scans: ScanList,
    out: Path,
    run: BenchmarkRun,
    *,
    repeats: Path | None = None,
    on_row: Callable[[Row, int, int], None] | None = None,
    on_repeats: OnRow | None = None,
    on_error: OnError | None = None,
) -> Benchmark:
    """Compare denoisers on clean scans with simulated noise, and on repeats with their own.

    Each row is a file in `out`/rows, named by a hash of all that it depends on: a run that was
    stopped, or has new methods, computes only what is missing.

    Args:
        scans: The clean scans.
        out: Folder for rows.csv, summary.csv, results.json and index.html.
        run: What is compared, as `prepare_run` makes it.
        repeats: Repeats of scans, as in `repeat_test`: a second table, in repeats.csv.
        on_row: Called with each row, how many are done, and of how many.
        on_repeats: The same for the second table.
        on_error: Called with the error of a repeated scan that is left out, of several.

    Raises:
        ConfigError: There is no scan.
        GeometryError: The map lies on another grid than a scan.
    """
    files, settings = scans.files(), run.options
    repeated = [] if repeats is None else find_repeats([repeats])
    with staged(out):
        pass  # the folder exists and takes files, before any work
    tested = None
    if repeated:
        tested = measure_repeats(repeated, out / "rows", run, on_row=on_repeats, on_error=on_error)
    total = len(files) * sum(1 for _ in run.trials())
    rows: list[Row] = []
    slices: Slices = {}
    for index, path in enumerate(files):
        for row, kept in _rows_of(path, out / "rows", run, is_shown=index == 0):
            rows.append(row)
            if index == 0:
                for place, planes in _slices_of(row, kept).items():
                    slices.setdefault(place, {}).update(planes)
            if on_row:
                on_row(row, len(rows), total)
    summary = summarise(
        [row.cells for row in rows], choose_reference(settings.labels, settings.reference)
    )
    facts = run_facts(run, [file_stem(path) for path in files])
    names = _write(out, rows, summary, facts, slices, tested)
    return Benchmark(rows, summary, [out / name for name in names], tested)


def _rows_of(
    path: Path, folder: Path, run: BenchmarkRun, *, is_shown: bool
) -> Iterator[tuple[Row, Path]]:
    """Each row of one scan with its file: read where it is there, else computed and kept."""
    read = [path, *gradient_files(path)]
    scan, options = Scan(file_stem(path), checksum(read)), run.options
    prepare = cache(lambda: prepare_case(read_volume(path), options, run.gmap, all_frames=True))

    @lru_cache(maxsize=1)
    def spoilt(noise: NoiseName, sigma: float) -> Spoilt:
        return spoil(prepare(), sigma, noise, options)

    def measured(trial: Trial) -> Kept:
        made, restorer = spoilt(trial.noise, trial.sigma), run.restorer(trial.method)
        outcome = run_method(made, trial.method, trial.source, restorer, options.noise.seed)
        if not is_shown:
            return Kept(outcome.row.cells)
        images = {"clean": outcome.clean, "noisy": outcome.noisy, "restored": outcome.restored}
        return with_slice(outcome.row.cells, images, made.case.volume, made.case.scale)

    for trial in run.trials():
        kept = folder / f"{_key(run, scan, trial)}.json"
        yield Row(**keep(kept, partial(measured, trial))), kept


def _key(run: BenchmarkRun, scan: Scan, trial: Trial) -> str:
    """A name for all that a row depends on."""
    noise, given = run.options.noise, run.options.acquisition
    white = {"noise": asdict(noise), "gmap": run.gmap_sha256}
    own = None if given is None or trial.noise == "ellipse" else asdict(given)
    parts: dict[str, Any] = {
        "scan": astuple(scan),
        "noise": trial.noise,
        **(white if trial.noise == "white" else {"seed": noise.seed, "acquisition": own}),
        "crop": run.options.crop,
        "sigma": trial.sigma,
        "method": trial.method.label,
        "sigma_source": trial.source,
        "versions": [versions()["medddpm"], run.peers[trial.method.name]],
        "weights": run.digest(trial.method),
    }
    if trial.method.reference is not None:
        parts["reference"] = checksum([Path(trial.method.reference)])
    return key_of(parts)


def _slices_of(row: Row, kept: Path) -> Slices:
    planes = None if row.method == "identity" else kept_planes(kept)
    if planes is None:
        return {}
    return {(row.noise, row.sigma): {row.label: planes}}


def _write(
    out: Path,
    rows: list[Row],
    summary: list[Line],
    facts: dict[str, Any],
    slices: Slices,
    tested: RepeatTest | None,
) -> tuple[str, ...]:
    """Write the tables and the page, all at once; returns their names."""
    acquisitions = _acquisitions(rows)
    more = [] if tested is None else ["repeats.csv"]
    frames = [line for row in rows for line in _frame_lines(row)]
    if frames:
        more.append("frames.csv")
    parts: list[str] = []
    with staged(out) as folder:
        write_csv(folder / "rows.csv", with_units([_flat(row) for row in rows]))
        write_csv(folder / "summary.csv", with_units(summary))
        if frames:
            write_csv(folder / "frames.csv", with_units(frames))
        results = facts | {"acquisitions": acquisitions, "summary": summary}
        if tested is not None:
            write_csv(folder / "repeats.csv", tested.rows)
            results["repeats"] = repeat_facts(tested)
            shown = repeats_parts(tested.rows, tested.scans, tested.summary, tested.slices)
            parts = [heading("Truth from repeats"), *shown]
        write_json(folder / "results.json", results)
        cells = [row.cells for row in rows]
        page = benchmark_page(summary, plain(facts), slices, acquisitions, cells, parts)
        write_html(folder / "index.html", page)
    return "rows.csv", "summary.csv", *more, "results.json", "index.html"


def _flat(row: Row) -> Line:
    """The cells of a row, its acquisition as JSON; frames have a table of their own."""
    made = row.acquisition
    cells = row.cells | {"acquisition": "" if made is None else json.dumps(made)}
    del cells["frames"]
    return cells


def _frame_lines(row: Row) -> list[Line]:
    """One line for each frame of a scan of several."""
    told = {name: row.cells[name] for name in ("case", "noise", "sigma", "method", "sigma_source")}
    return [told | {"frame": index, **scores} for index, scores in enumerate(row.frames)]


def _acquisitions(rows: list[Row]) -> list[Line]:
    """What was simulated for each scan and kind of noise, in words; the levels are left out."""
    found = {
        (row.case, row.noise): in_words(parse_acquisition(row.acquisition, row.case))
        for row in rows
        if row.acquisition is not None
    }
    return [{"case": case, "noise": noise, "words": said} for (case, noise), said in found.items()]
