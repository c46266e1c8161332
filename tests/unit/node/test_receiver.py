"""Real associations with a receiver in this process."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pynetdicom")

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.sop_class import (
    CTImageStorage,
    MRImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)
from support.node_process import wait_until

from medddpm.node.options import NodeOptions
from medddpm.node.queue import Queue
from medddpm.node.receiver import Receiver

# see no_sockets_left
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

OPTIONS = NodeOptions(min_free_gb=0, max_associations=30)


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[..., tuple[int, Queue]]]:
    running: list[Receiver] = []
    told: list[tuple[str, bool]] = []

    def start(options: NodeOptions = OPTIONS, allow: tuple[str, ...] = ("SCANNER",)) -> Any:
        queue = Queue(tmp_path / "out")
        receiver = Receiver(
            queue,
            options,
            aet="NODE",
            allow=allow,
            answers="ARCHIVE",
            on_commitment=lambda *answer: told.append(answer),
        )
        running.append(receiver)
        return receiver.start(0), queue

    start.told = told  # type: ignore[attr-defined]
    yield start
    for receiver in running:
        receiver.stop()


@pytest.fixture
def series(tmp_path: Path, dicom_series: Callable[..., Path]) -> list[Path]:
    return sorted(dicom_series(tmp_path / "a", np.full((8, 8, 5), 100.0)).iterdir())


def stored(queue: Queue) -> dict[str, list[str]]:
    return {
        name: sorted(str(dcmread(path).SOPInstanceUID) for path in queue.files(name))
        for name in queue.series()
    }


def test_echo_and_store(listen: Any, store: Any, series: list[Path]) -> None:
    port, queue = listen()
    ae = AE("SCANNER")
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", port, ae_title="NODE")
    assert association.send_c_echo().Status == 0
    association.release()

    assert store(port, series) == [0] * 5
    sent = [dcmread(path) for path in series]
    assert list(stored(queue).values()) == [sorted(str(d.SOPInstanceUID) for d in sent)]
    for name in queue.series():
        assert "P-0001" not in name
        pixels = {d.SOPInstanceUID: d.PixelData for d in map(dcmread, queue.files(name))}
        assert pixels == {d.SOPInstanceUID: d.PixelData for d in sent}


def test_the_same_again_is_one_file(listen: Any, store: Any, series: list[Path]) -> None:
    port, queue = listen()
    store(port, series)
    before = {p: p.stat().st_mtime_ns for p in queue.files(queue.series()[0])}
    assert store(port, series) == [0] * 5
    assert {p: p.stat().st_mtime_ns for p in queue.files(queue.series()[0])} == before


def test_unlisted_titles_are_rejected(listen: Any, store: Any, series: list[Path]) -> None:
    port, queue = listen()
    assert store(port, series, calling="STRANGER") == []
    assert store(port, series, called="OTHER") == []
    assert store(port, series, calling="ARCHIVE") == [0x0124] * 5  # may only answer
    assert queue.series() == []


def test_any_lets_everyone(listen: Any, store: Any, series: list[Path]) -> None:
    port, _ = listen(allow=("any",))
    assert store(port, series[:1], calling="STRANGER") == [0]


def test_other_classes_are_not_negotiated(listen: Any) -> None:
    port, _ = listen()
    ae = AE("SCANNER")
    ae.add_requested_context(CTImageStorage)
    ae.add_requested_context(MRImageStorage)
    association = ae.associate("127.0.0.1", port, ae_title="NODE")
    assert [c.abstract_syntax for c in association.rejected_contexts] == [CTImageStorage]
    association.release()


def test_limits_refuse_politely(listen: Any, store: Any, series: list[Path]) -> None:
    port, queue = listen(replace(OPTIONS, max_file_mb=0.0001))
    assert store(port, series[:1]) == [0xA700]
    port, _ = listen(replace(OPTIONS, min_free_gb=1e9))
    assert store(port, series[:1]) == [0xA700]
    assert queue.series() == []


def test_a_full_disk_is_refused_and_leaves_nothing(
    listen: Any, store: Any, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, queue = listen()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert store(port, series[:2]) == [0xA700] * 2
    assert [p for p in queue.incoming.rglob("*") if p.is_file()] == []
    assert store(port, series[:2]) == [0, 0]


def test_what_was_refused_is_waited_for(
    listen: Any, store: Any, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, queue = listen(replace(OPTIONS, min_free_gb=1))
    free = [5e9, 5e9, 0.5e9, 0.5e9, 0.5e9]
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free.pop(0)))
        assert store(port, series) == [0, 0, 0xA700, 0xA700, 0xA700]
    (name,) = queue.series()
    wait_until(lambda: queue.is_cut_off(name), 10)
    assert store(port, series) == [0] * 5
    assert not queue.is_cut_off(name)


def test_twenty_associations_at_once(listen: Any, store: Any, series: list[Path]) -> None:
    port, queue = listen()
    answers: list[list[int]] = []

    def send() -> None:
        """As senders do, once more if it broke off.

        On a busy machine pynetdicom's own sender may take an answer for a request, and waits until
        the association ends ("Received unexpected C-STORE service message").
        """
        sent = store(port, series)
        answers.append(sent if len(sent) == len(series) else store(port, series))

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[0] * 5] * 20
    files = [p for p in queue.incoming.rglob("*") if p.is_file()]
    assert len(files) == 5


def test_too_many_associations_are_rejected(listen: Any) -> None:
    port, _ = listen(replace(OPTIONS, max_associations=1))
    ae = AE("SCANNER")
    ae.add_requested_context(Verification)
    first = ae.associate("127.0.0.1", port, ae_title="NODE")
    second = ae.associate("127.0.0.1", port, ae_title="NODE")
    assert (first.is_established, second.is_established) == (True, False)
    first.release()


def test_two_interleaved_series_are_kept_apart(
    listen: Any, store: Any, series: list[Path], tmp_path: Path, dicom_series: Callable[..., Path]
) -> None:
    other = sorted(dicom_series(tmp_path / "b", np.full((8, 8, 5), 50.0), number=2).iterdir())
    port, queue = listen()
    mixed = [path for pair in zip(series, other, strict=True) for path in pair]
    assert store(port, mixed) == [0] * 10
    assert sorted(len(names) for names in stored(queue).values()) == [5, 5]


def test_garbage_and_a_dropped_association_harm_nothing(
    listen: Any, store: Any, series: list[Path]
) -> None:
    port, queue = listen()
    for content in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40, b"\x01\x00\xff\xff\xff\xff"):
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(content)
    ae = AE("SCANNER")
    ae.add_requested_context(MRImageStorage)
    association = ae.associate("127.0.0.1", port, ae_title="NODE")
    assert association.send_c_store(dcmread(series[0])).Status == 0
    half = b"\x04\x00\x00\x00\x10\x00\x00\x00\x08\x00\x01\x03partial"  # a P-DATA cut short
    line = association.dul.socket.socket
    line.sendall(half)
    line.shutdown(socket.SHUT_RDWR)
    association.join(5)
    line.close()
    (name,) = queue.series()
    wait_until(lambda: queue.is_cut_off(name), 10)
    assert store(port, series) == [0] * 5
    assert len(queue.files(name)) == 5
    assert not queue.is_cut_off(name)


def test_an_object_that_is_not_what_it_is_called(listen: Any, series: list[Path]) -> None:
    port, queue = listen()
    ae = AE("SCANNER")
    ae.add_requested_context(MRImageStorage)
    association = ae.associate("127.0.0.1", port, ae_title="NODE")
    dataset = dcmread(series[0])
    del dataset.SeriesInstanceUID
    assert association.send_c_store(dataset).Status == 0xC000
    association.release()
    assert queue.series() == []


def test_the_destination_may_report_on_commitment(listen: Any) -> None:
    port, _ = listen()
    ae = AE("ARCHIVE")
    ae.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    association = ae.associate("127.0.0.1", port, ae_title="NODE", ext_neg=[role])
    assert association.is_established
    told = Dataset()
    told.TransactionUID = "1.2.3"
    instance = StorageCommitmentPushModelInstance
    for kind in (1, 2):
        status, _ = association.send_n_event_report(
            told, kind, StorageCommitmentPushModel, instance
        )
        assert status.Status == 0
    association.release()
    assert listen.told == [("1.2.3", True), ("1.2.3", False)]
