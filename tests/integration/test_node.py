"""A node in a process of its own, killed and started again."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom")

from pydicom import dcmread
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import MRImageStorage

from medddpm.volume import Volume


class Node:
    """A running `medddpm serve-dicom`."""

    def __init__(self, out: Path, weights: Path, destination: int, rules: Path, log: Path) -> None:
        command = [sys.executable, "-m", "medddpm", "serve-dicom", "--out", out, "--port", 0]
        command += ["--aet", "NODE", "--send-to", f"ARCHIVE@127.0.0.1:{destination}"]
        command += ["--allow", "SCANNER", "--rules", rules, "--health-port", 0]
        command += ["--weights", weights, "--device", "cpu"]
        self.log = log
        with log.open("w") as stream:
            self.process = subprocess.Popen([str(c) for c in command], stderr=stream)
        self.port = int(self.wait_for(r"listens on port (\d+)"))
        self.health = self.wait_for(r"(http://\S+)")

    def wait_for(self, pattern: str, limit_s: float = 60) -> str:
        end = time.monotonic() + limit_s
        while time.monotonic() < end and self.process.poll() is None:
            if found := re.search(pattern, self.log.read_text()):
                return found[1]
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def counts(self) -> dict[str, int]:
        with urllib.request.urlopen(self.health, timeout=10) as answer:
            content = json.load(answer)
        assert content["healthy"], content
        return dict(content["series"])

    def wait_for_counts(self, limit_s: float = 20, **expected: int) -> None:
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            counts = self.counts()
            if all(counts[name] == number for name, number in expected.items()):
                return
            time.sleep(0.1)
        raise AssertionError(f"{counts}\n{self.log.read_text()}")


@pytest.fixture
def start() -> Iterator[Callable[..., Node]]:
    """Starts a node: start(out, weights, destination, rules, log)."""
    running: list[Node] = []

    def make(*arguments: Any) -> Node:
        running.append(Node(*arguments))
        return running[-1]

    yield make
    for node in running:
        node.process.kill()
        node.process.wait()


@pytest.fixture
def archive() -> Iterator[tuple[int, list[Any]]]:
    """Keeps what it gets."""
    got: list[Any] = []
    ae = AE("ARCHIVE")
    ae.supported_contexts = AllStoragePresentationContexts

    def store(event: Any) -> int:
        got.append(event.dataset)
        return 0

    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield int(server.server_address[1]), got
    server.shutdown()
    server.server_close()


def send(port: int, files: list[Path]) -> list[int]:
    ae = AE("SCANNER")
    ae.add_requested_context(MRImageStorage)
    association = ae.associate("127.0.0.1", port, ae_title="NODE")
    assert association.is_established
    found = [int(association.send_c_store(dcmread(path)).Status) for path in files]
    association.release()
    return found


def test_killed_between_accept_and_restore_then_all_is_there_once(
    tmp_path: Path,
    tiny_weights: Path,
    dicom_series: Callable[..., Path],
    noisy_phantom: Volume,
    archive: tuple[int, list[Any]],
    start: Callable[..., Node],
) -> None:
    destination, got = archive
    made = [
        dicom_series(tmp_path / name, noisy_phantom.data[:, :, 10:18], number=number)
        for number, name in enumerate("ab", start=1)
    ]
    mixed = [path for folder in made for path in sorted(folder.iterdir())][::-1]
    mixed = mixed[::2] + mixed[1::2]  # the two series interleaved
    rules = tmp_path / "node.yaml"
    out = tmp_path / "out"

    rules.write_text("quiet_s: 60\nmin_free_gb: 0\npoll_s: 0.1\n")
    node = start(out, tiny_weights, destination, rules, tmp_path / "first.log")
    assert send(node.port, mixed) == [0] * 16
    assert node.counts()["received"] == 2
    node.process.kill()
    node.process.wait()

    rules.write_text("quiet_s: 0.5\nmin_free_gb: 0\npoll_s: 0.1\n")
    node = start(out, tiny_weights, destination, rules, tmp_path / "second.log")
    node.wait_for_counts(done=2, received=0)
    assert send(node.port, mixed) == [0] * 16  # again: nothing is doubled
    time.sleep(1)
    assert node.counts()["done"] == 2
    with socket.create_connection(("127.0.0.1", node.port)):  # says nothing, and holds up nobody
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(timeout=30) == 0

    uids = [dataset.SOPInstanceUID for dataset in got]
    assert len(uids) == len(set(uids)) == 16
    assert len({dataset.SeriesInstanceUID for dataset in got}) == 2
    sources = {dcmread(path).StudyInstanceUID for path in mixed}
    assert {dataset.StudyInstanceUID for dataset in got} == sources
    assert not list(out.rglob(".*-*"))
    told = (tmp_path / "first.log").read_text() + (tmp_path / "second.log").read_text()
    assert "Private" not in told
    assert "P-0001" not in told


def test_mistakes_are_one_clear_line(tmp_path: Path, tiny_weights: Path, cli: Any) -> None:
    common = ["serve-dicom", "--out", tmp_path / "out", "--weights", tiny_weights, "--port", 0]
    nobody = cli(*common, "--send-to", "PACS@localhost:104")
    assert (nobody.exit_code, "--allow" in nobody.stderr) == (2, True)
    wrong = cli(*common, "--send-to", "PACS", "--allow", "any")
    assert (wrong.exit_code, "AET@HOST:PORT" in wrong.stderr) == (2, True)
