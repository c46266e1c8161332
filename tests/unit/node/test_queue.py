"""The folders and records themselves."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from medddpm.node.queue import Queue, Record, images_of


def test_an_object_is_kept_once_by_its_uid(queue: Queue) -> None:
    assert queue.add("1.2", "1.2.1", b"one")
    assert not queue.add("1.2", "1.2.1", b"one again")
    assert queue.add("1.2", "1.2.2", b"two")
    (name,) = queue.series()
    assert sorted(path.read_bytes() for path in queue.files(name)) == [b"one", b"two"]
    assert queue.num_received == 2
    assert "1.2" not in name


def test_what_was_half_written_is_removed_at_the_start(queue: Queue) -> None:
    queue.add("1.2", "1.2.1", b"one")
    (name,) = queue.series()
    halves = [queue.incoming / name / ".abc-x.dcm", queue.records / ".abc-x.json"]
    for path in halves:
        path.write_bytes(b"ha")
    again = Queue(queue.incoming.parent)
    assert not any(path.exists() for path in halves)
    assert len(again.files(name)) == 1


def test_a_record_that_cannot_be_read_is_none(queue: Queue) -> None:
    queue.add("1.2", "1.2.1", b"one")
    (name,) = queue.series()
    queue.save(name, Record("done", images_of(queue.files(name))))
    assert queue.counts()["done"] == 1
    queue.records.joinpath(f"{name}.json").write_text('{"state": "do')
    assert Queue(queue.incoming.parent).counts()["received"] == 1


def test_a_record_changes_only_from_what_was_seen(queue: Queue) -> None:
    first, second, third = (Record("restored", text) for text in "abc")
    queue.save("x", first)
    assert queue.change("x", first, second)
    assert not queue.change("x", first, third)
    assert queue.load("x") == Queue(queue.incoming.parent).load("x") == second


def test_folders_that_did_not_change_are_not_listed_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    real = Queue.files

    def files(self: Queue, name: str) -> Any:
        listed.append(name)
        return real(self, name)

    monkeypatch.setattr(Queue, "files", files)
    queue.add("1.2", "1.2.1", b"one")
    (name,) = queue.series()
    queue.save(name, Record("done", images_of(real(queue, name))))
    for _ in range(3):
        assert not list(queue.waiting())
    assert len(listed) == 3  # it changed a moment ago: the clock may not tell a second change

    settle(queue.incoming / name)
    for _ in range(3):
        assert not list(queue.waiting())
    assert len(listed) == 4
    queue.add("1.2", "1.2.2", b"two")
    assert [found[0] for found in queue.waiting()] == [name]


def settle(folder: Path) -> None:
    long_ago = time.time() - 60
    os.utime(folder, (long_ago, long_ago))
