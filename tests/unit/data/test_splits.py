from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from medddpm.data.manifest import ScanRow
from medddpm.data.splits import assign_splits, hold_together, lopsided, parse_fractions
from medddpm.errors import ConfigError

SHARES = (0.8, 0.1, 0.1)


def rows(count: int) -> list[ScanRow]:
    """Subjects of two sites and two sexes, each with a T1w and every second one with a FLAIR."""
    made = []
    for n in range(count):
        facts = {"subject": f"s{n:03d}", "site": "AB"[n % 2], "sex": "FM"[n // 2 % 2]}
        made.append(ScanRow(f"{n}-t1", contrast="T1w", **facts))
        if n % 4 > 1:
            made.append(ScanRow(f"{n}-flair", contrast="FLAIR", **facts))
    return made


def split(table: list[ScanRow], seed: int = 0, pairs: object = (), **more: object) -> dict:
    return assign_splits(table, hold_together(table, pairs), SHARES, seed, **more)


def test_every_site_and_sex_is_shared_out() -> None:
    table = rows(200)
    chosen = split(table)
    people = {row.subject: row for row in table}
    for site in "AB":
        for sex in "FM":
            counts = Counter(
                chosen[s] for s, row in people.items() if (row.site, row.sex) == (site, sex)
            )
            assert counts == {"train": 40, "val": 5, "test": 5}


def test_the_same_seed_gives_the_same_whatever_the_order() -> None:
    table = rows(60)
    assert split(table) == split(table[::-1])
    assert split(table) != split(table, seed=1)


@pytest.mark.parametrize(
    ("count", "counts"),
    [(1, {"train": 1}), (2, {"train": 1, "val": 1}), (3, {"train": 1, "val": 1, "test": 1}),
     (5, {"train": 3, "val": 1, "test": 1}), (20, {"train": 16, "val": 2, "test": 2})],
)  # fmt: skip
def test_few_subjects_still_give_a_validation(count: int, counts: dict[str, int]) -> None:
    assert Counter(split(rows(count)).values()) == counts


def test_subjects_that_may_be_one_person_stay_together() -> None:
    table = rows(40)
    pairs = [(f"s{n:03d}", f"s{n + 1:03d}") for n in range(0, 38, 3)]
    chosen = split(table, pairs=pairs)
    assert all(chosen[a] == chosen[b] for a, b in pairs)
    chain = split(table, pairs=[("s000", "s001"), ("s002", "s001"), ("s003", "s002")])
    assert len({chain[f"s00{n}"] for n in range(4)}) == 1


def test_new_subjects_move_nobody() -> None:
    before = split(rows(40))
    after = split(rows(60), before=before)
    assert {s: after[s] for s in before} == before
    assert Counter(after.values()) == {"train": 48, "val": 6, "test": 6}


@pytest.mark.parametrize("text", ["0.8,0.2", "a,b,c", "0.5,0.5,0.5", "0,0.5,0.5", "1.2,-0.1,-0.1"])
def test_shares_that_make_no_sense(text: str) -> None:
    with pytest.raises(ConfigError, match="--split"):
        parse_fractions(text)


def test_shares() -> None:
    assert parse_fractions("0.7,0.2,0.1") == (0.7, 0.2, 0.1)


def test_splits_far_from_their_shares_are_said() -> None:
    """Subjects go as a whole: one with many scans can leave most of them in validation."""
    subjects = ["a", "b", "b", "b", "b"]
    few = [
        ScanRow(f"{n}", subject=subject, split="train" if subject == "a" else "val")  # type: ignore[arg-type]
        for n, subject in enumerate(subjects)
    ]
    train, val = lopsided(few, SHARES)
    assert val == "4 of 5 scans (1 subject) are in val, where 10% was asked for"
    assert train.startswith("1 of 5 scans")
    table = rows(40)
    chosen = split(table)
    good = [replace(row, split=chosen[row.subject]) for row in table]
    assert lopsided(good, SHARES) == []
    assert lopsided([], SHARES) == []
    pair = [ScanRow("0", subject="a", split="train"), ScanRow("1", subject="b", split="val")]
    assert lopsided(pair, SHARES) == []  # it cannot be otherwise
