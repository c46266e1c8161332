"""TLS with certificates made here by openssl."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pynetdicom")

from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from medddpm.errors import ConfigError
from medddpm.node.options import NodeOptions, Peer, Tls
from medddpm.node.queue import Queue, Record
from medddpm.node.receiver import Receiver, client_context
from medddpm.node.sender import Sender

pytestmark = [
    pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # see no_sockets_left
]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for localhost that is its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "node.key", folder / "node.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return Tls(cert, key, cert)


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[[NodeOptions], tuple[int, Queue]]]:
    running: list[Receiver] = []

    def start(options: NodeOptions) -> tuple[int, Queue]:
        queue = Queue(tmp_path / "received")
        receiver = Receiver(
            queue, options, aet="NODE", allow=["SENDER"], answers="X", on_commitment=lambda *_: None
        )
        running.append(receiver)
        return receiver.start(0), queue

    yield start
    for receiver in running:
        receiver.stop()


def test_a_node_sends_to_a_node_over_tls(
    tls: Tls, listen: Any, tmp_path: Path, dicom_series: Callable[..., Path]
) -> None:
    options = NodeOptions(tls=tls, min_free_gb=0, commitment=False)
    port, received = listen(options)
    queue = Queue(tmp_path / "out")
    made = dicom_series(tmp_path / "derived" / "abc" / "scan", np.full((8, 8, 3), 9.0))
    queue.incoming.joinpath("abc").mkdir()
    queue.save("abc", Record("restored", "x"))
    sender = Sender(
        queue,
        options,
        derived=tmp_path / "derived",
        aet="SENDER",
        peer=Peer("NODE", "localhost", port),
    )
    with socket.create_connection(("127.0.0.1", port)):  # says nothing, and blocks nobody
        sender.step(threading.Event())
    assert queue.load("abc").state == "done"
    got = received.files(received.series()[0])
    uids = {dcmread(path).SOPInstanceUID for path in got}
    assert uids == {dcmread(path).SOPInstanceUID for path in made.iterdir()}


@pytest.mark.parametrize("kind", ["plain", "no certificate"])
def test_who_shows_no_certificate_is_not_heard(tls: Tls, listen: Any, kind: str) -> None:
    port, _ = listen(NodeOptions(tls=tls))
    ae = AE("SENDER")
    ae.acse_timeout = 3
    ae.add_requested_context(Verification)
    context = ssl.create_default_context(cafile=str(tls.ca))
    secure = None if kind == "plain" else (context, "localhost")
    association = ae.associate("127.0.0.1", port, ae_title="NODE", tls_args=secure)
    assert not association.is_established
    association = ae.associate(
        "127.0.0.1", port, ae_title="NODE", tls_args=(client_context(tls), "localhost")
    )
    assert association.is_established
    association.release()


def test_missing_keys_are_one_clear_error(tls: Tls, listen: Any) -> None:
    with pytest.raises(ConfigError, match="tls"):
        listen(NodeOptions(tls=replace(tls, key=Path("no.key"))))
