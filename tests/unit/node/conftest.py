"""A queue and what works on it, step by step, in this process."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pynetdicom")

from pydicom import dcmread

from medddpm.cohort.run import make_settings
from medddpm.node.options import NodeOptions, Peer
from medddpm.node.queue import Queue
from medddpm.node.sender import Sender
from medddpm.node.worker import Worker
from medddpm.restoration.options import RestoreOptions
from medddpm.volume import Volume


@pytest.fixture(scope="module", autouse=True)
def clean(no_sockets_left: None) -> None:
    """In all tests of this folder."""


@pytest.fixture
def phantom_shape() -> tuple[int, int, int]:
    return (40, 44, 36)


@pytest.fixture
def options() -> NodeOptions:
    return NodeOptions(quiet_s=0, cut_off_s=0, retry_s=0, commitment=False, max_refusals=2)


@pytest.fixture
def scan(tmp_path: Path, dicom_series: Callable[..., Path], noisy_phantom: Volume) -> Path:
    """A series of 8 images."""
    return dicom_series(tmp_path / "scan", noisy_phantom.data[:, :, 10:18])


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "out")


@pytest.fixture
def worker(queue: Queue, options: NodeOptions, tmp_path: Path, tiny_weights: Path) -> Worker:
    settings = make_settings(
        tmp_path / "out" / "derived", RestoreOptions(), tiny_weights, device="cpu", format="dicom"
    )
    return Worker(queue, options, settings)


def put(queue: Queue, folder: Path) -> str:
    """Put the files of a folder into the queue; returns the name of their series."""
    before = set(queue.series())
    for path in folder.iterdir():
        header = dcmread(path, stop_before_pixels=True)
        queue.add(header.SeriesInstanceUID, header.SOPInstanceUID, path.read_bytes())
    return (set(queue.series()) - before or before).pop()


@pytest.fixture
def fill(queue: Queue) -> Callable[[Path], str]:
    """Puts the files of a folder into the queue; returns the name of their series."""

    return partial(put, queue)


@pytest.fixture
def make_sender(queue: Queue, options: NodeOptions) -> Callable[..., Sender]:
    """A sender to a port of this machine: make_sender(port, options, queue)."""

    def make(port: int, given: NodeOptions = options, queue: Queue = queue) -> Sender:
        derived = queue.incoming.parent / "derived"
        peer = Peer("ARCHIVE", "127.0.0.1", port)
        return Sender(queue, given, derived=derived, aet="NODE", peer=peer)

    return make


@pytest.fixture(scope="package")
def restored_once(
    tmp_path_factory: pytest.TempPathFactory,
    head: Callable[..., Any],
    dicom_series: Callable[..., Path],
    tiny_weights: Path,
) -> tuple[Path, str]:
    """The folder of a node with a restored series of 8 images, and the name of the series."""
    folder = tmp_path_factory.mktemp("node")
    real, imaginary = np.random.default_rng(20).normal(0, 50, (2, 32, 30, 8))
    noisy = np.hypot(head((32, 30, 26))[:, :, 10:18] + real, imaginary)
    queue = Queue(folder / "out")
    name = put(queue, dicom_series(folder / "scan", noisy))
    settings = make_settings(
        folder / "out" / "derived", RestoreOptions(), tiny_weights, device="cpu", format="dicom"
    )
    options = NodeOptions(quiet_s=0, cut_off_s=0)
    Worker(queue, options, settings).step(threading.Event())
    return folder / "out", name


@pytest.fixture
def restored(queue: Queue, restored_once: tuple[Path, str]) -> str:
    """Name of a series that is restored and waits to be sent."""
    folder, name = restored_once
    shutil.copytree(folder, queue.incoming.parent, dirs_exist_ok=True)
    record = queue.load(name)
    assert record is not None
    assert record.state == "restored", record
    return name
