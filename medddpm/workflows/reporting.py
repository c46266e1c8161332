"""Pages that show what a restoration did: one a result, and one over all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medddpm.errors import CheckpointError, ConfigError, MedddpmError, OutputError, VolumeReadError
from medddpm.evaluation.report import Figure, ReportScan, measure
from medddpm.evaluation.report_group import GroupRow, group_page
from medddpm.evaluation.report_page import report_page
from medddpm.io import OnError, read_volume
from medddpm.restoration.model import find_weights, read_card
from medddpm.volume import Volume
from medddpm.workflows.outputs import check_targets, staged
from medddpm.workflows.results import Result, find_results, find_source

INDEX = "index.html"


@dataclass(frozen=True)
class Shown:
    """The page of a scan, and the numbers on it."""

    page: str
    figures: list[Figure]


@dataclass(frozen=True)
class Reports:
    """What was written: a page a result, and the one over all if there are several."""

    pages: list[Path] = field(default_factory=list)
    index: Path | None = None


def report(
    results: Sequence[Path],
    *,
    out: Path | None = None,
    source: Path | None = None,
    reference: Path | None = None,
    frame: int = 0,
    overwrite: bool = False,
    on_error: OnError | None = None,
) -> Reports:
    """Write an HTML page for each result, and over several of them one that compares them.

    Args:
        results: Restored scans, their sidecars, or folders that hold some.
        out: A folder for the pages, or an .html file for one; beside each result if not given.
        source: The scan that was restored, if it is no longer where the sidecar says.
        reference: A clean scan on the same grid, for PSNR and SSIM; for one result.
        frame: Which frame of a 4D scan to show.
        overwrite: Replace pages that exist.
        on_error: Called with the error of each bad result, and the others are shown; without it
            the first error is raised.

    Raises:
        ConfigError: There is no result, or one reference or source for several.
        VolumeReadError: A result, or the scan that it was made from, is gone or has changed.
        GeometryError: The scans lie on different grids.
    """
    found = find_results(results)
    if len(found) > 1 and (source or reference):
        raise ConfigError(f"--source and --reference belong to one result, and here {len(found)}")
    pages = _pages(found, out)
    index = _index(pages, out) if len(found) > 1 else None
    check_targets([*pages, *([index] if index else [])], overwrite=overwrite)
    done, rows = [], []
    for result, page in zip(found, pages, strict=True):
        try:
            shown = _show_result(result, source, reference, frame)
        except OutputError:
            raise
        except MedddpmError as error:
            if on_error is None:
                raise
            on_error(type(error)(f"{result.stem}: {error}"))
            continue
        _write(page, shown.page)
        done.append(page)
        if index is not None:
            link = Path(os.path.relpath(page, index.parent)).as_posix()
            rows.append(GroupRow.of(result.stem, link, result.facts, shown.figures))
    if index is None or not rows:
        return Reports(done)
    _write(index, group_page(rows))
    return Reports(done, index)


def show(
    name: str,
    before: Volume,
    after: Volume,
    facts: Mapping[str, Any],
    *,
    std: Volume | None = None,
    reference: Volume | None = None,
    card: Mapping[str, Any] | None = None,
    frame: int = 0,
) -> Shown:
    """The page of a restored scan.

    Raises:
        GeometryError: The scans lie on different grids.
    """
    for what, other in (("the restored scan", after), ("std", std), ("the reference", reference)):
        if other is not None:
            before.geometry.require_match(other.geometry, f"{name}: {what}")
    if not 0 <= frame < before.num_frames:
        raise ConfigError(f"{name} has frames 0 to {before.num_frames - 1}, and no frame {frame}")
    scan = ReportScan(
        name,
        before.frame(frame),
        after.frame(frame),
        before.geometry,
        facts,
        std=None if std is None else std.frame(frame),
        reference=None
        if reference is None
        else reference.frame(min(frame, reference.num_frames - 1)),
        card=card,
        frame=frame,
    )
    figures = measure(scan)
    return Shown(report_page(scan, figures), figures)


def _show_result(result: Result, source: Path | None, reference: Path | None, frame: int) -> Shown:
    after, before = result.read(), find_source(result, source)
    if before.num_frames != after.num_frames:
        raise VolumeReadError(
            f"{result.image} has {after.num_frames} frames, its source {before.num_frames}"
        )
    return show(
        result.stem,
        before,
        after,
        result.facts,
        std=result.read_map("std"),
        reference=None if reference is None else read_volume(reference),
        card=_card(result),
        frame=frame,
    )


def weights_of(result: Result) -> str | Path:
    """The weights that a result names: a shipped name, or a path seen from the sidecar."""
    named = str(result.facts["weights"].get("source", "default"))
    return result.sidecar.parent / named if named.endswith(".safetensors") else named


def _card(result: Result) -> dict[str, Any]:
    """The card of the weights, if the file is at hand and is still the same."""
    try:
        card, digest = read_card(find_weights(weights_of(result)))
    except (CheckpointError, ConfigError):
        return {}
    return card if digest == result.facts["weights"]["sha256"] else {}


def _pages(results: Sequence[Result], out: Path | None) -> list[Path]:
    if out is None:
        return [result.sidecar.with_suffix(".html") for result in results]
    if out.suffix == ".html":
        if len(results) > 1:
            raise ConfigError(f"there are {len(results)} results: give a folder, not {out}")
        return [out]
    pages: list[Path] = []
    for result in results:
        page, number = out / f"{result.stem}.html", 2
        while page in pages:
            page, number = out / f"{result.stem}-{number}.html", number + 1
        pages.append(page)
    return pages


def _index(pages: Sequence[Path], out: Path | None) -> Path:
    folder = out or Path(os.path.commonpath([page.parent.resolve() for page in pages]))
    return folder / INDEX


def _write(path: Path, page: str) -> None:
    with staged(path.parent) as folder:
        (folder / path.name).write_text(page, encoding="utf-8")
