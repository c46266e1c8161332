"""dcmtk's tools send to a node, move to it, and take what it sends; in plain DICOM and in TLS."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom")

from pydicom import dcmread
from support.node_process import NodeProcess, free_port, wait_until

from medddpm.volume import Volume

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(not shutil.which("storescu"), reason="dcmtk is not installed"),
]
Start = Callable[..., NodeProcess]
SCANNER = ("-aet", "SCANNER", "-aec", "NODE", "127.0.0.1")


def run(*command: object) -> subprocess.CompletedProcess[str]:
    words = [str(c) for c in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def serve() -> Iterator[Callable[..., None]]:
    """Runs a server of dcmtk until the test ends: serve("storescp", ..., port)."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: object) -> None:
        running.append(subprocess.Popen([str(c) for c in command]))

    yield start
    for process in running:
        process.terminate()
        process.wait()


@pytest.fixture
def scan(tmp_path: Path, dicom_series: Callable[..., Path], noisy_phantom: Volume) -> Path:
    return dicom_series(tmp_path / "scan", noisy_phantom.data[:, :, 10:18])


def check_derived(folder: Path, source: Path) -> None:
    derived = [dcmread(path) for path in folder.iterdir()]
    header = dcmread(next(source.iterdir()))
    assert len({d.SOPInstanceUID for d in derived}) == len(derived) == 8
    assert {d.StudyInstanceUID for d in derived} == {header.StudyInstanceUID}
    assert header.SeriesInstanceUID not in {d.SeriesInstanceUID for d in derived}


def test_storescu_sends_and_storescp_gets_the_restored_series(
    scan: Path, tmp_path: Path, tiny_weights: Path, start_node: Start, serve: Any
) -> None:
    port, archive = free_port(), tmp_path / "archive"
    archive.mkdir()
    serve("storescp", "-aet", "ARCHIVE", "-od", archive, port)
    node = start_node(tmp_path / "out", tiny_weights, f"ARCHIVE@127.0.0.1:{port}")
    assert run("echoscu", *SCANNER, node.port).returncode == 0
    strangers = (("STRANGER", "NODE"), ("SCANNER", "OTHER"))
    for calling, called in strangers:
        who = ("-aet", calling, "-aec", called, "127.0.0.1", node.port)
        assert run("echoscu", *who).returncode != 0
        assert run("storescu", *who, "+sd", scan).returncode != 0
    assert node.counts()["received"] == 0
    assert run("storescu", *SCANNER, node.port, "+sd", scan).returncode == 0
    node.wait_for(done=1)
    check_derived(archive, scan)


def test_movescu_tells_an_archive_to_send_to_the_node(
    scan: Path, tmp_path: Path, tiny_weights: Path, start_node: Start, serve: Any
) -> None:
    """scanner -> dcmqrscp; movescu -> dcmqrscp -> node -> dcmqrscp."""
    port, node_port = free_port(), free_port()
    (tmp_path / "db").mkdir()
    config = tmp_path / "dcmqrscp.cfg"
    config.write_text(
        "MaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nnode = (NODE, 127.0.0.1, {node_port})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nARCHIVE {tmp_path / 'db'} RW (200, 1024mb) ANY\nAETable END\n"
    )
    serve("dcmqrscp", "-c", config, port)
    archive = ("-aec", "ARCHIVE", "127.0.0.1", port)
    wait_until(lambda: run("echoscu", *archive).returncode == 0)
    assert run("storescu", *archive, "+sd", scan).returncode == 0
    node = start_node(
        tmp_path / "out",
        tiny_weights,
        f"ARCHIVE@127.0.0.1:{port}",
        allow=["ARCHIVE"],
        port=node_port,
    )
    header = dcmread(next(scan.iterdir()))
    study = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={header.StudyInstanceUID}")
    assert run("movescu", "-S", "-aem", "NODE", *archive, *study).returncode == 0
    node.wait_for(done=1)
    series = ("-k", "QueryRetrieveLevel=SERIES", "-k", study[3], "-k", "SeriesInstanceUID")
    found = run("findscu", "-S", *archive, *series)
    assert (found.stdout + found.stderr).count("Find Response: ") == 2
    files = [path for path in (tmp_path / "db").iterdir() if path.name.startswith("MR")]
    uids = [dcmread(path, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID for path in files]
    assert sorted(map(uids.count, set(uids))) == [8, 8]


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for this machine that is its own authority, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    if "+tls" not in run("storescu", "--help").stdout:
        pytest.skip("this dcmtk was built without TLS")
    cert, key = tmp_path / "node.pem", tmp_path / "node.key"
    name = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, *name)
    assert run(*command, "-keyout", key, "-out", cert).returncode == 0
    return cert, key


def test_tls_both_ways(
    scan: Path,
    tmp_path: Path,
    tiny_weights: Path,
    start_node: Start,
    serve: Any,
    keys: tuple[Path, Path],
) -> None:
    cert, key = keys
    port, archive = free_port(), tmp_path / "archive"
    archive.mkdir()
    serve("storescp", "+tls", key, cert, "+cf", cert, "-aet", "ARCHIVE", "-od", archive, port)
    node = start_node(
        tmp_path / "out",
        tiny_weights,
        f"ARCHIVE@localhost:{port}",
        tls={"cert": str(cert), "key": str(key), "ca": str(cert)},
    )
    to_node = (*SCANNER[:-1], "localhost", node.port)
    assert run("echoscu", *to_node).returncode != 0  # plain
    assert run("echoscu", "--anonymous-tls", "+cf", cert, *to_node).returncode != 0
    assert run("storescu", "--anonymous-tls", "+cf", cert, *to_node, "+sd", scan).returncode != 0
    assert node.counts()["received"] == 0
    secure = ("+tls", key, cert, "+cf", cert)
    assert run("echoscu", *secure, *to_node).returncode == 0
    assert run("storescu", *secure, *to_node, "+sd", scan).returncode == 0
    node.wait_for(done=1)
    check_derived(archive, scan)
