"""What becomes of a series, step by step, without the network side that receives it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pynetdicom")

from pydicom import dcmread

from medddpm.cohort.run import make_settings
from medddpm.node.options import NodeOptions, Peer, Rules
from medddpm.node.queue import Queue, Record
from medddpm.node.sender import Sender
from medddpm.node.worker import Worker, why_left_out
from medddpm.restoration.options import RestoreOptions

# see no_sockets_left
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

GO = threading.Event()
OPTIONS = NodeOptions(quiet_s=0, retry_s=0, commitment=False, max_refusals=2)


def fill(queue: Queue, folder: Path) -> str:
    before = set(queue.series())
    for path in folder.iterdir():
        header = dcmread(path, stop_before_pixels=True)
        queue.add(header.SeriesInstanceUID, header.SOPInstanceUID, path.read_bytes())
    return (set(queue.series()) - before or before).pop()


@pytest.fixture
def scan(tmp_path: Path, dicom_series: Callable[..., Path], rng: np.random.Generator) -> Path:
    return dicom_series(tmp_path / "scan", rng.uniform(50, 900, (16, 16, 8)))


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "out")


@pytest.fixture
def worker(queue: Queue, tmp_path: Path, tiny_weights: Path) -> Worker:
    settings = make_settings(
        tmp_path / "out" / "derived", RestoreOptions(), tiny_weights, device="cpu", format="dicom"
    )
    return Worker(queue, OPTIONS, settings)


def sender(queue: Queue, port: int, options: NodeOptions = OPTIONS) -> Sender:
    derived = queue.incoming.parent / "derived"
    return Sender(
        queue, options, derived=derived, aet="NODE", peer=Peer("ARCHIVE", "127.0.0.1", port)
    )


def test_a_series_is_restored_once_and_sent_once(
    queue: Queue, worker: Worker, scan: Path, destination: Any
) -> None:
    name = fill(queue, scan)
    assert queue.counts()["received"] == 1
    worker.step(GO)
    assert queue.counts()["restored"] == 1
    made = {p: p.stat().st_mtime_ns for p in worker.settings.out.rglob("*.dcm")}
    assert len(made) == 8
    sender(queue, destination.start()).step(GO)
    assert queue.load(name).state == "done"
    assert len(destination.got) == len(set(destination.got)) == 8

    fill(queue, scan)  # the same again changes nothing
    queue.records.joinpath(f"{name}.json").unlink()  # as if killed before the record was written
    worker.step(GO)
    assert {p: p.stat().st_mtime_ns for p in worker.settings.out.rglob("*.dcm")} == made


def test_a_series_waits_until_it_is_quiet(queue: Queue, worker: Worker, scan: Path) -> None:
    name = fill(queue, scan)
    worker.options = replace(OPTIONS, quiet_s=60)
    worker.step(GO)
    assert queue.load(name) is None
    for path in queue.files(name):
        os.utime(path, (time.time() - 61,) * 2)
    worker.step(GO)
    assert queue.load(name).state == "restored"


def test_a_late_image_makes_it_new(queue: Queue, worker: Worker, scan: Path) -> None:
    last = next(path for path in scan.iterdir() if dcmread(path).InstanceNumber == 8)
    content, header = last.read_bytes(), dcmread(last)
    last.unlink()
    name = fill(queue, scan)
    worker.step(GO)
    first = queue.load(name)
    queue.save(name, replace(first, state="done"))
    queue.add(header.SeriesInstanceUID, header.SOPInstanceUID, content)
    assert queue.counts()["received"] == 1
    worker.step(GO)
    assert queue.load(name).state == "restored"
    assert queue.load(name).images != first.images
    assert len(list(worker.settings.out.rglob("*.dcm"))) == 8


def test_a_damaged_series_fails_alone(
    queue: Queue, worker: Worker, scan: Path, tmp_path: Path, dicom_series: Callable[..., Path]
) -> None:
    bad = dicom_series(tmp_path / "bad", np.full((16, 16, 8), 9.0), number=2)  # constant
    broken, good = fill(queue, bad), fill(queue, scan)
    worker.step(GO)
    assert (queue.load(broken).state, queue.load(good).state) == ("failed", "restored")
    assert "P-0001" not in queue.load(broken).reason
    assert queue.load(broken).reason


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(), ""),
        (Rules(description="^T1"), ""),
        (Rules(description="FLAIR"), "description"),
        (Rules(modality=("CT",)), "modality"),
        (Rules(contrast=("T2w",)), "contrast"),
        (Rules(min_images=9), "8 images"),
    ],
)
def test_rules(scan: Path, rules: Rules, expected: str) -> None:
    why = why_left_out(sorted(scan.iterdir()), rules)
    assert expected in why
    assert bool(why) == bool(expected)


def test_what_we_made_is_left_alone(queue: Queue, worker: Worker, scan: Path) -> None:
    fill(queue, scan)
    worker.step(GO)
    derived = next(
        p for p in worker.settings.out.rglob("*") if p.is_dir() and list(p.glob("*.dcm"))
    )
    name = fill(queue, derived)
    worker.step(GO)
    assert queue.load(name).state == "skipped"
    assert "medddpm" in queue.load(name).reason


def test_the_destination_is_down_and_comes_back(
    queue: Queue, worker: Worker, scan: Path, destination: Any
) -> None:
    name = fill(queue, scan)
    worker.step(GO)
    port = destination.start()
    destination.stop()
    slow = sender(queue, port, replace(OPTIONS, retry_s=100, max_retry_s=250))
    waits = []
    for _ in range(4):  # each an hour of trying would do in as many waits
        slow.step(GO)
        record = queue.load(name)
        assert record.state == "restored"
        waits.append(round(record.next_try - time.time(), -1))
        queue.save(name, replace(record, next_try=0.0))
    assert waits == [100, 200, 250, 250]
    destination.start(port)
    again = Queue(queue.incoming.parent)  # a node that was started again
    sender(again, port).step(GO)
    assert again.load(name).state == "done"
    assert len(set(destination.got)) == len(destination.got) == 8


def test_refusals_go_on_where_they_stopped_and_end(
    queue: Queue, worker: Worker, scan: Path, destination: Any
) -> None:
    name = fill(queue, scan)
    worker.step(GO)
    port = destination.start()
    destination.answers = [0, 0, 0, 0xA700]
    sender(queue, port).step(GO)
    assert queue.load(name).state == "restored"
    assert "A700" in queue.load(name).reason
    destination.answers = [0, 0xC000]
    sender(queue, port).step(GO)
    assert queue.load(name).state == "failed"
    assert len(queue.load(name).sent) == len(destination.got) == 4


def test_storage_commitment(queue: Queue, worker: Worker, scan: Path, destination: Any) -> None:
    name = fill(queue, scan)
    worker.step(GO)
    sending = sender(queue, destination.start(commitment=True), replace(OPTIONS, commitment=True))
    sending.step(GO)
    assert queue.load(name).state == "sent"
    assert queue.load(name).transaction == destination.commitments[0]
    sending.on_commitment("1.2.3", True)
    assert queue.load(name).state == "sent"
    sending.on_commitment(destination.commitments[0], False)  # it lost them: all are sent again
    assert queue.load(name).state == "restored"
    sending.step(GO)
    assert len(destination.got) == 16
    assert len(set(destination.got)) == 8
    sending.on_commitment(destination.commitments[1], True)
    assert (queue.load(name).state, queue.load(name).committed) == ("done", True)


def test_without_an_answer_it_is_asked_three_times(
    queue: Queue, worker: Worker, scan: Path, destination: Any
) -> None:
    name = fill(queue, scan)
    worker.step(GO)
    options = replace(OPTIONS, commitment=True, commitment_wait_s=0)
    sending = sender(queue, destination.start(commitment=True), options)
    for _ in range(8):
        sending.step(GO)
    assert len(destination.commitments) == 3
    assert (queue.load(name).state, queue.load(name).committed) == ("done", None)
    assert len(destination.got) == 8


def test_one_series_that_cannot_be_sent_does_not_hold_up_the_next(
    queue: Queue, worker: Worker, scan: Path, destination: Any
) -> None:
    name = fill(queue, scan)
    worker.step(GO)
    for other, content in (("0damaged", b"no DICOM"), ("0gone", None)):
        queue.incoming.joinpath(other).mkdir()
        queue.save(other, Record("restored", "x"))
        if content:
            worker.settings.out.joinpath(other).mkdir()
            worker.settings.out.joinpath(other, "1.dcm").write_bytes(content)
    sender(queue, destination.start()).step(GO)
    assert queue.load(name).state == "done"
    assert queue.load("0gone").state == "failed"
    assert (queue.load("0damaged").state, queue.load("0damaged").refusals) == ("restored", 1)


def test_a_stop_is_no_failure_of_the_destination(
    queue: Queue, worker: Worker, scan: Path, destination: Any
) -> None:
    name = fill(queue, scan)
    worker.step(GO)
    stop = threading.Event()
    destination.on_store = lambda: len(destination.got) == 3 and stop.set()
    sending = sender(queue, destination.start())
    sending.step(stop)
    record = queue.load(name)
    assert (record.state, len(record.sent), record.attempts) == ("restored", 3, 0)
    sending.step(GO)
    assert len(destination.got) == len(set(destination.got)) == 8
