"""Which clean scan belongs to which restored one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from medddpm.errors import ConfigError
from medddpm.io.image_files import find_images
from medddpm.io.outputs import file_stem
from medddpm.io.results import Result
from medddpm.io.tables import is_table, read_table

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
    named = _in_folder(given) if given.is_dir() else {}
    if is_table(given):
        named = _listed(given)
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
    return list(dict.fromkeys([result.facts.input.case_id, result.stem]))


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
    return _by_name((file_stem(path), path) for path in find_images(folder))


def _listed(table: Path) -> dict[str, list[Path]]:
    lines = read_table(table, _COLUMNS)
    rows = [(line["scan"], line.path(table.parent, "reference")) for line in lines if line["scan"]]
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
