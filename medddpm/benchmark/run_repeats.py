"""Measure restorations on repeats of scans, without a clean one; it goes on where it stopped."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medddpm.benchmark.figures import Planes, method_label
from medddpm.benchmark.methods import CEILING, Method
from medddpm.benchmark.options import Source
from medddpm.benchmark.repeat_case import RepeatCase, prepare_repeats
from medddpm.benchmark.repeats import RepeatOutcome, measure_method
from medddpm.benchmark.repeats_page import repeats_page
from medddpm.benchmark.rows import (
    BenchmarkRun,
    kept_planes,
    run_facts,
    with_slice,
)
from medddpm.data.repeats import group_runs, unweighted_frames
from medddpm.data.scan_list import scan_files
from medddpm.errors import ConfigError, MedddpmError, OutputError
from medddpm.io import OnError, read_volumes
from medddpm.io.kept import Kept, keep, key_of
from medddpm.io.nifti import suffix_of
from medddpm.io.outputs import (
    NIFTI_SUFFIXES,
    file_stem,
    plain,
    staged,
    write_csv,
    write_html,
    write_json,
)
from medddpm.io.provenance import versions, voxel_checksum
from medddpm.metrics.bootstrap import bootstrap_interval
from medddpm.volume import Volume

MOST_REPEATS = 8
"""Of one scan, if not told otherwise: each is restored with each method."""
Row = dict[str, Any]
OnRow = Callable[[Row, int, int], None]
"""Called with a row, how many are done, and of how many."""
NAMES = ("repeats.csv", "results.json", "index.html")
_SIGMA = ("sigma_repeats", "sigma_repeats_low", "sigma_repeats_high")
_SCAN_FACTS = ("case", "repeats", "voxels", "scale", *_SIGMA)


@dataclass(frozen=True)
class RepeatTest:
    """What repeats told.

    Attributes:
        rows: One a scan and method.
        scans: One a scan: its noise, and remarks in words.
        summary: One a method, over the scans; empty if there is one.
        slices: By method, of the first scan.
        paths: What was written.
    """

    rows: list[Row] = field(repr=False)
    scans: list[Row] = field(repr=False)
    summary: list[Row] = field(repr=False)
    slices: dict[str, Planes] = field(repr=False)
    paths: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class RepeatedScan:
    """The files of one scan that was repeated."""

    name: str
    files: list[Path]

    def volumes(self) -> list[Volume]:
        """Every repeat as a 3D scan: files, frames, or series of a folder."""
        volumes = []
        for path in self.files:
            for volume in read_volumes(path):
                frames = unweighted_frames(volume)
                for n in frames if volume.num_frames > 1 else ():
                    data = np.ascontiguousarray(volume.frame(n))
                    name = f"{volume.case_id} frame {n + 1}"
                    volumes.append(replace(volume, data=data, case_id=name, native=None))
                if volume.num_frames == 1:
                    volumes.append(volume)
        return volumes


def repeat_test(
    sources: Sequence[Path],
    out: Path,
    run: BenchmarkRun,
    *,
    include: str = "*",
    limit: int = MOST_REPEATS,
    on_row: OnRow | None = None,
    on_error: OnError | None = None,
) -> RepeatTest:
    """Measure methods on repeats of one scan, or of each scan of a folder.

    Each row is a file in `out`/rows, as in `benchmark`.

    Args:
        sources: The repeats of one scan, files or DICOM folders of one repeat or more; or one
            folder of NIfTI files (or CSV with a column `file`), where frames of a 4D file, and
            files whose names differ in `_run-N` alone, are repeats.
        out: Folder for repeats.csv, results.json and index.html.
        run: As `prepare_run` makes it; of its options the methods, law and seed of white noise,
            crop and source of sigma count.
        include: Pattern (fnmatch) of names of the scans of a folder.
        limit: At most so many repeats of a scan.
        on_row: Called with each row, how many are done, and of how many.
        on_error: Called with the error of a scan that is left out, where there are several.

    Raises:
        ConfigError: An option cannot be used, or no scan has two repeats that are alike.
        GeometryError: Repeats of the only scan lie on different grids.
    """
    scans = find_repeats(sources, include)
    if any(method.name == CEILING for method in run.methods):
        raise ConfigError(f"{CEILING} is the round trip of a clean scan; repeats have none")
    with staged(out):
        pass  # the folder exists and takes files, before any work
    tested = measure_repeats(scans, out / "rows", run, limit, on_row, on_error)
    facts = run_facts(run, [scan["case"] for scan in tested.scans])
    with staged(out) as folder:
        write_csv(folder / NAMES[0], tested.rows)
        write_json(folder / NAMES[1], facts | repeat_facts(tested))
        page = repeats_page(tested.rows, tested.scans, tested.summary, plain(facts), tested.slices)
        write_html(folder / NAMES[2], page)
    return replace(tested, paths=[out / name for name in NAMES])


def repeat_facts(tested: RepeatTest) -> dict[str, Any]:
    """All numbers, for a JSON file."""
    return {"repeated": tested.scans, "rows": tested.rows, "summary": tested.summary}


def find_repeats(sources: Sequence[Path], include: str = "*") -> list[RepeatedScan]:
    """The scans with repeats among the sources; see `repeat_test`.

    Raises:
        ConfigError: There is none.
    """
    if len(sources) == 1 and _holds_scans(sources[0]):
        groups = group_runs(scan_files(sources[0]))
        found = [RepeatedScan(re.sub(r"_run-\d+", "", file_stem(g[0])), g) for g in groups]
        found = [scan for scan in found if fnmatch.fnmatch(scan.name, include)]
        if not found:
            raise ConfigError(f"no scan under {sources[0]} is called {include!r}")
        return found
    first = sources[0]
    # DICOM files and folders may carry a patient's name: their scan is called by its own id.
    return [RepeatedScan(file_stem(first) if suffix_of(first) else "", list(sources))]


def _holds_scans(source: Path) -> bool:
    """True for a CSV manifest, or a folder with NIfTI files in it."""
    if source.is_dir():
        return any(p.name.endswith(NIFTI_SUFFIXES) for p in source.rglob("*"))
    return source.suffix == ".csv"


def measure_repeats(
    scans: Sequence[RepeatedScan],
    folder: Path,
    run: BenchmarkRun,
    limit: int = MOST_REPEATS,
    on_row: OnRow | None = None,
    on_error: OnError | None = None,
) -> RepeatTest:
    """The rows of each scan that has repeats.

    Args:
        scans: Those of one subject have several files or frames; a scan with one is passed over.
        folder: Where the rows are kept.
        run: The methods; the round trip of the VAE is passed over.
        limit: At most so many repeats of a scan.
        on_row: As in `repeat_test`.
        on_error: As in `repeat_test`.

    Raises:
        ConfigError: No scan has two repeats that are alike.
        GeometryError: Repeats of the only scan lie on different grids.
    """
    each = sum(1 for _ in _turns(run))
    tested = RepeatTest([], [], [], {})
    for number, scan in enumerate(scans):
        with _left_out(on_error if len(scans) > 1 else None):
            volumes = scan.volumes()
            if len(volumes) == 1 and len(scans) > 1:
                continue
            name = scan.name or volumes[0].case_id.split(" ")[0]
            case = prepare_repeats(name, volumes, run.options, limit)
            rows = []
            for row, kept in _rows_of(case, folder, run, is_shown=not tested.scans):
                rows.append((row, kept))
                if on_row:
                    on_row(row, number * each + len(rows), len(scans) * each)
            _take(tested, case, rows)
    if not tested.scans:
        raise ConfigError(
            "no scan has two repeats that are alike: give two files or more, a 4D file, or a "
            "folder whose files differ in _run-N"
        )
    return replace(tested, summary=_summary(tested.rows) if len(tested.scans) > 1 else [])


@contextmanager
def _left_out(on_error: OnError | None) -> Iterator[None]:
    """What is done for one scan of several: its error is reported, and the others go on."""
    try:
        yield
    except OutputError:
        raise
    except MedddpmError as error:
        if on_error is None:
            raise
        on_error(error)


def _take(tested: RepeatTest, case: RepeatCase, rows: list[tuple[Row, Path]]) -> None:
    """Add the rows of a scan, and the slices of the first."""
    for row, kept in rows:
        planes = None if tested.scans or row["method"] == "identity" else kept_planes(kept)
        tested.slices.update({} if planes is None else {method_label(row): planes})
        tested.rows.append(row)
    tested.scans.append(_scan_facts(case, rows[-1][0]))


def _turns(run: BenchmarkRun) -> Iterator[tuple[Method, Source]]:
    for method in run.methods:
        for source in run.options.sources(method, "white") if method.name != CEILING else ():
            yield method, source


def _rows_of(
    case: RepeatCase, folder: Path, run: BenchmarkRun, *, is_shown: bool
) -> Iterator[tuple[Row, Path]]:
    """Each row of one scan with its file: read where it is there, else computed and kept."""
    content = [voxel_checksum(repeat) for repeat in case.repeats]

    def measured(method: Method, source: Source) -> Kept:
        outcome = _measured(case, method, source, run)
        if not is_shown:
            return Kept(outcome.row)
        first, *others = (
            repeat.data / np.float32(gain)
            for repeat, gain in zip(case.repeats, case.gains, strict=True)
        )
        images = {"clean": np.mean(others, axis=0), "noisy": first, "restored": outcome.restored}
        return with_slice(outcome.row, images, case.case.volume, case.case.scale)

    for method, source in _turns(run):
        kept = folder / f"{_key(run, case.name, content, method, source)}.json"
        yield keep(kept, partial(measured, method, source)), kept


def _measured(case: RepeatCase, method: Method, source: Source, run: BenchmarkRun) -> RepeatOutcome:
    try:
        return measure_method(case, method, source, run.options, run.restorer(method))
    except ConfigError as error:
        hint = "; --sigma-source oracle tells it that of the repeats" if source == "blind" else ""
        raise ConfigError(f"{case.name}, {method.label}: {error}{hint}") from error


def _key(run: BenchmarkRun, name: str, content: list[str], method: Method, source: Source) -> str:
    """A name for all that a row depends on."""
    parts = {
        "scan": [name, content],
        "noise": asdict(run.options.noise),
        "crop": run.options.crop,
        "method": method.label,
        "sigma_source": source,
        "versions": [versions()["medddpm"], run.peers[method.name]],
        "weights": run.digest(method),
    }
    return key_of(parts)


def _scan_facts(case: RepeatCase, row: Row) -> Row:
    """What its repeats say of a scan, whatever the method."""
    facts: Row = {name: row[name] for name in _SCAN_FACTS}
    facts |= {"gains": case.gains, "not_noise": case.not_noise, "low_snr": case.low_snr}
    return facts | {"used": [r.case_id for r in case.repeats], "remarks": case.remarks}


def _summary(rows: Sequence[Row]) -> list[Row]:
    """A line a method: the mean gain over the scans where it is known."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["gain"] is not None:
            groups.setdefault(method_label(row), []).append(row)
    lines = []
    for mine in groups.values():
        gains = [row["gain"] for row in mine]
        low, high = bootstrap_interval(gains)
        line = {name: mine[0][name] for name in ("method", "sigma_source")}
        line |= {"gain": float(np.mean(gains)), "gain_low": low, "gain_high": high}
        lines.append(line | {"scans": len(mine)})
    return lines
