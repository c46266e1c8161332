"""Tables and YAML as people never should write them: an error of ours, or what was meant."""

from __future__ import annotations

import csv
import io
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from medddpm.cohort.sources import find_jobs
from medddpm.config import load_config
from medddpm.data.consent import read_consent
from medddpm.data.manifest import read_manifest
from medddpm.data.scan_list import scan_files
from medddpm.data.scan_table import find_listed
from medddpm.errors import ConfigError, MedddpmError
from medddpm.io.tables import read_table, write_table
from medddpm.node.options import load_options
from medddpm.share import share_dir

FEW, MANY = range(25), range(25, 500)
SEEDS = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]
JUNK = ["\0", '"', "'", ";", ",", "\t", "\n", "\r", "\ufeff", "\ud800", "=", "-", "\x85", "\u2028"]
CELLS = [
    "a.nii",
    "sub-1",
    "=1+1",
    "-x",
    "",
    "\u00fc \u4e2d",
    'a "b"',
    "x,y;z",
    "-0.5",
    "two\nlines",
    "@",
]


@contextmanager
def no_hang(what: object) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"longer than a minute: {what!r}")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut, doubled, moved or put in."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice([1, 1, 3, 20, 400]))
        kind = rng.randrange(6)
        if kind == 0:
            data[at:to] = b""
        elif kind == 1:
            data[at:at] = data[at:to]
        elif kind == 2:
            data[at:to] = bytes(rng.randrange(256) for _ in range(to - at))
        elif kind == 3:
            data[at:at] = rng.choice(JUNK).encode("utf-8", "surrogatepass")
        elif kind == 4:
            data[at:at] = rng.choice([b"[", b"{", b"- ", b"&a ", b"*a ", b"9", b"x: "]) * 300
        else:
            data = data[to:] + data[:at]
    return bytes(data)


def random_table(rng: random.Random, columns: list[str]) -> tuple[bytes, list[dict[str, str]]]:
    """A good table in some dialect, and what it says."""
    rows = [[rng.choice(CELLS) for _ in columns] for _ in range(rng.randrange(6))]
    rows = [row for row in rows if any(row)]
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        delimiter=rng.choice(",;\t"),
        lineterminator=rng.choice(["\n", "\r\n"]),
        quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    )
    head = [name.upper() if rng.random() < 0.2 else f" {name} " for name in columns]
    writer.writerows([head, *rows])
    content = text.getvalue().encode(rng.choice(["utf-8", "utf-8-sig", "utf-16"]))
    return content, [dict(zip(columns, row, strict=True)) for row in rows]


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_table_in_any_dialect_says_the_same(seeds: range, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for seed in seeds:
        rng = random.Random(seed)
        content, wanted = random_table(rng, ["file", "scan", "subject"])
        path.write_bytes(content)
        assert [line.cells for line in read_table(path, ("file", "scan"))] == wanted, seed


@pytest.mark.parametrize("seeds", SEEDS)
def test_what_is_written_is_read(seeds: range, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for seed in seeds:
        rng = random.Random(seed)
        pool = [*CELLS, "'", "'=", "'-1", "+", "\uff1dx", "=\n=", "a'b"]
        rows = [[rng.choice(pool), rng.choice(pool), "end"] for _ in range(5)]
        write_table(path, ("file", "scan", "x"), rows)
        back = [list(line.cells.values()) for line in read_table(path, ("file",))]
        assert back == [[cell.strip() for cell in row] for row in rows], seed


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_damaged_table(seeds: range, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    readers: list[Callable[[], object]] = [
        lambda: find_jobs(path, tmp_path / "out"),
        lambda: read_consent(path),
        lambda: read_manifest(path),
        lambda: find_listed(tmp_path, path),
        lambda: scan_files(path),
    ]
    (tmp_path / "a.nii").write_bytes(b"")
    columns = ["file", "scan", "subject", "state", "scope", "date", "split", "reference"]
    for seed in seeds:
        rng = random.Random(seed)
        content, _ = random_table(rng, columns)
        path.write_bytes(mutated(content, rng))
        for reader in readers:
            with no_hang(seed):
                said = _said(reader)
            assert said != "", seed


@pytest.mark.parametrize("seeds", SEEDS)
def test_damaged_yaml(seeds: range, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    shipped = sorted((share_dir() / "configs").glob("*.yaml"))
    node = b"rules:\n  modality: [MR]\n  description: t1\nquiet_s: 30\n"
    for seed in seeds:
        rng = random.Random(seed)
        path.write_bytes(mutated(rng.choice(shipped).read_bytes(), rng))
        with no_hang(seed):
            _said(lambda: load_config(path))
        path.write_bytes(mutated(node, rng))
        with no_hang(seed):
            _said(lambda: load_options(path))
        junk = mutated(b"restore.steps=8", rng).decode("utf-8", "surrogateescape")
        with no_hang(junk):
            _said(partial(load_config, None, [junk]))


def _said(reader: Callable[[], object]) -> str | None:
    """What an error of ours says, shortly; None if there is none. Any other error is raised."""
    try:
        reader()
    except MedddpmError as error:
        return str(error)[:20_000]
    return None


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "more than 100000 values"),
        ("restore: &a [*a]\n", "more than 100000 values"),
        ("[" * 100_000, "nested too deep|not readable"),
        ("restore:\n  steps: 4\nrestore:\n  mode: mean\n", "'restore' stands twice"),
        ("restore: {steps: 2024-13-45}\n", "a value that is none"),
        ("restore: !!python/object:os.system {}\n", "not readable as YAML"),
        ("restore: {? [a] : b}\n", "not readable as YAML"),
        ("\ufeffrestore: {steps: no}\n", "restore.steps"),
        ("1: 2\n", "1"),
        ("- a\n", "must hold a mapping"),
    ],
)
def test_yaml_that_is_a_trap(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with no_hang(text[:40]), pytest.raises(ConfigError, match=words):
        load_config(path)
