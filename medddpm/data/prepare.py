"""From a hospital's folder to training data, and a subject out of it again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medddpm.data.bids import bids_folders, find_bids
from medddpm.data.cache import CACHE_VERSION, purge, read_entry, write_index
from medddpm.data.consent import Consent, consent_of, read_consent, synthetic_counts, why_not
from medddpm.data.contact_sheet import write_sheets
from medddpm.data.deidentify import action_for, check_headers, write_deidentified
from medddpm.data.dicom_tree import find_dicom
from medddpm.data.duplicates import find_twins
from medddpm.data.ledger import LedgerRow, read_ledger, write_ledger
from medddpm.data.manifest import ScanRow, Split, read_manifest, write_manifest
from medddpm.data.private import (
    Owner,
    Pseudonyms,
    only_one,
    private_folder,
    pseudonyms_of,
    write_mapping,
    write_private,
)
from medddpm.data.scan import Ready, prepare_scan
from medddpm.data.scan_table import find_listed
from medddpm.data.sources import Found, Source, finish_source
from medddpm.data.splits import assign_splits, hold_together, lopsided
from medddpm.data.tables import write_text
from medddpm.errors import ConfigError, OutputError
from medddpm.io import Trust, find_images
from medddpm.io.files import first_twin
from medddpm.io.provenance import versions
from medddpm.io.tables import write_table

OnProgress = Callable[[str, int, int], None]
OnNote = Callable[[str], None]


@dataclass(frozen=True)
class PrepareOptions:
    """How a source is prepared.

    Attributes:
        table: CSV that says whose the NIfTI files of a folder are.
        consent: CSV of who may be trained on.
        key: File of the pseudonyms' key; made in OUT/private if not given.
        deidentify: "check" for a report on DICOM headers; a folder for copies as well.
        deface: Command with {in} and {out} for scans that may show a face.
        split: Shares of train, val and test.
        seed: Of the splits.
        trust: Which to take where a NIfTI file has an sform and a qform that disagree.
    """

    table: Path | None = None
    consent: Path | None = None
    key: Path | None = None
    deidentify: str = ""
    deface: str = ""
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    trust: Trust | None = None


def prepare(
    source: str | Path,
    out: str | Path,
    options: PrepareOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
    on_note: OnNote | None = None,
) -> dict[str, Any]:
    """Prepare a source for training; returns what `prepare.json` says.

    `out` then holds manifest.csv, ledger.csv, prepare.json, cache/, quality/ and private/. A run
    that was stopped goes on where it was; `cache/index.json` appears last.

    Args:
        source: A BIDS data set, a tree of DICOM, or a folder of NIfTI files with a table.
        out: Made if missing.
        options: The defaults if not given.
        on_progress: Called with a task, how much is done, and of how much.
        on_note: Called with each thing that a person should know.

    Raises:
        ConfigError: The source, a table, or what an earlier run left in `out` cannot be used.
        OutputError: The disk is full or read-only, or another process is at work in `out`.
    """
    source, out = Path(source), Path(out)
    options = options or PrepareOptions()
    if not source.is_dir():
        raise ConfigError(f"the source {source} does not exist or is no folder")
    if out.absolute().is_relative_to(source.absolute()):
        raise ConfigError(f"OUT lies inside the source {source}, which is never written to")
    consent = read_consent(options.consent) if options.consent else None
    _check_tools(options)
    is_new = not out.exists()
    try:
        with only_one(out):
            return _Preparation(source, out, options, on_progress, on_note).run(consent)
    except ConfigError:
        if is_new and not (out / "cache").exists():
            shutil.rmtree(out, ignore_errors=True)  # nothing but a fresh key is in it
        raise


def _check_tools(options: PrepareOptions) -> None:
    command = options.deface
    if command and not ("{in}" in command and "{out}" in command):
        raise ConfigError('--deface takes a command with {in} and {out}, such as "tool {in} {out}"')
    if options.deidentify:
        action_for(0)  # raises if the table is not installed


class _Preparation:
    """One call of `prepare`: what it was told, and the steps in their order."""

    def __init__(
        self,
        source: Path,
        out: Path,
        options: PrepareOptions,
        on_progress: OnProgress | None,
        on_note: OnNote | None,
    ) -> None:
        self.source, self.out, self.options = source, out, options
        self.progress = on_progress or (lambda task, done, total: None)
        self.note = on_note or (lambda text: None)
        self.cache = out / "cache"
        self.ledger: list[LedgerRow] = []
        withdrawn = [r for r in read_ledger(out / "ledger.csv") if r.code == "withdrawn"]
        self.withdrawn = tuple(withdrawn)
        self.gone_scans = {r.scan for r in withdrawn}
        self.gone_subjects = {r.subject for r in withdrawn if not r.twin}

    def run(self, consent: dict[str, Consent] | None) -> dict[str, Any]:
        pseudonyms = pseudonyms_of(self.out, self.options.key)
        source = self._find(pseudonyms)
        self._open()
        self.note(f"{self.source} is {source.kind}: {len(source.scans)} scans or series")
        for note in source.notes:
            self.note(note)
        self.ledger += source.left_out
        allowed = self._gated(source, consent, pseudonyms)
        ready = self._packed(allowed)
        single, twins = self._without_twins(ready)
        final = self._split(single, twins)
        who = [
            Owner(i.row.scan, i.row.subject, i.found.original, str(i.found.files[0])) for i in final
        ]
        write_mapping(private_folder(self.out) / "mapping.csv", who)
        headers = self._deidentify(final, pseudonyms)
        return self._finish(source, final, consent, headers)

    def _open(self) -> None:
        """Make the folders of OUT, or go on in what an earlier run left there."""
        place = private_folder(self.out) / "source"
        here = str(self.source.resolve())
        if place.is_file() and place.read_text(encoding="utf-8") != here:
            raise ConfigError(
                f"{self.out} was prepared from another source; take another OUT, or delete it first"
            )
        write_private(place, here)
        try:
            self.cache.mkdir(exist_ok=True)
            (self.out / "quality").mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write into {self.out}: {error.strerror}") from None
        read_entry(self.cache / "index.json")  # refuses another version
        (self.cache / "index.json").unlink(missing_ok=True)

    def _find(self, pseudonyms: Pseudonyms) -> Source:
        def on_file(count: int) -> None:
            if count % 1000 == 0:
                self.note(f"{count} DICOM images found so far")

        if self.options.table:
            source = find_listed(self.source, self.options.table)
        elif bids_folders(self.source):
            source = find_bids(self.source)
        else:
            source = find_dicom(self.source, pseudonyms, on_file)
            images = find_images(self.source)
            if images:
                left = f"{len(images)} NIfTI files are left out; --table says whose they are"
                source = replace(source, notes=(*source.notes, left))
        if self.options.deidentify and source.kind != "DICOM":
            raise ConfigError(f"--deidentify is for DICOM; {self.source} is {source.kind}")
        found = finish_source(source)
        _refuse_twins((item.row.scan for item in found.scans), self.out)
        return found

    def _gated(
        self, source: Source, consent: dict[str, Consent] | None, pseudonyms: Pseudonyms
    ) -> list[Found]:
        """Scans of subjects that were not withdrawn and, if a table was given, consented."""
        self.ledger += self.withdrawn
        allowed = []
        for found in source.scans:
            row = found.row
            if row.subject in self.gone_subjects or row.scan in self.gone_scans:
                continue
            if consent is None:
                allowed.append(found)
                continue
            own = consent_of(found, consent, pseudonyms)
            reason = why_not(own)
            if reason:
                self.ledger.append(LedgerRow(row.scan, row.subject, "no-consent", reason))
            else:
                synthetic = "yes" if own and own.covers_synthetic else "no"
                row = replace(row, consent="yes", synthetic=synthetic)
                allowed.append(replace(found, row=row))
        return allowed

    def _packed(self, allowed: Sequence[Found]) -> list[Ready]:
        ready: list[Ready] = []
        for number, found in enumerate(allowed, start=1):
            scans, left_out = prepare_scan(
                found, self.cache, self.options.deface, self.options.trust
            )
            ready += [item for item in scans if item.row.scan not in self.gone_scans]
            self.ledger += left_out
            self.progress("packing", number, len(allowed))
        _refuse_twins((item.row.scan for item in ready), self.out)
        return ready

    def _without_twins(self, ready: Sequence[Ready]) -> tuple[list[Ready], list[tuple[str, str]]]:
        """Scans without those that stand under a second subject, and pairs of such subjects."""
        by_name = {item.row.scan: item for item in ready}
        out: set[str] = set()
        marked: set[str] = set()
        subjects = []
        for first, second in find_twins({n: item.signature for n, item in by_name.items()}):
            a, b = by_name[first].row, by_name[second].row
            marked |= {first, second}
            if a.subject != b.subject:
                subjects.append((a.subject, b.subject))
                if not {first, second} & out:
                    out.add(second)
                    reason = "the same pixels under another subject"
                    self.ledger.append(LedgerRow(second, b.subject, "duplicate", reason, first))
        return [
            _flagged(item, "duplicate") if item.row.scan in marked else item
            for item in ready
            if item.row.scan not in out
        ], subjects

    def _split(self, ready: list[Ready], twins: list[tuple[str, str]]) -> list[Ready]:
        rows = [item.row for item in ready]
        kin: dict[str, str] = {}
        pairs = list(twins)
        for item in ready:
            if item.found.kin:
                pairs.append((kin.setdefault(item.found.kin, item.row.subject), item.row.subject))
        earlier = self._earlier_rows()
        splits = assign_splits(
            rows,
            hold_together(rows, pairs),
            self.options.split,
            self.options.seed,
            before={row.subject: row.split for row in earlier if row.split},
        )
        emptied = {row.scan for row in earlier if not row.split}  # by a person
        chosen: list[Split] = ["" if r.scan in emptied else splits[r.subject] for r in rows]
        return [
            replace(item, row=replace(item.row, split=split))
            for item, split in zip(ready, chosen, strict=True)
        ]

    def _earlier_rows(self) -> list[ScanRow]:
        """The manifest of the earlier run, if its shares and its seed were the same."""
        try:
            before = json.loads((self.out / "prepare.json").read_text(encoding="utf-8"))
            settings = before["settings"]
        except (OSError, ValueError, KeyError):
            return []
        now = [list(self.options.split), self.options.seed]
        if [settings.get("split"), settings.get("seed")] != now:
            return []
        return read_manifest(self.out / "manifest.csv")

    def _deidentify(self, final: Sequence[Ready], pseudonyms: Pseudonyms) -> dict[str, int] | None:
        """Report on the DICOM headers, and write copies if a folder was given."""
        if not self.options.deidentify:
            return None
        is_check = self.options.deidentify == "check"
        target = None if is_check else Path(self.options.deidentify)
        unique = {item.found.row.scan: item.found for item in final}
        lines: list[tuple[object, ...]] = []
        written = 0
        for number, (name, found) in enumerate(unique.items(), start=1):
            counts = check_headers(found.files)
            lines += [(name, *what, counts[what]) for what in sorted(counts)]
            burned = "burned-in" in found.row.flags
            folder = target / found.row.subject / found.row.series if target else None
            if folder and not burned:
                if not folder.is_dir():
                    write_deidentified(found.files, folder, pseudonyms)
                written += 1
            self.progress("de-identifying", number, len(unique))
        header = ("scan", "attribute", "action", "files")
        write_table(self.out / "quality" / "deidentify.csv", header, lines)
        identifying = len({line[0] for line in lines})
        return {"series": len(unique), "identifying": identifying, "copies": written}

    def _finish(
        self,
        source: Source,
        final: list[Ready],
        consent: dict[str, Consent] | None,
        headers: dict[str, int] | None,
    ) -> dict[str, Any]:
        """Write the tables, then what a reader of the folder waits for: the index."""
        quality = self.out / "quality"
        lines = [
            (i.row.scan, m.flag, _short(m.value), _short(m.limit), m.reason)
            for i in final
            for m in i.marks
        ]
        header = ("scan", "flag", "value", "limit", "reason")
        write_table(quality / "flags.csv", header, lines)
        write_sheets(
            quality,
            [(i.row, i.case) for i in final],
            self.cache,
            lambda done, total: self.progress("contact sheets", done, total),
        )
        write_manifest(self.out / "manifest.csv", [i.row for i in final])
        for text in lopsided([i.row for i in final], self.options.split):
            self.note(
                f"warning: {text}: subjects are never divided between splits; give more subjects, "
                "another --seed or other shares (--split)"
            )
        write_ledger(self.out / "ledger.csv", self.ledger)
        summary = self._summary(source, final, consent, headers)
        write_text(self.out / "prepare.json", json.dumps(summary, indent=2) + "\n")
        purge(self.cache, {i.found.row.scan for i in final}, [i.case for i in final])
        write_index(self.cache, [i.case for i in final], manifest="../manifest.csv")
        return summary

    def _summary(
        self,
        source: Source,
        final: list[Ready],
        consent: dict[str, Consent] | None,
        headers: dict[str, int] | None,
    ) -> dict[str, Any]:
        given = "asked of every subject" if consent is not None else "no table was given"
        return {
            "source": source.kind,
            **counts_of([item.row for item in final], self.ledger),
            "consent": given,
            "deidentified": headers,
            "notes": list(source.notes),
            "settings": {
                "split": list(self.options.split),
                "seed": self.options.seed,
                "deface": bool(self.options.deface),
                "trust": self.options.trust,
                "cache_version": CACHE_VERSION,
            },
            "versions": versions(),
        }


def _refuse_twins(names: Iterable[str], out: Path) -> None:
    twin = first_twin(names, out)
    if twin is not None:
        raise ConfigError(f"two scans would both be called {twin} in {out}; rename one of them")


def counts_of(rows: Sequence[ScanRow], ledger: Iterable[LedgerRow]) -> dict[str, Any]:
    """What `prepare.json` counts: scans, subjects, splits, contrasts, flags, what was left out."""
    flags = [flag for row in rows for flag in row.flags.split(";") if flag]
    return {
        "scans": len(rows),
        "subjects": len({row.subject for row in rows}),
        "splits": _counts(row.split for row in rows),
        "contrasts": _counts(row.contrast or "unknown" for row in rows),
        "synthetic": synthetic_counts(rows),
        "left_out": _counts(row.code for row in set(ledger)),
        "flags": _counts(flags),
    }


def _flagged(item: Ready, flag: str) -> Ready:
    flags = ";".join([*filter(None, item.row.flags.split(";")), flag])
    return replace(item, row=replace(item.row, flags=flags))


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
