"""Write the data report: what a prepared data set holds, and how well its groups are restored."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError

from medddpm.benchmark.figures import NOISE_WORDS
from medddpm.data.manifest import SPLITS, ScanRow, read_manifest
from medddpm.data_report.measure import DataReport, describe_data, name_some
from medddpm.data_report.page import (
    Results,
    Sheets,
    data_report_page,
    quality_flags,
)
from medddpm.data_report.subgroups import compare_groups
from medddpm.errors import ConfigError, OutputError
from medddpm.io.outputs import check_targets, file_stem, staged, write_html
from medddpm.io.provenance import checksum, versions
from medddpm.io.tables import read_table

Metric = Literal["psnr", "ssim"]
Row = dict[str, Any]

_NOT_HELD_OUT = "No scored scan is in val or test: quality on scans that a model has seen misleads."
_SHEET_PIXELS = 1600
_MAX_SHEETS = 20
_MAX_SOURCE_PIXELS = 50_000_000


@dataclass(frozen=True)
class WrittenDataReport:
    """The numbers of the page, and where it is.

    Attributes:
        report: Of the data.
        results: Quality by subgroup; None without a benchmark.
        flags: What is wrong, in words: leaks, use without consent, groups that are worse.
        path: The page.
    """

    report: DataReport = field(repr=False)
    results: Results | None = field(repr=False)
    flags: list[str]
    path: Path


def data_report(
    prepared: str | Path,
    out: str | Path,
    *,
    results: str | Path | None = None,
    metric: Metric = "psnr",
    overwrite: bool = False,
) -> WrittenDataReport:
    """Describe a prepared data set in one HTML page that needs no other file.

    The same inputs give the same bytes.

    Args:
        prepared: The folder that `medddpm prepare` wrote; its manifest.csv is needed, ledger.csv
            and quality/contact-*.png are used where they are. Or a manifest alone.
        out: The page, an .html file.
        results: What `medddpm benchmark` wrote on scans of the manifest: its folder, or rows.csv.
        metric: What restoration quality is.
        overwrite: Replace an existing page.

    Raises:
        ConfigError: No manifest, or no scan in it; the results lack a column, or are of none of
            its scans; the page's name does not end in .html.
        OutputError: The page exists, or cannot be written.
    """
    prepared, out = Path(prepared), Path(out)
    results = None if results is None else Path(results)
    _check_page(out, overwrite)
    manifest = prepared / "manifest.csv" if prepared.is_dir() else prepared
    rows = _read_rows(manifest)
    report = describe_data(rows, _read_ledger(manifest.parent / "ledger.csv"))
    quality = _quality(results, rows, metric) if results else None
    facts = {
        "SHA-256 of the manifest": checksum([manifest]),
        **({"SHA-256 of the results": checksum([_rows_file(results)])} if results else {}),
        "medddpm": versions()["medddpm"],
    }
    page = data_report_page(report, facts, quality, _contact_sheets(manifest.parent / "quality"))
    with staged(out.parent) as folder:
        write_html(folder / out.name, page)
    flags = report.problems + (quality_flags(quality) if quality else [])
    return WrittenDataReport(report, quality, flags, out)


def _check_page(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise OutputError(f"{out} is a folder; name the page, such as {out / 'data-report.html'}")
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out is {out}; the page is an .html file")
    check_targets([out], overwrite=overwrite)


def _read_rows(manifest: Path) -> list[ScanRow]:
    rows = read_manifest(manifest)
    if not rows:
        raise ConfigError(f"{manifest} lists no scan; look at the ledger of `medddpm prepare`")
    return rows


def _read_ledger(path: Path) -> list[Row]:
    return _read_csv(path, ("code", "reason")) if path.exists() else []


def _read_csv(path: Path, needed: Sequence[str], wanted: Sequence[str] = ()) -> list[Row]:
    """The lines of a table that has at least the needed columns; what is not there is ""."""
    names = (*needed, *wanted)
    return [{name: line.get(name) for name in names} for line in read_table(path, needed)]


def _rows_file(results: Path) -> Path:
    """The table with one row a scan, method and sigma."""
    if results.is_dir():
        return results / "rows.csv"
    return results.with_name("rows.csv") if results.suffix == ".json" else results


def _quality(results: Path, scans: Sequence[ScanRow], metric: Metric) -> Results:
    path = _rows_file(results)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; give the folder of `medddpm benchmark`")
    wanted = ("case", "method", "sigma_fraction", "sigma_source", metric)
    rows = [row | {"sigma": row["sigma_fraction"]} for row in _read_csv(path, wanted, ("noise",))]
    for number, row in enumerate(rows, start=2):
        for name in ("sigma", metric):
            try:
                row[name] = float(row[name])
            except ValueError:
                raise ConfigError(
                    f"{path}, line {number}: {name} is {row[name]!r}, not a number"
                ) from None
    known = _by_case(scans)
    pairs = [(known[row["case"]], row) for row in rows if row["case"] in known]
    unknown = sorted({row["case"] for row in rows} - set(known))
    if not pairs:
        raise ConfigError(
            f"{path} is of no scan of the manifest: looked for {name_some(unknown) or 'nothing'} "
            f"among the scans, and among the names of their files, such as {scans[0].scan}"
        )
    held_out = [(scan, row) for scan, row in pairs if scan.split in ("val", "test")]
    used, warning = (held_out, "") if held_out else (pairs, _NOT_HELD_OUT)
    if all(row["method"] == "identity" for _, row in used):
        raise ConfigError(f"{path} holds only the noisy scans ('identity'), and no restoration")
    if len({row["noise"] for row in rows}) > 1:
        used = [(scan, row | {"method": _method(row)}) for scan, row in used]
    return Results(compare_groups(used, metric), _which(used, pairs), warning, unknown)


def _method(row: Row) -> str:
    """What restored a scan, and from which kind of noise; the noisy scan keeps its name."""
    name, noise = str(row["method"]), str(row["noise"])
    return name if name == "identity" else f"{name}, {NOISE_WORDS.get(noise, noise)}"


def _which(used: Sequence[tuple[ScanRow, Row]], pairs: Sequence[tuple[ScanRow, Row]]) -> str:
    """Which scans were scored, in words."""
    scored = {scan.scan: scan.split for scan, _ in used}
    counts = Counter(scored.values())
    where = [
        f"{counts[split]} of {split or 'no split'}" for split in (*SPLITS, "") if counts[split]
    ]
    aside = len({scan.scan for scan, _ in pairs}) - len(scored)
    more = f" Those of {aside} more, in train or left out, are not used." if aside else ""
    return f"Scans with results: {', '.join(where)}.{more}"


def _by_case(scans: Sequence[ScanRow]) -> dict[str, ScanRow]:
    """Scans by what a benchmark may call them: their name, or their file's where that is unique."""
    stems = [file_stem(Path(scan.file)) for scan in scans if scan.file]
    unique = {stem for stem, count in Counter(stems).items() if count == 1}
    by_file = {file_stem(Path(scan.file)): scan for scan in scans if scan.file}
    return {stem: scan for stem, scan in by_file.items() if stem in unique} | {
        scan.scan: scan for scan in scans
    }


def _contact_sheets(folder: Path) -> Sheets:
    shown: dict[str, bytes] = {}
    hidden: list[str] = []
    for path in sorted(folder.glob("contact-*.png")):
        content = _shrunk(path) if len(shown) < _MAX_SHEETS else None
        if content is None:
            hidden.append(path.name)
        else:
            shown[path.name] = content
    return Sheets(shown, hidden)


def _shrunk(path: Path) -> bytes | None:
    """The picture as a JPEG file that fits a page; None if it is too large or unreadable."""
    stream = io.BytesIO()
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > _MAX_SOURCE_PIXELS:
                return None
            small = picture.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None
    small.thumbnail((_SHEET_PIXELS, _SHEET_PIXELS))
    small.save(stream, format="JPEG", quality=80)
    return stream.getvalue()
