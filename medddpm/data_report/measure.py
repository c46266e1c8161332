"""Who is in a data set: groups in each split, how alike the splits are, gaps, what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medddpm.data.manifest import COLUMNS, SPLITS, ScanRow
from medddpm.data_report.groups import NOT_READABLE, NOT_SAID, VARIABLES, Variable

MIN_SUBJECTS = 5
"""A group with fewer in the training set is named as small."""
MIN_SHARE = 0.05
"""So is one with less than this share of the training set's subjects."""
NOTABLE_DISTANCE = 0.1
"""A distance between splits below this is not worth a remark, whatever chance would give."""
NOTABLE_GAP = 0.2
"""A share of scans without sex, age, site, scanner, contrast or spacing that is worth a remark."""

_LEFT_OUT = ""
_PERMUTATIONS = 2000
_CONFIDENCE = 0.95
_TOLD_OF_SCANS = ("sex", "age", "site", "scanner", "contrast", "spacing")
_MAX_NAMES = 5

Counts = dict[str, int]
"""By split; "" is what was left out."""


@dataclass(frozen=True)
class Group:
    """One group of a variable.

    Attributes:
        name: Such as "F".
        subjects: In each split; a subject with scans of several groups counts in each.
        scans: In each split.
        small: Why it counts as a small group, in words; empty where it does not.
    """

    name: str
    subjects: Counts
    scans: Counts
    small: tuple[str, ...]


@dataclass(frozen=True)
class Distance:
    """How differently two splits are made up.

    Attributes:
        first: A split.
        second: Another one.
        value: Total variation distance: the share of the one that would have to change its group
            to be made up as the other; 0 is alike, 1 has nothing in common.
        chance: What random splits of the same subjects stay below, with 95 % confidence in all
            comparisons together.
    """

    first: str
    second: str
    value: float
    chance: float

    @property
    def notable(self) -> bool:
        """More than chance, and enough to matter."""
        return self.value > max(self.chance, NOTABLE_DISTANCE)


@dataclass(frozen=True)
class Breakdown:
    """A variable with its groups, and its distances between the training set and the others."""

    variable: Variable
    groups: list[Group]
    distances: list[Distance]


@dataclass(frozen=True)
class DataReport:
    """All numbers of the page about the data.

    Attributes:
        places: The splits that hold scans, and "" if scans were left out.
        subjects: In each place, and in all of them under "all".
        scans: The same.
        breakdowns: One a variable.
        missing: Scans without a value, by column and place.
        flags: Scans by flag and place.
        consent: Scans by consent state and place.
        licences: Scans by licence and place.
        left_out: Of `ledger.csv`: number of scans and an example of the reason, by code.
        problems: What is wrong, in words: leaks between splits, use without consent.
        remarks: What a person should know, in words.
    """

    places: list[str]
    subjects: Counts
    scans: Counts
    breakdowns: list[Breakdown]
    missing: dict[str, Counts]
    flags: dict[str, Counts]
    consent: dict[str, Counts]
    licences: dict[str, Counts]
    left_out: dict[str, tuple[int, str]]
    problems: list[str]
    remarks: list[str]


def describe_data(
    rows: Sequence[ScanRow], ledger: Sequence[Mapping[str, str]] = (), *, seed: int = 0
) -> DataReport:
    """The numbers of a manifest and of the ledger beside it.

    Args:
        rows: One a scan; at least one.
        ledger: Rows with `code` and `reason`.
        seed: Of the random splits that distances are compared with.
    """
    held = {row.split for row in rows}
    places: list[str] = [place for place in (*SPLITS, _LEFT_OUT) if place in held]
    splits = [place for place in places if place]
    breakdowns = [
        Breakdown(variable, _groups(rows, variable, splits), distances)
        for variable, distances in zip(VARIABLES, _distances(rows, splits, seed), strict=True)
    ]
    missing = {
        name: _by_place(row for row in rows if not getattr(row, name).strip())
        for name in COLUMNS
        if name not in ("scan", "subject", "split", "flags")
    }
    scans = _by_place(rows) | {"all": len(rows)}
    return DataReport(
        places=places,
        subjects=_subjects_by_place(rows) | {"all": len({row.subject for row in rows})},
        scans=scans,
        breakdowns=breakdowns,
        missing=missing,
        flags=_tally(rows, lambda row: [f.strip() for f in row.flags.split(";") if f.strip()]),
        consent=_tally(rows, lambda row: [row.consent or NOT_SAID]),
        licences=_tally(rows, lambda row: [row.licence or NOT_SAID]),
        left_out=_by_code(ledger),
        problems=_problems(rows),
        remarks=_balance_remarks(splits, breakdowns) + _gap_remarks(rows, splits, scans),
    )


def _groups(rows: Sequence[ScanRow], variable: Variable, splits: Sequence[str]) -> list[Group]:
    members: dict[str, list[ScanRow]] = {}
    for row in rows:
        members.setdefault(variable.group(row), []).append(row)
    train = len({row.subject for row in rows if row.split == "train"})
    groups = []
    for name, mine in members.items():
        subjects = _subjects_by_place(mine)
        known = name not in (NOT_SAID, NOT_READABLE)
        small = _why_small(subjects, splits, train) if known else ()
        groups.append(Group(name, subjects, _by_place(mine), small))
    return sorted(groups, key=lambda g: variable.sort_key(g.name, sum(g.subjects.values())))


def _why_small(subjects: Counts, splits: Sequence[str], train: int) -> tuple[str, ...]:
    absent = [split for split in splits if not subjects.get(split)]
    reasons = [f"absent from {', '.join(absent)}"] if absent else []
    here = subjects.get("train", 0)
    if here and here < MIN_SUBJECTS:
        reasons.append(f"{here} subject{'s' * (here > 1)} in train")
    if here and here < MIN_SHARE * train:
        reasons.append(f"{100 * here / train:.1f} % of train")
    return tuple(reasons)


def _distances(rows: Sequence[ScanRow], splits: Sequence[str], seed: int) -> list[list[Distance]]:
    """For each variable, between the first split (train, where there is one) and each other."""
    if len(splits) < 2:
        return [[] for _ in VARIABLES]
    used = [row for row in rows if row.split]
    home = {row.subject: row.split for row in used}
    where = np.array([splits.index(split) for split in home.values()])
    shares = [_group_shares(used, list(home), variable) for variable in VARIABLES]
    values = _variation(where, shares, len(splits))
    rng = np.random.default_rng(seed)
    random = np.stack(
        [_variation(rng.permutation(where), shares, len(splits)) for _ in range(_PERMUTATIONS)]
    )
    level = 1 - (1 - _CONFIDENCE) / values.size
    chance = np.quantile(random, level, axis=0)
    return [
        [
            Distance(splits[0], split, float(value), float(limit))
            for split, value, limit in zip(splits[1:], values[v], chance[v], strict=True)
        ]
        for v in range(len(VARIABLES))
    ]


def _group_shares(
    rows: Sequence[ScanRow], subjects: Sequence[str], variable: Variable
) -> NDArray[np.float64]:
    """(subjects, groups): each subject weighs 1, spread evenly over its scans."""
    columns = {g: n for n, g in enumerate(dict.fromkeys(variable.group(row) for row in rows))}
    lines = {subject: n for n, subject in enumerate(subjects)}
    counts = np.zeros((len(lines), len(columns)))
    for row in rows:
        counts[lines[row.subject], columns[variable.group(row)]] += 1
    counts /= counts.sum(axis=1, keepdims=True)
    return counts


def _variation(
    where: NDArray[np.int64], shares: Sequence[NDArray[np.float64]], num_splits: int
) -> NDArray[np.float64]:
    """(variables, splits - 1): total variation distance of each split from the first."""
    member = np.eye(num_splits)[where].T
    member /= np.maximum(member.sum(axis=1, keepdims=True), 1)
    means = [member @ share for share in shares]
    return np.stack([0.5 * np.abs(mean[1:] - mean[0]).sum(axis=1) for mean in means])


def _problems(rows: Sequence[ScanRow]) -> list[str]:
    used = [row for row in rows if row.split]
    leaks = {
        "subject": _in_several_splits((row.subject, row.split, row.subject) for row in used),
        "image": _in_several_splits((row.checksum, row.split, row.scan) for row in used),
    }
    problems = [
        f"{len(names)} {what}{'s' * (len(names) > 1)} in more than one split: {name_some(names)}."
        for what, names in leaks.items()
        if names
    ]
    for state in ("no", "withdrawn"):
        count = sum(row.consent == state for row in used)
        if count:
            problems.append(f"Scans in a split with consent {state!r}: {count}.")
    return problems


def _in_several_splits(keyed: Iterable[tuple[str, str, str]]) -> list[str]:
    """Names of the first of those that share a key but not a split.

    Args:
        keyed: Key, split and name of each; an empty key is shared with none.
    """
    found: dict[str, tuple[str, str]] = {}
    leaks: dict[str, str] = {}
    for key, split, name in keyed:
        first_split, first_name = found.setdefault(key, (split, name))
        if key and split != first_split:
            leaks[key] = first_name
    return list(leaks.values())


def _balance_remarks(splits: Sequence[str], breakdowns: Sequence[Breakdown]) -> list[str]:
    remarks = []
    if len(splits) < 2:
        held = f"Only {splits[0]} holds scans" if splits else "No scan is in a split"
        remarks.append(f"{held}: splits cannot be compared.")
    for breakdown in breakdowns:
        remarks += [
            f"{breakdown.variable.name}: {d.first} and {d.second} are made up differently "
            f"(distance {d.value:.2f}; chance stays below {d.chance:.2f})."
            for d in breakdown.distances
            if d.notable
        ]
    small = sum(1 for breakdown in breakdowns for group in breakdown.groups if group.small)
    if small:
        remarks.append(f"Small groups: {small}, see their table.")
    return remarks


def _gap_remarks(rows: Sequence[ScanRow], splits: Sequence[str], scans: Counts) -> list[str]:
    used = [row for row in rows if row.split]
    remarks = []
    for name in _TOLD_OF_SCANS:
        missing = _by_place(row for row in used if not getattr(row, name).strip())
        shares = {split: missing.get(split, 0) / scans[split] for split in splits}
        gaps = [f"{100 * s:.0f} % in {split}" for split, s in shares.items() if s > NOTABLE_GAP]
        if gaps:
            remarks.append(f"Scans without {name}: {', '.join(gaps)}.")
    unsaid = sum(1 for row in used if not row.consent)
    if unsaid and any(row.consent for row in rows):
        remarks.append(f"Scans in a split without a consent state: {unsaid}.")
    sexes: dict[str, set[str]] = {}
    for row in rows:
        sexes.setdefault(row.subject, set()).add(row.sex)
    torn = [subject for subject, found in sexes.items() if len(found - {""}) > 1]
    if torn:
        remarks.append(f"Scans of one subject disagree on its sex: {name_some(torn)}.")
    return remarks


def _by_code(ledger: Sequence[Mapping[str, str]]) -> dict[str, tuple[int, str]]:
    reasons: dict[str, Counter[str]] = {}
    for row in ledger:
        reasons.setdefault(row["code"] or NOT_SAID, Counter())[row["reason"]] += 1
    found = {
        code: (counter.total(), min(counter, key=lambda reason: (-counter[reason], reason)))
        for code, counter in reasons.items()
    }
    return dict(sorted(found.items(), key=lambda item: (-item[1][0], item[0])))


def _tally(
    rows: Iterable[ScanRow], labels: Callable[[ScanRow], Sequence[str]]
) -> dict[str, Counts]:
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for label in labels(row):
            counts.setdefault(label, Counter())[row.split] += 1
    order = sorted(counts, key=lambda label: (-counts[label].total(), label))
    return {label: dict(counts[label]) for label in order}


def _by_place(rows: Iterable[ScanRow]) -> Counts:
    return dict(Counter(row.split for row in rows))


def _subjects_by_place(rows: Iterable[ScanRow]) -> Counts:
    pairs = {(row.subject, row.split) for row in rows}
    return dict(Counter(split for _, split in pairs))


def name_some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
