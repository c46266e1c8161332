"""Run a benchmark over a folder of clean scans; it goes on where it stopped."""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medddpm.errors import ConfigError
from medddpm.evaluation.benchmark import (
    OURS,
    BenchmarkOptions,
    bootstrap_interval,
    prepare_case,
    run_method,
)
from medddpm.io import read_volume
from medddpm.restoration.restorer import Restorer
from medddpm.workflows.outputs import NIFTI_SUFFIXES, file_stem, staged, write_json
from medddpm.workflows.provenance import checksum, versions

Row = dict[str, Any]
_SUMMARY = ("psnr", "ssim", "nrmse", "hfen", "bias_foreground", "seconds")


@dataclass(frozen=True)
class Benchmark:
    """All rows, their summary a noise level and method, and what was written."""

    rows: list[Row]
    summary: list[Row]
    paths: list[Path]


def benchmark(
    data: Path,
    out: Path,
    *,
    options: BenchmarkOptions | None = None,
    weights: str | Path = "default",
    device: str = "auto",
    include: str = "*",
    limit: int | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> Benchmark:
    """Compare denoisers on clean scans with simulated noise.

    Each row is a file in `out`/rows, named by a hash of all that it depends on: a run that was
    stopped, or has new methods, computes only what is missing.

    Args:
        data: A NIfTI file, a folder of them, or a CSV file with a column `file`.
        out: Folder for rows.csv, summary.csv and results.json.
        options: What is compared.
        weights: Our model.
        device: Where it runs.
        include: Pattern (fnmatch) of scan names.
        limit: At most so many scans.
        on_row: Called with each row.
    """
    settings = options or BenchmarkOptions()
    files = [p for p in scan_files(data) if fnmatch.fnmatch(file_stem(p), include)][:limit]
    if not files:
        raise ConfigError(f"no scan under {data} is called {include!r}")
    ours = any(method in OURS for method in settings.methods)
    restorer = Restorer.from_pretrained(weights, device) if ours else None
    digest = restorer.model.digest if restorer else ""
    rows = []
    with staged(out):
        pass  # the folder exists and takes files, before any work
    for path in files:
        for row in _rows_of(path, out / "rows", settings, restorer, digest):
            rows.append(row)
            if on_row:
                on_row(row)
    summary = summarise(rows)
    with staged(out) as folder:
        _write_csv(folder / "rows.csv", rows)
        _write_csv(folder / "summary.csv", summary)
        facts = {"options": asdict(settings), "weights_sha256": digest, "versions": versions()}
        write_json(folder / "results.json", facts | {"summary": summary})
    names = ("rows.csv", "summary.csv", "results.json")
    return Benchmark(rows, summary, [out / name for name in names])


def scan_files(data: Path) -> list[Path]:
    """The scans of a file, a folder (searched through) or a CSV manifest, sorted.

    Raises:
        ConfigError: There is none, or the manifest has no column `file`.
    """
    if data.suffix == ".csv" and data.is_file():
        with data.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            if "file" not in (table.fieldnames or ()):
                raise ConfigError(f"{data} has no column 'file'")
            found = [data.parent / row["file"] for row in table]
    else:
        found = sorted(data.rglob("*")) if data.is_dir() else [data]
    scans = [p for p in found if p.name.endswith(NIFTI_SUFFIXES) and p.is_file()]
    if not scans:
        raise ConfigError(f"no NIfTI scan in {data}; give a file, a folder or a CSV manifest")
    return scans


def summarise(rows: list[Row]) -> list[Row]:
    """Means over the scans, and the paired gain in PSNR over the first method, with interval."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    summary = []
    for sigma in sorted({row["sigma"] for row in rows}):
        here = [row for row in rows if row["sigma"] == sigma]
        first = {r["case"]: r["psnr"] for r in here if r["method"] == methods[0]}
        for method in methods:
            mine = [row for row in here if row["method"] == method]
            gains = [r["psnr"] - first[r["case"]] for r in mine]
            low, high = bootstrap_interval(gains)
            line: Row = {"sigma": sigma, "method": method, "scans": len(mine)}
            line |= {name: float(np.mean([r[name] for r in mine])) for name in _SUMMARY}
            line |= {"gain_over": methods[0], "gain": float(np.mean(gains))}
            summary.append(line | {"gain_low": low, "gain_high": high})
    return summary


def _rows_of(
    path: Path, folder: Path, options: BenchmarkOptions, restorer: Restorer | None, digest: str
) -> Iterable[Row]:
    common = {k: v for k, v in asdict(options).items() if k not in ("sigmas", "methods")}
    common |= {"scan": checksum([path]), "version": versions()["medddpm"]}
    case = None
    for sigma in options.sigmas:
        for method in options.methods:
            mine = common | {"sigma": sigma, "method": method}
            mine |= {"weights": digest} if method in OURS else {}
            key = hashlib.sha256(json.dumps(mine, sort_keys=True).encode()).hexdigest()[:20]
            kept = folder / f"{key}.json"
            if not kept.exists():
                case = case or prepare_case(read_volume(path), options.crop)
                row = run_method(case, sigma, method, options, restorer)
                folder.mkdir(parents=True, exist_ok=True)
                with staged(folder) as work:
                    write_json(work / kept.name, row | {"noise": options.noise})
            yield json.loads(kept.read_text(encoding="utf-8"))


def _write_csv(path: Path, rows: list[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)
