"""Run a benchmark over a folder of clean scans; it goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, field
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medddpm.errors import ConfigError
from medddpm.evaluation.benchmark import (
    BenchmarkOptions,
    Case,
    NoiseName,
    Outcome,
    Source,
    Spoilt,
    prepare_case,
    run_method,
    spoil,
)
from medddpm.evaluation.benchmark_figures import Planes, axial_plane, method_label
from medddpm.evaluation.benchmark_page import Slices, benchmark_page
from medddpm.evaluation.bootstrap import choose_reference, summarise
from medddpm.evaluation.methods import Method, parse_methods
from medddpm.evaluation.peers import peer_version
from medddpm.io import read_volume
from medddpm.preprocess.acquisition_words import in_words
from medddpm.preprocess.simulated_scan import parse_acquisition
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Volume
from medddpm.workflows.outputs import file_stem, plain, staged, write_csv, write_html, write_json
from medddpm.workflows.provenance import checksum, versions
from medddpm.workflows.scan_list import named_scans
from medddpm.workflows.tables import with_units

Row = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """All rows, their summary a noise level and method, and what was written."""

    rows: list[Row] = field(repr=False)
    summary: list[Row] = field(repr=False)
    paths: list[Path]


@dataclass(frozen=True)
class Scan:
    """A file: its name, which is in the seed of the noise, and its checksum."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Trial:
    """One row of a scan: kind and level of its noise, method, and where that gets its sigma."""

    noise: NoiseName
    sigma: float
    method: Method
    source: Source


@dataclass(frozen=True)
class BenchmarkRun:
    """What all rows of one run share: its options, and what its methods need."""

    options: BenchmarkOptions
    methods: list[Method]
    peers: dict[str, str]
    restorers: dict[str, Restorer]
    weights: str
    gmap: Volume | None
    gmap_sha256: str

    def trials(self) -> Iterator[Trial]:
        """All rows of a scan, noise by noise."""
        options = self.options
        for noise, sigma in product(options.noises, options.sigmas):
            for method in self.methods:
                for source in options.sources(method, noise):
                    yield Trial(noise, sigma, method, source)

    def restorer(self, method: Method) -> Restorer | None:
        """What holds the method's model, if it has one."""
        return self.restorers[method.weights or self.weights] if method.needs_model else None

    def digest(self, method: Method) -> str:
        """Checksum of the method's weights."""
        restorer = self.restorer(method)
        return restorer.model.digest if restorer else ""


def benchmark(
    data: str | Path,
    out: str | Path,
    *,
    options: BenchmarkOptions | None = None,
    gmap: str | Path | None = None,
    weights: str | Path = "default",
    device: str = "auto",
    include: str = "*",
    limit: int | None = None,
    on_row: Callable[[Row], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Compare denoisers on clean scans with simulated noise.

    Each row is a file in `out`/rows, named by a hash of all that it depends on: a run that was
    stopped, or has new methods, computes only what is missing.

    Args:
        data: A NIfTI file, a folder of them, or a CSV file with a column `file`.
        out: Folder for rows.csv, summary.csv, results.json and index.html.
        options: What is compared.
        gmap: A scan on the grid of all of them that multiplies sigma.
        weights: Our model, unless a method names its own ("mean@weights=FILE").
        device: Where it runs.
        include: Pattern (fnmatch) of scan names.
        limit: At most so many scans.
        on_row: Called with each row.
        on_progress: Called with how much is done, and of how much.

    Raises:
        ConfigError: An option cannot be used, a package is missing, or there is no scan.
        GeometryError: The map lies on another grid than a scan.
    """
    data, out = Path(data), Path(out)
    gmap = None if gmap is None else Path(gmap)
    settings = options or BenchmarkOptions()
    files = named_scans(data, include, limit)
    run = prepare_run(settings, gmap, weights, device)
    with staged(out):
        pass  # the folder exists and takes files, before any work
    total = len(files) * sum(1 for _ in run.trials())
    rows: list[Row] = []
    slices: Slices = {}
    for index, path in enumerate(files):
        for row, kept in _rows_of(path, out / "rows", run, with_slice=index == 0):
            rows.append(row)
            if index == 0:
                for place, planes in _slices_of(row, kept).items():
                    slices.setdefault(place, {}).update(planes)
            if on_row:
                on_row(row)
            if on_progress:
                on_progress(len(rows), total)
    summary = summarise(rows, choose_reference(settings.labels, settings.reference))
    names = _write(out, rows, summary, _facts(run, files), slices)
    return Benchmark(rows, summary, [out / name for name in names])


def prepare_run(
    options: BenchmarkOptions, gmap: Path | None, weights: str | Path, device: str
) -> BenchmarkRun:
    """Find the packages and load the models that the methods need.

    Raises:
        ConfigError: One is missing, or a map of the noise has no use.
    """
    if gmap is not None and options.noise.gfactor:
        raise ConfigError("a g-map and a simulated g-factor were both asked for; give one")
    if gmap is not None and "white" not in options.noises:
        raise ConfigError("a g-map amplifies white noise: ask for it too, with --noise white")
    methods = parse_methods(options.methods)
    peers = {method.name: peer_version(method.name) for method in methods}
    wanted = {method.weights or str(weights) for method in methods if method.needs_model}
    restorers = {name: Restorer.from_pretrained(name, device) for name in sorted(wanted)}
    gain = None if gmap is None else read_volume(gmap)
    mark = "" if gmap is None else checksum([gmap])
    return BenchmarkRun(options, methods, peers, restorers, str(weights), gain, mark)


def _rows_of(
    path: Path, folder: Path, run: BenchmarkRun, *, with_slice: bool
) -> Iterator[tuple[Row, Path]]:
    """Each row of one scan with its file: read where it is there, else computed and kept."""
    scan, options = Scan(file_stem(path), checksum([path])), run.options
    prepare = cache(lambda: prepare_case(read_volume(path), options, run.gmap))

    @lru_cache(maxsize=1)
    def spoilt(noise: NoiseName, sigma: float) -> Spoilt:
        return spoil(prepare(), sigma, noise, options)

    for trial in run.trials():
        kept = folder / f"{_key(run, scan, trial)}.json"
        if not kept.exists():
            made, restorer = spoilt(trial.noise, trial.sigma), run.restorer(trial.method)
            outcome = run_method(made, trial.method, trial.source, restorer, options.noise.seed)
            _keep(kept, outcome, made.case if with_slice else None)
        yield json.loads(kept.read_text(encoding="utf-8")), kept


def _key(run: BenchmarkRun, scan: Scan, trial: Trial) -> str:
    """A name for all that a row depends on."""
    noise, given = run.options.noise, run.options.acquisition
    white = {"noise": asdict(noise), "gmap": run.gmap_sha256}
    own = None if given is None or trial.noise == "ellipse" else asdict(given)
    parts = {
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
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def _keep(kept: Path, outcome: Outcome, case: Case | None) -> None:
    """Write a row, and beside it the slice of a case for the montage, if there is one."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with staged(kept.parent) as work:
        if case is not None:
            geometry = case.volume.geometry
            images = {"clean": outcome.clean, "noisy": outcome.noisy}
            arrays: dict[str, Any] = {}
            for name, image in (images | {"restored": outcome.restored}).items():
                plane, arrays["aspect"] = axial_plane(image, geometry.orientation, geometry.spacing)
                arrays[name] = plane / np.float32(case.scale)
            np.savez(work / kept.with_suffix(".npz").name, **arrays)
        write_json(work / kept.name, outcome.row)


def _slices_of(row: Row, kept: Path) -> Slices:
    path = kept.with_suffix(".npz")
    if row["method"] == "identity" or not path.exists():
        return {}
    with np.load(path) as file:
        planes = Planes(file["clean"], file["noisy"], file["restored"], float(file["aspect"]))
    return {(row["noise"], row["sigma"]): {method_label(row): planes}}


def _facts(run: BenchmarkRun, files: list[Path]) -> dict[str, Any]:
    found = versions() | {name: text for name, text in run.peers.items() if text}
    return {
        "options": asdict(run.options) | {"gmap_sha256": run.gmap_sha256},
        "scans": [file_stem(path) for path in files],
        "weights_sha256": {name: r.model.digest for name, r in run.restorers.items()},
        "versions": found,
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "device": next((str(r.device) for r in run.restorers.values()), "cpu"),
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _write(
    out: Path, rows: list[Row], summary: list[Row], facts: dict[str, Any], slices: Slices
) -> tuple[str, ...]:
    """Write the tables and the page, all at once; returns their names."""
    acquisitions = _acquisitions(rows)
    with staged(out) as folder:
        write_csv(folder / "rows.csv", with_units([_flat(row) for row in rows]))
        write_csv(folder / "summary.csv", with_units(summary))
        results = facts | {"acquisitions": acquisitions, "summary": summary}
        write_json(folder / "results.json", results)
        page = benchmark_page(summary, plain(facts), slices, acquisitions)
        write_html(folder / "index.html", page)
    return "rows.csv", "summary.csv", "results.json", "index.html"


def _flat(row: Row) -> Row:
    """A row whose acquisition is one cell: JSON."""
    made = row["acquisition"]
    return row | {"acquisition": "" if made is None else json.dumps(made)}


def _acquisitions(rows: list[Row]) -> list[Row]:
    """What was simulated for each scan and kind of noise, in words; the levels are left out."""
    found = {
        (row["case"], row["noise"]): in_words(parse_acquisition(row["acquisition"], row["case"]))
        for row in rows
        if row["acquisition"] is not None
    }
    return [{"case": case, "noise": noise, "words": said} for (case, noise), said in found.items()]
