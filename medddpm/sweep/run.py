"""Run a grid of trainings, here one after another or over dask, into one table and one plot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from medddpm.errors import ConfigError, MissingExtraError, OutputError, missing_extra
from medddpm.io.outputs import staged, write_csv, write_html, write_json
from medddpm.io.provenance import versions
from medddpm.model.model import find_weights, load_model
from medddpm.sweep.cell import (
    CellPlan,
    OnCellLog,
    Row,
    check_same,
    parse_stages,
    read_row,
    run_cell,
)
from medddpm.sweep.grid import Cell, make_grid
from medddpm.sweep.page import sweep_page
from medddpm.threads import available_cores
from medddpm.training.data import open_cache
from medddpm.training.run import StageName


@dataclass(frozen=True)
class Sweep:
    """One row a cell, in the order of the grid, and what was written."""

    rows: list[Row] = field(repr=False)
    paths: list[Path]


@dataclass(frozen=True)
class Cluster:
    """Where the cells run.

    Attributes:
        workers: Processes on this machine; 0 runs the cells in this one, one after another.
        scheduler: Address of a dask scheduler, in place of `workers`.
    """

    workers: int = 0
    scheduler: str | None = None


def sweep(
    config: str,
    assignments: Sequence[str],
    *,
    data: str | Path,
    out: str | Path,
    stages: Sequence[str] = ("diffusion",),
    weights: str | Path | None = None,
    cluster: Cluster | None = None,
    resume: bool = False,
    on_log: OnCellLog | None = None,
    on_row: Callable[[Row], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Train and score every combination of the given values.

    Each cell is a run folder below `out`/cells; one that is done is not done again, one that was
    cut off goes on from its state, one that failed is tried again, and one that another process
    holds is left to it. The table holds all cells of the grid as they stand at the end.

    Args:
        config: A YAML file or a shipped name.
        assignments: "FIELD=VALUE,VALUE,...", see `make_grid`.
        data: Folder of NIfTI scans, packed once for all cells.
        out: For cells/, table.csv, results.json and sweep.html.
        stages: What each cell trains.
        weights: A run folder, a weights file or a shipped name with the earlier stages.
        cluster: Where the cells run; here, if not given.
        resume: Go on with a sweep that was begun.
        on_log: Called with the cell's name and each row that its training logs (not over dask).
        on_row: Called with the row of each cell that ends.
        on_progress: Called with how much is done, and of how much.

    Raises:
        ConfigError: The grid, a value or the weights cannot be used; nothing was trained.
        OutputError: `out` holds a sweep already, or cannot be written.
        MissingExtraError: dask is asked for, but not installed.
    """
    data, out = Path(data), Path(out)
    where = cluster or Cluster()
    cells = make_grid(config, assignments)
    plan = _plan(data, out, parse_stages(stages), weights)
    if any((plan.folder / cell.name).exists() for cell in cells) and not resume:
        raise OutputError(
            f"{out} holds a sweep already; go on with --resume, or take another --out"
        )
    for cell in cells:
        check_same(cell, plan)
    run = _over_dask(where) if where.workers or where.scheduler else _one_by_one(on_log)
    _pack(data, plan.cache, on_log)
    for number, row in enumerate(run(cells, plan), start=1):
        if on_row:
            on_row(row)
        if on_progress:
            on_progress(number, len(cells))
    rows = [read_row(cell, plan) for cell in cells]
    return Sweep(rows, _write(out, rows, config, assignments))


def _plan(
    data: Path, out: Path, stages: tuple[StageName, ...], weights: str | Path | None
) -> CellPlan:
    """What all cells share, checked before any work."""
    source, trained, digest = None, {}, ""
    if weights is not None:
        path = Path(weights)
        source = path / "model.safetensors" if path.is_dir() else find_weights(weights)
        model = load_model(source)
        trained, digest = model.card.get("stages", {}), model.digest
    if stages[0] != "autoencoder":
        if source is None:
            raise ConfigError(
                f"stage {stages[0]} needs the stages before it: give a run that has them (--from), "
                f"or train them in each cell (--stage autoencoder,{stages[0]})"
            )
        before = "autoencoder" if stages[0] == "diffusion" else "diffusion"
        if before not in trained:
            raise ConfigError(f"{source} has no trained {before}; train that stage first")
    with staged(out):
        pass  # the folder exists and takes files, before any work
    return CellPlan(data, out / "cells", out / "cache", stages, source, digest)


def _pack(data: Path, cache: Path, on_log: OnCellLog | None) -> None:
    """Pack the scans once; a second process waits for the first."""
    with FileLock(cache.with_name("cache.lock")):
        for line in open_cache(data, cache):
            if on_log:
                on_log("cache", {"stage": "cache", "skipped": line})


Runner = Callable[[list[Cell], CellPlan], Iterator[Row]]


def _one_by_one(on_log: OnCellLog | None) -> Runner:
    def run(cells: list[Cell], plan: CellPlan) -> Iterator[Row]:
        for cell in cells:
            yield run_cell(cell, plan, on_log)

    return run


def _over_dask(where: Cluster) -> Runner:
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise MissingExtraError(missing_extra("dask, which workers need,", "cluster")) from None

    def run(cells: list[Cell], plan: CellPlan) -> Iterator[Row]:
        with _client(Client, where) as client:
            shared = _absolute(plan, where)
            futures = {
                client.submit(run_cell, cell, shared, pure=False): cell
                for cell in cells  # not pure: a cell leaves files
            }
            for future in as_completed(list(futures)):  # type: ignore[no-untyped-call, unused-ignore]
                if future.status == "finished":
                    yield future.result()
                else:  # the worker died: the cell's state is on disk
                    cell = futures[future]
                    yield read_row(cell, shared) | {"error": f"{future.exception()}"}

    return run


@contextmanager
def _client(make: Any, where: Cluster) -> Iterator[Any]:
    """A client of the scheduler, or of so many processes here that end with it."""
    try:
        if where.scheduler:
            client = make(where.scheduler, timeout=20)
        else:
            client = make(n_workers=where.workers, threads_per_worker=1, dashboard_address=None)
    except (OSError, ValueError) as error:
        place = where.scheduler or "this machine"
        raise ConfigError(f"no dask scheduler answers at {place}: {error}") from None
    with client:
        yield client


def _absolute(plan: CellPlan, where: Cluster) -> CellPlan:
    """The plan as a worker reads it, wherever it was started; threads shared among those here."""
    threads = max(available_cores() // where.workers, 1) if where.workers else None
    return replace(
        plan,
        data=plan.data.resolve(),
        folder=plan.folder.resolve(),
        cache=plan.cache.resolve(),
        weights=plan.weights.resolve() if plan.weights else None,
        threads=threads,
    )


def _write(out: Path, rows: list[Row], config: str, assignments: Sequence[str]) -> list[Path]:
    """Write the table as CSV and JSON and the page, all at once."""
    flat = [{k: v for k, v in row.items() if not isinstance(v, dict)} for row in rows]
    facts = {"config": config, "set": list(assignments), "versions": versions(), "cells": rows}
    with staged(out) as folder:
        write_csv(folder / "table.csv", flat)
        write_json(folder / "results.json", facts)
        write_html(folder / "sweep.html", sweep_page(rows))
    return [out / "table.csv", out / "results.json", out / "sweep.html"]
