"""One scan from its files to the cache: read, deface if wanted, mark, pack."""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medddpm.data.cache import CACHE_VERSION, Case, case_of, pack, read_entry
from medddpm.data.ledger import Code, LedgerRow
from medddpm.data.manifest import ScanRow
from medddpm.data.quality import Mark, marks_of, signature
from medddpm.data.sources import Found
from medddpm.data.tables import write_text
from medddpm.errors import MedddpmError, MemoryBudgetError, OutputError, VolumeReadError
from medddpm.io import (
    Trust,
    checksum,
    read_series,
    read_volume,
    why_no_magnitude,
    without_padding,
    write_volume,
)
from medddpm.preprocess.intensity import foreground_mask
from medddpm.volume import Volume


@dataclass(frozen=True)
class Ready:
    """A packed scan with all that is known of it."""

    row: ScanRow
    case: Case
    marks: tuple[Mark, ...]
    signature: tuple[float, ...]
    found: Found


def prepare_scan(
    found: Found, cache: Path, deface: str = "", trust: Trust | None = None
) -> tuple[list[Ready], list[LedgerRow]]:
    """Pack the scans that a file or a series holds; what fails is a row of the ledger.

    A scan that an earlier run packed from the same bytes is taken as it is.

    Args:
        found: From a source.
        cache: An existing folder.
        deface: Command with {in} and {out} for scans that may show a face.
        trust: Which form to take where those of a NIfTI file disagree.

    Raises:
        OutputError: The disk is full or read-only.
        ConfigError: Another version wrote the cache.
    """
    place = cache / f"{found.row.scan}.json"
    before = read_entry(place)
    try:
        key = checksum(found.files)
    except OSError as error:
        return [], [_left_out(found, "unreadable", error.strerror or "cannot be read")]
    made = [key, deface, trust, found.row.contrast, found.told_contrast]
    if before is None or before["made"] != made:
        try:
            before = _pack_all(found, cache, deface, trust) | {"made": made}
        except (OutputError, MemoryBudgetError):
            raise
        except _DefaceError as error:
            return [], [_left_out(found, "deface-failed", str(error))]
        except MedddpmError as error:
            return [], [_left_out(found, "unreadable", without_paths(str(error), found))]
        except OSError as error:
            raise OutputError(f"cannot write a temporary file: {error.strerror}") from error
        except Exception as error:  # one strange scan of a thousand must not end the night
            reason = f"a bug: {type(error).__name__}; report it with shape and number type"
            return [], [_left_out(found, "unreadable", reason)]
        write_text(place, json.dumps(before))
    left_out = [LedgerRow(**entry) for entry in before["left_out"]]
    return [_ready(found, key, entry) for entry in before["scans"]], left_out


def without_paths(text: str, found: Found) -> str:
    """A message of the DICOM reader without file names, which may hold those of patients."""
    if found.row.file.startswith("dicom:"):
        for path in found.files:
            for name in (str(path), str(path.parent), path.name):
                text = text.replace(name, "a file")
    return text


def _left_out(found: Found, code: Code, reason: str, scan: str = "") -> LedgerRow:
    return LedgerRow(scan or found.row.scan, found.row.subject, code, " ".join(reason.split()))


def _pack_all(found: Found, cache: Path, deface: str, trust: Trust | None) -> dict[str, Any]:
    volumes = (
        read_series(found.files)
        if found.row.file.startswith("dicom:")
        else [read_volume(found.files[0], trust=trust)]
    )
    scans, left_out = [], []
    for number, volume in enumerate(volumes, start=1):
        name = found.row.scan + (f"-{number}" if len(volumes) > 1 else "")
        why = why_no_magnitude(volume)
        if why:
            left_out.append(asdict(_left_out(found, "not-magnitude", why, name)))
            continue
        if volume.num_frames > 1:
            reason = f"{volume.num_frames} frames; a training scan is 3D"
            left_out.append(asdict(_left_out(found, "4d", reason, name)))
            continue
        scans.append(_pack_one(without_padding(volume), found, name, cache, deface))
    return {"version": CACHE_VERSION, "scans": scans, "left_out": left_out}


def _pack_one(volume: Volume, found: Found, name: str, cache: Path, deface: str) -> dict[str, Any]:
    contrasts = (found.row.contrast, found.told_contrast)
    mask = foreground_mask(volume.frame(0))
    marks = marks_of(volume.frame(0), mask, volume.geometry, contrasts)
    if deface and any(mark.flag == "face-possible" for mark in marks):
        volume = _defaced(volume, deface)
        mask = foreground_mask(volume.frame(0))
        marks = [m for m in marks if m.flag != "face-possible"]
        marks.append(Mark("defaced", reason="by the command given with --deface"))
    case = pack(volume, cache, name=name, mask=mask)
    return {
        **asdict(case),
        "full_shape": volume.geometry.shape,
        "orientation": volume.geometry.orientation,
        "marks": [asdict(mark) for mark in marks],
        "signature": signature(volume.frame(0), volume.geometry, mask),
    }


def _ready(found: Found, key: str, entry: dict[str, Any]) -> Ready:
    marks = tuple(Mark(**mark) for mark in entry["marks"])
    flags = [*filter(None, found.row.flags.split(";")), *(mark.flag for mark in marks)]
    row = replace(
        found.row,
        scan=entry["name"],
        shape="x".join(str(n) for n in entry["full_shape"]),
        spacing="x".join(f"{s:.4g}" for s in entry["spacing"]),
        orientation=entry["orientation"],
        checksum=key,
        flags=";".join(flags),
    )
    return Ready(row, case_of(entry), marks, tuple(entry["signature"]), found)


class _DefaceError(MedddpmError):
    """The command that should deface a scan did not."""


def _defaced(volume: Volume, command: str) -> Volume:
    """The scan as an installed tool gives it back, on the same grid."""
    with tempfile.TemporaryDirectory(prefix="medddpm-") as folder:
        given, made = Path(folder, "in.nii.gz"), Path(folder, "out.nii.gz")
        write_volume(replace(volume, native=None, format="array"), given)
        words = [
            word.replace("{in}", str(given)).replace("{out}", str(made))
            for word in shlex.split(command)
        ]
        try:
            subprocess.run(words, check=True, capture_output=True)
            result = read_volume(made)
        except FileNotFoundError:
            raise _DefaceError(f"{words[0]} is not installed") from None
        except subprocess.CalledProcessError as error:
            raise _DefaceError(f"{words[0]} ended with exit code {error.returncode}") from None
        except VolumeReadError:
            raise _DefaceError(f"{words[0]} wrote no scan to {{out}}") from None
        if not result.geometry.matches(volume.geometry):
            raise _DefaceError(f"{words[0]} wrote a scan on another grid")
    return volume.with_data(result.data)
