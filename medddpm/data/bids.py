"""A raw BIDS data set as a source of scans (bids-specification 1.10)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medddpm.data.acquisition import contrast_of_sidecar, scanner_label, sex_code
from medddpm.data.ledger import LedgerRow
from medddpm.data.manifest import ScanRow
from medddpm.data.sources import Found, Source
from medddpm.errors import ConfigError
from medddpm.io.tables import read_table

CONTRASTS = ("T1w", "T2w", "T2starw", "FLAIR", "PDw", "PD", "inplaneT1", "inplaneT2")
_NIFTI = (".nii.gz", ".nii")
_DESCRIPTION = "dataset_description.json"


def bids_folders(folder: Path) -> list[Path]:
    """The data set that `folder` is, or those that lie in it, one a site; none if it is no BIDS."""
    if (folder / _DESCRIPTION).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{_DESCRIPTION}"))


def find_bids(folder: Path) -> Source:
    """The anatomical scans of one or several raw BIDS data sets; other images are left out.

    Raises:
        ConfigError: A data set is empty or a derivative, or its participants.tsv contradicts
            itself.
    """
    scans: list[Found] = []
    left_out: list[LedgerRow] = []
    notes: list[str] = []
    roots = bids_folders(folder)
    for root in roots:
        site = root.name if root != folder else ""
        licence = _licence(root)
        people = _participants(root, notes)
        images = list(_images(root))
        if not images:
            raise ConfigError(f"{root} is BIDS but holds no image in a folder sub-*; is it empty?")
        for path in images:
            found = _found(root, path, people, licence, site)
            if isinstance(found, Found):
                scans.append(found)
            else:
                left_out.append(found)
        unknown = {s.row.subject for s in scans if root in s.files[0].parents} - set(people)
        if people and unknown:
            notes.append(
                f"{len(unknown)} subjects of {root.name} are not in its participants.tsv: "
                "their sex, age and site are not known"
            )
    return Source("BIDS", tuple(scans), tuple(left_out), tuple(notes))


def _licence(root: Path) -> str:
    description = _json(root / _DESCRIPTION)
    if description is None:
        raise ConfigError(f"{root / _DESCRIPTION} is no JSON; mend it")
    if description.get("DatasetType", "raw") != "raw":
        raise ConfigError(f"{root} is a BIDS {description['DatasetType']} data set, not a raw one")
    return str(description.get("License") or "")


def _images(root: Path) -> Iterator[Path]:
    for subject in sorted(root.glob("sub-*")):
        yield from (p for p in sorted(subject.rglob("sub-*")) if p.name.endswith(_NIFTI))


def _found(
    root: Path, path: Path, people: dict[str, dict[str, str]], licence: str, site: str
) -> Found | LedgerRow:
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    *parts, suffix = stem.split("_")
    entities = dict(part.split("-", 1) for part in parts if "-" in part)
    subject = path.relative_to(root).parts[0]
    if "sub" in entities and f"sub-{entities['sub']}" != subject:
        reason = f"it lies in the folder of {subject}, and its name says sub-{entities['sub']}"
        return LedgerRow(stem, subject, "contradictory", reason)
    if suffix not in CONTRASTS:
        return LedgerRow(stem, subject, "other-suffix", f"{suffix} is no anatomical contrast")
    if entities.get("part", "mag") != "mag":
        return LedgerRow(stem, subject, "not-magnitude", f"part-{entities['part']}")
    sidecar = _sidecar(root, path, entities, suffix)
    person = people.get(subject, {})
    place = person.get("site") or site or str(sidecar.get("InstitutionName") or "")
    row = ScanRow(
        scan=stem,
        subject=subject,
        session=entities.get("ses", ""),
        series="_".join(f"{k}-{entities[k]}" for k in ("acq", "run", "echo") if k in entities),
        contrast=suffix,
        file=str(path.absolute()),
        licence=licence,
        sex=person.get("sex", ""),
        age=person.get("age", ""),
        site=place,
        scanner=scanner_label(
            sidecar.get("Manufacturer"),
            sidecar.get("ManufacturersModelName"),
            sidecar.get("MagneticFieldStrength"),
        ),
    )
    return Found(row, (path,), subject, told_contrast=contrast_of_sidecar(sidecar))


def _sidecar(root: Path, path: Path, entities: dict[str, str], suffix: str) -> dict[str, Any]:
    """All that sidecars say, the nearest last: the inheritance principle of BIDS."""
    merged: dict[str, Any] = {}
    folders = [root, *(p for p in reversed(path.parents) if root in p.parents)]
    for folder in folders:
        for file in sorted(folder.glob(f"*{suffix}.json"), key=lambda p: len(p.name)):
            *parts, last = file.stem.split("_")
            applies = all(entities.get(k) == v for k, _, v in (p.partition("-") for p in parts))
            if last == suffix and applies:
                merged |= _json(file) or {}
    return merged


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _participants(root: Path, notes: list[str]) -> dict[str, dict[str, str]]:
    """Sex, age and site of each participant; a note if there is no such table."""
    path = root / "participants.tsv"
    if not path.is_file():
        notes.append(f"{root.name} has no participants.tsv: sex, age and site are not known")
        return {}
    lines = read_table(path, ("participant_id",), errors="replace")
    rows = [{name: _known(cell) for name, cell in line.cells.items()} for line in lines]
    people: dict[str, dict[str, str]] = {}
    for row in rows:
        facts = {
            "sex": sex_code(row.get("sex") or row.get("gender")),
            "age": row.get("age", ""),
            "site": row.get("site") or row.get("site_id") or row.get("center") or "",
        }
        subject = "sub-" + row["participant_id"].removeprefix("sub-")
        if people.setdefault(subject, facts) != facts:
            raise ConfigError(
                f"{path} lists {subject} twice with different sex, age or site; keep the right row"
            )
    return people


def _known(value: Any) -> str:
    text = str(value or "").strip()
    return "" if re.fullmatch(r"n/?a|nan", text, re.IGNORECASE) else text
