"""Which clean scans a file, a folder or a manifest holds."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path

from medddpm.data.manifest import bids_subject
from medddpm.errors import ConfigError
from medddpm.io.image_files import find_images
from medddpm.io.nifti import suffix_of
from medddpm.io.outputs import file_stem
from medddpm.io.tables import is_table, read_table


@dataclass(frozen=True)
class ScanList:
    """Clean scans to measure with.

    Attributes:
        data: A file, a folder (searched through) or a CSV manifest; see `scan_files`.
        include: Pattern (fnmatch) of names without suffix.
        limit: At most so many.
    """

    data: Path
    include: str = "*"
    limit: int | None = None

    def files(self) -> list[Path]:
        """The first scans whose names match.

        Raises:
            ConfigError: None matches, or two have the same name.
        """
        found = [p for p in scan_files(self.data) if fnmatch.fnmatch(file_stem(p), self.include)]
        if not found:
            raise ConfigError(f"no scan under {self.data} is called {self.include!r}")
        files = found[: self.limit]
        names = [file_stem(p) for p in files]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"two scans are called {name!r}: names tell scans apart; rename one"
                )
        return files

    def subjects(self) -> dict[Path, str]:
        """Who each scan is of: by a column `subject`, a BIDS name, or the name itself."""
        told = self.column("subject")
        names = {path: file_stem(path) for path in self.files()}
        return {path: told.get(path) or bids_subject(name) or name for path, name in names.items()}

    def column(self, name: str) -> dict[Path, str]:
        """What a column of a CSV manifest says of each scan; nothing for anything else."""
        if not is_table(self.data):
            return {}
        rows = read_table(self.data, ("file",))
        return {row.path(self.data.parent): row.get(name) for row in rows}


def scan_files(data: Path) -> list[Path]:
    """The scans of a file, a folder (searched through) or a CSV manifest, sorted.

    Raises:
        ConfigError: There is none, or the manifest has no column `file`, or names a file that
            does not exist.
    """
    if is_table(data):
        scans = _listed(data)
    elif data.is_dir():
        scans = find_images(data)
    else:
        scans = [data] if suffix_of(data) and data.is_file() else []
    if not scans:
        raise ConfigError(f"no NIfTI scan in {data}; give a file, a folder or a CSV manifest")
    return scans


def _listed(manifest: Path) -> list[Path]:
    found = [row.path(manifest.parent) for row in read_table(manifest, ("file",)) if row["file"]]
    for path in found:
        if not path.is_file():
            raise ConfigError(f"{manifest} names {path}, which does not exist")
        if not suffix_of(path):
            raise ConfigError(f"{manifest} names {path}, which is no NIfTI or MGH file")
    return sorted(found)
