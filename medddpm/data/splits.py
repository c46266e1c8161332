"""Splits by subject, stratified by site, contrast and sex, the same at every run."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from medddpm.data.manifest import SPLITS, ScanRow, Split
from medddpm.errors import ConfigError


def parse_fractions(text: str) -> tuple[float, float, float]:
    """The shares of train, val and test in "0.8,0.1,0.1".

    Raises:
        ConfigError: They are not three numbers of sum 1, with something for training.
    """
    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--split is {text!r}; give three numbers such as 0.8,0.1,0.1") from None
    if min(train, val, test) < 0 or train == 0 or abs(train + val + test - 1) > 1e-6:
        raise ConfigError(f"--split is {text!r}; shares are positive and their sum is 1")
    return train, val, test


def hold_together(rows: Iterable[ScanRow], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The group of each subject: subjects that may be one person share one.

    Args:
        rows: All scans.
        pairs: Subjects that belong together.
    """
    group = {row.subject: row.subject for row in rows}

    def root(name: str) -> str:
        while group.setdefault(name, name) != name:
            name = group[name]
        return name

    for a, b in pairs:
        first, second = sorted((root(a), root(b)))
        group[second] = first
    return {name: root(name) for name in list(group)}


def assign_splits(
    rows: Sequence[ScanRow],
    groups: Mapping[str, str],
    fractions: tuple[float, float, float],
    seed: int,
    before: Mapping[str, Split] | None = None,
) -> dict[str, Split]:
    """The split of each subject.

    Groups are sorted by site, contrasts and sex, and in each such stratum by a hash of their name
    and the seed. One after the other goes to the split that lacks most of its share so far, so
    that every stratum is shared out, and small ones together with their neighbours. With two
    groups one is for validation, with three one is for testing, whatever the shares, unless a
    share is 0.

    Args:
        rows: The scans that are in.
        groups: From `hold_together`.
        fractions: Shares of train, val and test.
        seed: Another one gives other splits.
        before: Splits of an earlier run, which stay: who was trained on must not be held out.

    Returns:
        The split of each subject of `rows`.
    """
    members: dict[str, list[ScanRow]] = defaultdict(list)
    for row in rows:
        members[groups[row.subject]].append(row)
    order = sorted(members, key=lambda g: (_stratum(members[g]), _hash(g, seed)))
    goals = _goals(len(order), fractions)
    counts = dict.fromkeys(SPLITS, 0)
    chosen: dict[str, Split] = {}
    for group in order:
        earlier = {(before or {}).get(row.subject, "") for row in members[group]}
        kept = next((split for split in SPLITS if split in earlier), None)
        if kept:
            chosen[group] = kept
            counts[kept] += 1
    for number, group in enumerate([g for g in order if g not in chosen], start=len(chosen) + 1):
        lacking = {s: goals[s] * number / len(order) - counts[s] for s in SPLITS if goals[s]}
        best = max(lacking, key=lambda s: lacking[s])
        chosen[group] = best
        counts[best] += 1
    return {row.subject: chosen[groups[row.subject]] for row in rows}


_OFF = 0.15
_OFF_BY_SCANS = 2


def lopsided(rows: Sequence[ScanRow], fractions: tuple[float, float, float]) -> list[str]:
    """Sentences on splits that have far more or fewer scans than their share; none is good.

    Subjects are split, and their scans go with them: a subject with many scans, or a data set with
    few subjects, can leave most scans in validation.

    Args:
        rows: The scans, with their splits; those without one are left out.
        fractions: Shares that were asked for.
    """
    used = [row for row in rows if row.split]
    found = []
    for split, share in zip(SPLITS, fractions, strict=True):
        count = sum(row.split == split for row in used)
        off = abs(count - share * len(used))
        if off >= _OFF_BY_SCANS and off > _OFF * len(used):
            subjects = len({row.subject for row in used if row.split == split})
            found.append(
                f"{count} of {len(used)} scans ({subjects} subject{'' if subjects == 1 else 's'}) "
                f"are in {split}, where {share:.0%} was asked for"
            )
    return found


def _goals(total: int, fractions: tuple[float, float, float]) -> dict[Split, float]:
    """How many groups each split shall have: at least one for val, then test, if there are any."""
    goals = {split: total * share for split, share in zip(SPLITS, fractions, strict=True)}
    for split, needed in (("val", 2), ("test", 3)):
        if 0 < goals[split] < 1 and total >= needed:  # type: ignore[index]
            goals["train"] -= 1 - goals[split]  # type: ignore[index]
            goals[split] = 1.0  # type: ignore[index]
    return goals


def _stratum(rows: list[ScanRow]) -> tuple[str, str, str]:
    return tuple(  # type: ignore[return-value]
        "+".join(sorted({getattr(row, name) for row in rows}))
        for name in ("site", "contrast", "sex")
    )


def _hash(group: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode(errors="surrogateescape")).hexdigest()
