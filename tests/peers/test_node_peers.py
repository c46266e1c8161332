"""dcmtk's echoscu and storescu talk to a node, its storescp takes what the node sends."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom")

from pydicom import dcmread

from medddpm.node.options import NodeOptions
from medddpm.node.serve import serve_dicom
from medddpm.volume import Volume

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(not shutil.which("storescu"), reason="dcmtk is not installed"),
]


def run(*command: object) -> int:
    done = subprocess.run([str(c) for c in command], capture_output=True, timeout=60)
    return done.returncode


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    port, folder = free_port(), tmp_path / "archive"
    folder.mkdir()
    command = ["storescp", "-aet", "ARCHIVE", "-od", str(folder), str(port)]
    process = subprocess.Popen(command)
    yield port, folder
    process.terminate()
    process.wait()


@pytest.fixture
def node(tmp_path: Path, tiny_weights: Path, storescp: Any) -> Iterator[int]:
    stop, port = threading.Event(), free_port()
    thread = threading.Thread(
        target=serve_dicom,
        args=(tmp_path / "out",),
        kwargs={
            "port": port,
            "aet": "NODE",
            "send_to": f"ARCHIVE@127.0.0.1:{storescp[0]}",
            "allow": ["SCANNER"],
            "node": NodeOptions(quiet_s=0.5, poll_s=0.1, min_free_gb=0),
            "weights": tiny_weights,
            "device": "cpu",
            "stop": stop,
        },
    )
    thread.start()
    for _ in range(100):
        if run("echoscu", "-aet", "SCANNER", "-aec", "NODE", "127.0.0.1", port) == 0:
            break
        time.sleep(0.1)
    yield port
    stop.set()
    thread.join()


def test_a_series_goes_round(
    node: int,
    storescp: tuple[int, Path],
    tmp_path: Path,
    dicom_series: Callable[..., Path],
    noisy_phantom: Volume,
) -> None:
    folder = dicom_series(tmp_path / "scan", noisy_phantom.data[:, :, 10:18])
    address = ("127.0.0.1", node, "+sd", folder)
    assert run("storescu", "-aet", "SCANNER", "-aec", "NODE", *address) == 0
    for _ in range(300):
        files = list(storescp[1].iterdir())
        if len(files) == 8:
            break
        time.sleep(0.1)
    time.sleep(0.5)
    derived = [dcmread(path) for path in storescp[1].iterdir()]
    source = dcmread(next(folder.iterdir()))
    assert len(derived) == 8
    assert {d.StudyInstanceUID for d in derived} == {source.StudyInstanceUID}
    assert source.SeriesInstanceUID not in {d.SeriesInstanceUID for d in derived}


def test_strangers_are_rejected(node: int, tmp_path: Path) -> None:
    assert run("echoscu", "-aet", "SCANNER", "-aec", "NODE", "127.0.0.1", node) == 0
    assert run("echoscu", "-aet", "STRANGER", "-aec", "NODE", "127.0.0.1", node) != 0
    assert run("echoscu", "-aet", "SCANNER", "-aec", "OTHER", "127.0.0.1", node) != 0
