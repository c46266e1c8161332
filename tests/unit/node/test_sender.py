"""What was restored is sent until the destination has it, and each image once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom")

from pynetdicom.association import Association

from medddpm.node import sender as module
from medddpm.node.options import NodeOptions
from medddpm.node.queue import Queue, Record
from medddpm.node.sender import Sender

# see no_sockets_left
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

GO = threading.Event()
MakeSender = Callable[..., Sender]


def test_a_series_is_sent_once(
    queue: Queue, restored: str, make_sender: MakeSender, destination: Any
) -> None:
    sending = make_sender(destination.start())
    sending.step(GO)
    sending.step(GO)
    assert (queue.load(restored).state, queue.load(restored).sent) == ("done", [])
    assert len(destination.got) == len(set(destination.got)) == sending.num_sent == 8


def test_the_destination_is_down_for_an_hour_and_comes_back(
    queue: Queue,
    restored: str,
    options: NodeOptions,
    make_sender: MakeSender,
    destination: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = destination.start()
    destination.stop()
    now = [queue.incoming.stat().st_mtime]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    tries: list[float] = []
    sending = make_sender(port, replace(options, retry_s=10, max_retry_s=600))
    began = now[0]
    while now[0] < began + 3600:
        before = queue.load(restored)
        sending.step(GO)
        if queue.load(restored) != before:
            tries.append(round(now[0] - began))
        now[0] += 5
    assert tries == [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030]
    assert queue.load(restored).state == "restored"
    assert queue.load(restored).refusals == 0
    destination.start(port)
    again = Queue(queue.incoming.parent)  # a node that was started again
    later = make_sender(port, queue=again)
    while now[0] < began + 3700:
        later.step(GO)
        now[0] += 5
    assert again.load(restored).state == "done"
    assert len(set(destination.got)) == len(destination.got) == 8


def test_refusals_go_on_where_they_stopped_and_end(
    queue: Queue, restored: str, make_sender: MakeSender, destination: Any
) -> None:
    port = destination.start()
    destination.answers = [0, 0, 0, 0xA700]
    make_sender(port).step(GO)
    assert queue.load(restored).state == "restored"
    assert "A700" in queue.load(restored).reason
    destination.answers = [0, 0xC000]
    make_sender(port).step(GO)
    assert queue.load(restored).state == "failed"
    assert len(queue.load(restored).sent) == len(destination.got) == 4


def test_storage_commitment(
    queue: Queue, restored: str, options: NodeOptions, make_sender: MakeSender, destination: Any
) -> None:
    port = destination.start(commitment=True)
    sending = make_sender(port, replace(options, commitment=True))
    sending.step(GO)
    assert queue.load(restored).state == "sent"
    assert queue.load(restored).transaction == destination.commitments[0]
    sending.on_commitment("1.2.3", True)
    assert queue.load(restored).state == "sent"
    sending.on_commitment(destination.commitments[0], False)  # it lost them: all are sent again
    assert queue.load(restored).state == "restored"
    sending.step(GO)
    assert len(destination.got) == 16
    assert len(set(destination.got)) == 8
    sending.on_commitment(destination.commitments[1], True)
    assert (queue.load(restored).state, queue.load(restored).committed) == ("done", True)


def test_a_commitment_that_comes_at_once_is_not_forgotten(
    queue: Queue,
    restored: str,
    options: NodeOptions,
    make_sender: MakeSender,
    destination: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = destination.start(commitment=True)
    sending = make_sender(port, replace(options, commitment=True))
    release = Association.release

    def answered_before(association: Association) -> None:
        if association.is_requestor:
            sending.on_commitment(destination.commitments[0], True)
        release(association)

    monkeypatch.setattr(Association, "release", answered_before)
    sending.step(GO)
    assert (queue.load(restored).state, queue.load(restored).committed) == ("done", True)
    sending.step(GO)
    assert len(destination.commitments) == 1


def test_a_refused_question_leaves_it_open_whether_it_is_safe(
    queue: Queue, restored: str, options: NodeOptions, make_sender: MakeSender, destination: Any
) -> None:
    destination.on_action = lambda: 0x0110
    make_sender(destination.start(commitment=True), replace(options, commitment=True)).step(GO)
    assert len(destination.commitments) == 1
    assert (queue.load(restored).state, queue.load(restored).committed) == ("done", None)


def test_without_an_answer_it_is_asked_three_times(
    queue: Queue, restored: str, options: NodeOptions, make_sender: MakeSender, destination: Any
) -> None:
    options = replace(options, commitment=True, commitment_wait_s=0)
    sending = make_sender(destination.start(commitment=True), options)
    for _ in range(8):
        sending.step(GO)
    assert len(destination.commitments) == 3
    assert (queue.load(restored).state, queue.load(restored).committed) == ("done", None)
    assert len(destination.got) == 8


def test_a_node_that_asks_no_more_ends_what_it_asked(
    queue: Queue, restored: str, options: NodeOptions, make_sender: MakeSender, destination: Any
) -> None:
    options = replace(options, commitment=True, commitment_wait_s=0)
    port = destination.start(commitment=True)
    make_sender(port, options).step(GO)
    assert queue.load(restored).state == "sent"
    sending = make_sender(port, replace(options, commitment=False))
    for _ in range(2):
        sending.step(GO)
    assert (queue.load(restored).state, len(destination.got)) == ("done", 8)


def test_one_series_that_cannot_be_sent_does_not_hold_up_the_next(
    queue: Queue, restored: str, make_sender: MakeSender, destination: Any
) -> None:
    derived = queue.incoming.parent / "derived"
    for other, content in (("0damaged", b"no DICOM"), ("0gone", None)):
        queue.incoming.joinpath(other).mkdir()
        queue.save(other, Record("restored", "x"))
        if content:
            derived.joinpath(other).mkdir()
            derived.joinpath(other, "1.dcm").write_bytes(content)
    make_sender(destination.start()).step(GO)
    assert queue.load(restored).state == "done"
    assert queue.load("0gone").state == "failed"
    assert (queue.load("0damaged").state, queue.load("0damaged").refusals) == ("restored", 1)


def test_a_stop_is_no_failure_of_the_destination(
    queue: Queue, restored: str, make_sender: MakeSender, destination: Any
) -> None:
    stop = threading.Event()
    destination.on_store = lambda: len(destination.got) == 3 and stop.set()
    sending = make_sender(destination.start())
    sending.step(stop)
    record = queue.load(restored)
    assert (record.state, len(record.sent), record.attempts) == ("restored", 3, 0)
    sending.step(GO)
    assert len(destination.got) == len(set(destination.got)) == 8


def test_images_that_come_while_it_is_sent_are_not_overlooked(
    queue: Queue, restored: str, make_sender: MakeSender, destination: Any, tmp_path: Path
) -> None:
    newer = Record("restored", "other images")
    destination.on_store = lambda: queue.save(restored, newer)  # the worker restored it again
    make_sender(destination.start()).step(GO)
    assert queue.load(restored) == newer


def test_a_destination_that_dies_in_the_middle_gets_the_rest_later(
    queue: Queue, restored: str, make_sender: MakeSender, destination: Any
) -> None:
    def die() -> None:
        if len(destination.got) == 3:
            (association,) = destination.server.active_associations
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)

    destination.on_store = die
    sending = make_sender(destination.start())
    sending.step(GO)
    record = queue.load(restored)
    assert (record.state, len(record.sent), record.refusals) == ("restored", 2, 0)
    assert "lost" in record.reason
    destination.on_store = lambda: None
    sending.step(GO)
    assert queue.load(restored).state == "done"
    assert (len(destination.got), len(set(destination.got))) == (9, 8)  # one answer was lost
