"""A node in a process of its own, killed at any stage and started again."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom")

from pydicom import dcmread
from support.node_process import NodeProcess, half_files, wait_until

from medddpm.volume import Volume

# the destination and the sender in this process lose connections to the node that is killed
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("no_sockets_left"),
]

log = logging.getLogger(__name__)
Series = list[list[Path]]
NOT_QUIET = {"quiet_s": 60}
SLOW = ("--set", "restore.mode=sample", "--set", "restore.steps=400")  # a second


@pytest.fixture
def series(tmp_path: Path, dicom_series: Callable[..., Path], noisy_phantom: Volume) -> Series:
    """Two series of 8 images."""
    folders = [
        dicom_series(tmp_path / name, noisy_phantom.data[:, :, 10:18], number=number)
        for number, name in enumerate("ab", start=1)
    ]
    return [sorted(folder.iterdir()) for folder in folders]


@pytest.fixture
def again(
    tmp_path: Path, tiny_weights: Path, start_node: Callable[..., NodeProcess], destination: Any
) -> Callable[..., NodeProcess]:
    """Starts the node with the same folder and destination each time."""
    port = destination.start()

    def start(*more: str, **rules: Any) -> NodeProcess:
        send_to = f"ARCHIVE@127.0.0.1:{port}"
        return start_node(tmp_path / "out", tiny_weights, send_to, more=more, **rules)

    start.port = port  # type: ignore[attr-defined]
    return start


def interleaved(series: Series) -> list[Path]:
    return [path for pair in zip(*series, strict=True) for path in pair]


def check_all_is_there(node: NodeProcess, series: Series, destination: Any) -> None:
    """Each series was restored once, whatever was sent twice, and the queue holds no half file."""
    files = [path for paths in series for path in paths]
    sources = {dcmread(path).SOPInstanceUID for path in files}
    kept = {dcmread(path).SOPInstanceUID for path in node.out.glob("incoming/*/*.dcm")}
    assert kept == sources
    assert len(list(node.out.glob("incoming/*/*.dcm"))) == len(files)
    assert len(set(destination.got)) == len(files)
    assert len({dataset.SeriesInstanceUID for dataset in destination.datasets}) == len(series)
    referred = {d.SourceImageSequence[0].ReferencedSOPInstanceUID for d in destination.datasets}
    assert referred == sources
    assert half_files(node.out) == []
    assert node.claims() == []


def test_killed_before_it_restores(
    again: Callable[..., NodeProcess], series: Series, destination: Any, store: Any
) -> None:
    mixed = interleaved(series)
    node = again(**NOT_QUIET)
    assert store(node.port, mixed) == [0] * 16
    assert node.counts()["received"] == 2
    node.kill()

    node = again()
    node.wait_for(done=2, received=0)
    assert store(node.port, mixed) == [0] * 16  # again: nothing is doubled
    assert node.counts().items() >= {"done": 2, "received": 0}.items()  # so none is to be restored
    assert "medddpm_node_images_sent_total 16" in node.get("metrics")
    with socket.create_connection(("127.0.0.1", node.port)):  # says nothing, and holds up nobody
        assert node.end() == 0
    assert len(destination.got) == 16
    check_all_is_there(node, series, destination)
    told = "".join(log.read_text() for log in node.out.parent.glob("node-*/stderr"))
    assert "Private" not in told
    assert "P-0001" not in told


@pytest.mark.slow
def test_killed_while_it_receives(
    again: Callable[..., NodeProcess], series: Series, destination: Any, store: Any
) -> None:
    mixed, answers = interleaved(series), []
    node = again(**NOT_QUIET)
    sending = threading.Thread(target=lambda: answers.extend(store(node.port, mixed)))
    sending.start()
    wait_until(lambda: len(list(node.out.glob("incoming/*/*.dcm"))) >= 5, every_s=0.001)
    node.kill()
    sending.join()
    accepted = answers.count(0)
    assert 0 < accepted < 16
    kept = {dcmread(path).SOPInstanceUID for path in node.out.glob("incoming/*/[!.]*.dcm")}
    assert {dcmread(path).SOPInstanceUID for path in mixed[:accepted]} <= kept

    node = again(cut_off_s=120)
    time.sleep(2)
    assert node.counts()["received"] == 2  # quiet, but the rest may still come
    assert store(node.port, mixed) == [0] * 16  # as a scanner does that got no answer
    node.wait_for(done=2, received=0)
    assert len(destination.got) == 16
    check_all_is_there(node, series, destination)


def test_killed_while_it_restores(
    again: Callable[..., NodeProcess], series: Series, destination: Any, store: Any
) -> None:
    node = again(*SLOW)
    store(node.port, series[0])
    wait_until(lambda: bool(node.claims()), every_s=0.01)
    node.kill()
    assert len(node.claims()) == 1
    assert node.records() == {}
    assert destination.got == []

    node = again(*SLOW)
    node.wait_for(done=1, received=0)
    assert len(destination.got) == 8
    check_all_is_there(node, series[:1], destination)


@pytest.mark.slow
def test_killed_while_it_sends_to_a_slow_destination(
    again: Callable[..., NodeProcess], series: Series, destination: Any, store: Any
) -> None:
    killed = threading.Event()
    destination.on_store = lambda: len(destination.got) < 3 or killed.wait(60)
    node = again()
    store(node.port, series[0])
    wait_until(lambda: len(destination.got) >= 3, every_s=0.01)
    node.kill()
    killed.set()
    assert len(destination.got) < 8
    assert [record["state"] for record in node.records().values()] == ["restored"]
    destination.stop()  # and when the node is back, it is down for a while

    destination.on_store = lambda: None
    node = again(retry_s=0.2)
    wait_until(lambda: next(iter(node.records().values()))["attempts"] >= 2)
    destination.start(again.port)  # type: ignore[attr-defined]
    node.wait_for(done=1, received=0)
    check_all_is_there(node, series[:1], destination)


def test_a_stop_lets_the_restoration_finish(
    again: Callable[..., NodeProcess], series: Series, destination: Any, store: Any
) -> None:
    node = again(*SLOW)
    store(node.port, series[0])
    wait_until(lambda: bool(node.claims()), every_s=0.01)
    assert node.end() == 0
    assert "the series in hand is finished" in node.log.read_text()
    assert [record["state"] for record in node.records().values()] == ["restored"]
    assert (node.claims(), destination.got) == ([], [])
    made = {path: path.stat().st_mtime_ns for path in node.out.glob("derived/*/*/*.dcm")}
    assert len(made) == 8

    node = again(*SLOW)
    node.wait_for(done=1, received=0)
    assert len(destination.got) == 8
    assert made == {p: p.stat().st_mtime_ns for p in node.out.glob("derived/*/*/*.dcm")}
    check_all_is_there(node, series[:1], destination)


@pytest.mark.slow
def test_killed_twenty_times_anywhere(
    again: Callable[..., NodeProcess],
    destination: Any,
    store: Any,
    dicom_series: Callable[..., Path],
    noisy_phantom: Volume,
    tmp_path: Path,
) -> None:
    """A new series each time; the scanner repeats what was not taken, the destination is slow."""
    rng, pending, series = random.Random(20), [], []
    destination.on_store = lambda: time.sleep(0.1)
    stages: Counter[str] = Counter()
    for number in range(20):
        folder = dicom_series(tmp_path / f"s{number}", noisy_phantom.data[:, :, 10:18])
        series.append(sorted(folder.iterdir()))
        pending += series[-1]
        node = again(cut_off_s=5)
        old = set(node.claims())  # of earlier deaths; who takes over makes a new one
        end = threading.Timer(rng.uniform(0.0, 8.0), node.process.kill)
        end.start()
        pending = pending[len(store(node.port, pending)) :]
        end.join()
        node.process.join()
        stages[stage(node, pending, old)] += 1
    node = again()
    if pending:
        store(node.port, pending)
    node.wait_for(300, done=20, received=0)
    check_all_is_there(node, series, destination)
    again_sent = len(destination.got) - 160
    log.info("killed while %s; %d of 160 images were sent again", dict(stages), again_sent)


def stage(node: NodeProcess, pending: list[Path], old: set[Path]) -> str:
    """What a node was at when it was killed."""
    if pending:
        return "receiving"
    if set(node.claims()) - old:
        return "restoring"
    is_sending = any(record["state"] == "restored" for record in node.records().values())
    return "sending" if is_sending else "waiting"


def test_an_enhanced_object_goes_round(
    again: Callable[..., NodeProcess],
    destination: Any,
    store: Any,
    enhanced_object: Callable[[Path, Any], Path],
    noisy_phantom: Volume,
    tmp_path: Path,
) -> None:
    path = enhanced_object(tmp_path / "a.dcm", noisy_phantom.data[:, :, 10:18, None])
    node = again(rules={"min_images": 8})  # it counts frames
    assert store(node.port, [path]) == [0]
    node.wait_for(done=1)
    (derived,) = destination.datasets
    source = dcmread(path)
    for name in ("SOPClassUID", "StudyInstanceUID", "FrameOfReferenceUID", "NumberOfFrames"):
        assert derived[name].value == source[name].value
    assert derived.SeriesInstanceUID != source.SeriesInstanceUID
    places = [
        [
            f.PlanePositionSequence[0].ImagePositionPatient
            for f in d.PerFrameFunctionalGroupsSequence
        ]
        for d in (source, derived)
    ]
    assert places[0] == places[1]


def test_mistakes_are_one_clear_line(tmp_path: Path, tiny_weights: Path, cli: Any) -> None:
    common = ["serve-dicom", "--out", tmp_path / "out", "--weights", tiny_weights, "--port", 0]
    nobody = cli(*common, "--send-to", "PACS@localhost:104")
    assert (nobody.exit_code, "--allow" in nobody.stderr) == (2, True)
    wrong = cli(*common, "--send-to", "PACS", "--allow", "any")
    assert (wrong.exit_code, "AET@HOST:PORT" in wrong.stderr) == (2, True)
