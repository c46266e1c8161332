"""Which clean scan belongs to which restored one."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from medddpm.errors import ConfigError
from medddpm.workflows.outputs import NIFTI_SUFFIXES, file_stem
from medddpm.workflows.results import Result

_COLUMNS = ("scan", "reference")


def find_references(results: Sequence[Result], given: Path | None) -> dict[Path, Path]:
    """The reference of each result that has one, by the result's sidecar.

    Args:
        results: Restored scans.
        given: A clean scan, for one result; a folder of NIfTI files, each of which is called as
            the scan that was restored; or a CSV file with the columns `scan` (the name of a
            result, or of the scan that was restored) and `reference`, a path that is relative to
            the file.

    Raises:
        ConfigError: There is no such file, no result has a reference, or a name is not unique.
    """
    if given is None:
        return {}
    if not given.exists():
        raise ConfigError(f"--reference {given} does not exist")
    if given.suffix == ".csv":
        named = _listed(given)
    else:
        named = _in_folder(given) if given.is_dir() else {}
    if not named:
        if len(results) > 1:
            raise ConfigError(
                f"--reference {given} is one scan, and here are {len(results)} results: give a "
                "folder of NIfTI files, or a CSV file with the columns scan and reference"
            )
        return {results[0].sidecar: given}
    found = {result.sidecar: _pick(result, named, given) for result in results}
    kept = {sidecar: path for sidecar, path in found.items() if path is not None}
    if not kept:
        result = results[0]
        raise ConfigError(
            f"--reference {given} has no scan for any result: {result.stem}, for one, asks for "
            f"{' or '.join(_names(result))}"
        )
    return kept


def _names(result: Result) -> list[str]:
    """What the reference of a result may be called."""
    return list(dict.fromkeys([str(result.facts["input"]["case_id"]), result.stem]))


def _pick(result: Result, named: dict[str, list[Path]], given: Path) -> Path | None:
    for name in _names(result):
        paths = named.get(name, [])
        if len(paths) > 1:
            raise ConfigError(
                f"{given} has {len(paths)} scans that are called {name}; say in a CSV file with "
                "the columns scan and reference which one belongs to which result"
            )
        if paths:
            return paths[0]
    return None


def _in_folder(folder: Path) -> dict[str, list[Path]]:
    scans = sorted(p for p in folder.rglob("*") if p.name.endswith(NIFTI_SUFFIXES) and p.is_file())
    return _by_name((file_stem(path), path) for path in scans)


def _listed(table: Path) -> dict[str, list[Path]]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ConfigError(f"{table} has no column {' and no column '.join(missing)}")
        rows = [(row["scan"], table.parent / row["reference"]) for row in reader if row["scan"]]
    if not rows:
        raise ConfigError(f"{table} names no scan")
    for _, path in rows:
        if not path.exists():
            raise ConfigError(f"{table} names {path}, which does not exist")
    return _by_name((file_stem(Path(name)), path) for name, path in rows)


def _by_name(pairs: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    named: dict[str, list[Path]] = {}
    for name, path in pairs:
        if path not in named.setdefault(name, []):
            named[name].append(path)
    return named
