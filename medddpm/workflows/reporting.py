"""Pages that show what a restoration did: one a result, and one over all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medddpm.errors import CheckpointError, ConfigError, MedddpmError, OutputError, VolumeReadError
from medddpm.io import OnError, read_volume
from medddpm.io.outputs import check_targets, names_folder, staged, write_html
from medddpm.io.results import Result, find_results, find_source
from medddpm.io.sidecar import Sidecar
from medddpm.model.model import find_weights, read_card
from medddpm.report.facts import ReportScan, measure
from medddpm.report.group import GroupRow, group_page
from medddpm.report.page import report_page, thumbnails
from medddpm.volume import Volume
from medddpm.workflows.references import find_references

INDEX = "index.html"
_THUMB, _FEW = (96, 56), 300
"""Pixels of a small picture, and of one where there are more results than a few."""


@dataclass(frozen=True)
class Reports:
    """What was written.

    Attributes:
        pages: One a result.
        index: The page over all of them, if there are several or it alone was asked for.
        without_reference: Names of results for which no reference was found, though some were.
    """

    pages: list[Path] = field(default_factory=list)
    index: Path | None = None
    without_reference: list[str] = field(default_factory=list)


def report(
    results: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    source: str | Path | None = None,
    reference: str | Path | None = None,
    frame: int | None = None,
    index_only: bool = False,
    overwrite: bool = False,
    on_error: OnError | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Reports:
    """Write an HTML page for each result, and over several of them one that compares them.

    Args:
        results: Restored scans, their sidecars, or folders that hold some.
        out: A folder for the pages, or an .html file for one; beside each result if not given.
        source: The scan that was restored, if it is no longer where the sidecar says.
        reference: Clean scans on the same grids, for PSNR and SSIM; see `find_references`.
        frame: Which frame of a 4D scan to show; the first that is not blank, if not given.
        index_only: Write the page over all results alone; it links to pages that are there.
        overwrite: Replace pages that exist.
        on_error: Called with the error of each bad result, and the others are shown; without it
            the first error is raised.
        on_progress: Called with how many results are shown, and of how many.

    Raises:
        ConfigError: There is no result, no reference for any, or one source for several.
        VolumeReadError: A result, or the scan that it was made from, is gone or has changed.
        GeometryError: The scans lie on different grids.
    """
    out, is_page = (None, False) if out is None else (Path(out), not names_folder(out, (".html",)))
    source = None if source is None else Path(source)
    reference = None if reference is None else Path(reference)
    given = [results] if isinstance(results, str | Path) else results
    found = find_results([Path(path) for path in given])
    if len(found) > 1 and source:
        raise ConfigError(f"--source belongs to one result, and here are {len(found)}")
    references = find_references(found, reference)
    pages = _pages(found, out, is_page, index_only)
    index = _index(pages, out, is_page) if index_only or len(found) > 1 else None
    targets = [*([] if index_only else pages), *([index] if index else [])]
    check_targets(targets, overwrite=overwrite)
    done, rows, without = [], [], []
    for number, (result, page, name) in enumerate(
        zip(found, pages, result_names(found), strict=True)
    ):
        if on_progress:
            on_progress(number, len(found))
        clean = references.get(result.sidecar)
        try:
            scan = _read_scan(result, source, clean, frame)
            figures = measure(scan)
            if not index_only:
                _write(page, report_page(scan, figures))
        except OutputError:
            raise
        except MedddpmError as error:
            if on_error is None:
                raise
            on_error(type(error)(f"{name}: {error}"))
            continue
        done += [] if index_only else [page]
        without += [name] if references and clean is None else []
        if index is not None:
            thumbs = thumbnails(scan, _THUMB[len(found) > _FEW])
            link = link_to(result, index, page)
            rows.append(GroupRow.of(name, link, result.facts, figures, thumbs))
    if index is None or not rows:
        return Reports(done, None, without)
    _write(index, group_page(rows))
    return Reports(done, index, without)


def link_to(result: Result, index: Path, page: Path | None = None) -> str:
    """Where a page over several results links to: the page of a result, else its sidecar."""
    pages = [page or result.sidecar.with_suffix(".html"), result.sidecar.with_suffix(".html")]
    target = next((p for p in pages if p.is_file()), result.sidecar)
    return Path(os.path.relpath(target, index.parent)).as_posix()


def result_names(results: Sequence[Result]) -> list[str]:
    """What a page calls each result: its stem, with its folders where another has the same."""
    stems = [result.stem for result in results]
    if len(set(stems)) == len(stems):
        return stems
    folders = [result.sidecar.parent.resolve() for result in results]
    root = Path(os.path.commonpath(folders))
    return [(f.relative_to(root) / s).as_posix() for f, s in zip(folders, stems, strict=True)]


def scan_of(
    name: str,
    before: Volume,
    after: Volume,
    facts: Sidecar,
    *,
    std: Volume | None = None,
    reference: Volume | None = None,
    frame: int = 0,
) -> ReportScan:
    """What the page of a restored scan shows.

    Raises:
        GeometryError: The scans lie on different grids.
        ConfigError: There is no such frame.
    """
    for what, other in (("the restored scan", after), ("std", std), ("the reference", reference)):
        if other is not None:
            before.geometry.require_match(other.geometry, f"{name}: {what}")
    if not 0 <= frame < before.num_frames:
        raise ConfigError(f"{name} has frames 0 to {before.num_frames - 1}, and no frame {frame}")
    clean = None if reference is None else reference.frame(min(frame, reference.num_frames - 1))
    return ReportScan(
        name,
        before.frame(frame),
        after.frame(frame),
        before.geometry,
        facts,
        std=None if std is None else std.frame(frame),
        reference=clean,
        frame=frame,
    )


def _read_scan(
    result: Result, source: Path | None, reference: Path | None, frame: int | None
) -> ReportScan:
    after, before = result.read(), find_source(result, source)
    frame = result.facts.shown_frame if frame is None else frame
    if frame in result.facts.blank_frames:
        raise ConfigError(f"frame {frame} of {result.stem} is blank; show another with --frame")
    if before.num_frames != after.num_frames:
        raise VolumeReadError(
            f"{result.image} has {after.num_frames} frames, its source {before.num_frames}"
        )
    scan = scan_of(
        result.stem,
        before,
        after,
        result.facts,
        std=result.read_map("std"),
        reference=None if reference is None else read_volume(reference),
        frame=frame,
    )
    return replace(scan, card=_card(result))


def weights_of(result: Result) -> str | Path:
    """The weights that a result names: a shipped name, or a path seen from the sidecar."""
    named = result.facts.weights.source
    return (result.sidecar.parent / named).resolve() if named.endswith(".safetensors") else named


def _card(result: Result) -> dict[str, Any]:
    """The card of the weights, if the file is at hand and is still the same."""
    try:
        card, digest = read_card(find_weights(weights_of(result)))
    except (CheckpointError, ConfigError):
        return {}
    return card if digest == result.facts.weights.sha256 else {}


def _pages(
    results: Sequence[Result], out: Path | None, is_page: bool, index_only: bool
) -> list[Path]:
    if out is None or (index_only and is_page):
        return [result.sidecar.with_suffix(".html") for result in results]
    if is_page:
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


def _index(pages: Sequence[Path], out: Path | None, is_page: bool) -> Path:
    """The page over all: in the folder of the pages, or an .html file of its own."""
    if out is not None and is_page:
        return out
    folder = out or Path(os.path.commonpath([page.parent.resolve() for page in pages]))
    return folder / INDEX


def _write(path: Path, page: str) -> None:
    with staged(path.parent) as folder:
        write_html(folder / path.name, page)
