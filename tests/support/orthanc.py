"""An Orthanc of the test's own, on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.node_process import free_port, wait_until

ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")


class Orthanc:
    """A running server that knows one modality.

    Args:
        folder: For its storage, configuration and log.
        aet: Title of the modality.
        port: Of the modality.
    """

    def __init__(self, folder: Path, aet: str, port: int) -> None:
        self.http, self.dicom, self.aet = free_port(), free_port(), aet
        settings = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom,
            "DicomCheckCalledAet": True,
            "HttpPort": self.http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StrictAetComparison": True,
            "StorageCommitmentReportsSize": 100,
            "Plugins": [],
            "DicomModalities": {
                aet: {
                    "AET": aet,
                    "Host": "127.0.0.1",
                    "Port": port,
                    "AllowStorageCommitment": True,
                }
            },
        }
        folder.mkdir()
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.folder = folder
        self.start()

    def start(self) -> None:
        assert ORTHANC is not None
        with (self.folder / "orthanc.log").open("w") as log:
            command = [ORTHANC, str(self.folder / "orthanc.json")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._answers, words=(self.folder / "orthanc.log").read_text)

    def _answers(self) -> bool:
        assert self.process.poll() is None, "it ended at once"
        try:
            return bool(self.get("system"))
        except OSError:
            return False

    def get(self, path: str) -> Any:
        return json.loads(self._ask(path))

    def post(self, path: str, body: object) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.loads(self._ask(path, data))

    def upload(self, folder: Path) -> None:
        for file in sorted(folder.iterdir()):
            self.post("instances", file.read_bytes())

    def send(self, series: str) -> Any:
        """C-STORE of a series to the modality; returns what became of it."""
        return self.post(f"modalities/{self.aet}/store", {"Resources": [series], "Timeout": 60})

    def download(self, series: str, folder: Path) -> Path:
        folder.mkdir()
        for instance in self.get(f"series/{series}")["Instances"]:
            (folder / f"{instance}.dcm").write_bytes(self._ask(f"instances/{instance}/file"))
        return folder

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/{path}", data=body)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return bytes(answer.read())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)


@pytest.fixture
def start_orthanc(tmp_path: Path) -> Iterator[Callable[[str, int], Orthanc]]:
    """Starts one: start_orthanc(title of a modality, its port)."""
    if ORTHANC is None:
        pytest.skip("Orthanc is not installed (Debian: orthanc)")
    running: list[Orthanc] = []

    def make(aet: str, port: int) -> Orthanc:
        running.append(Orthanc(tmp_path / f"orthanc-{len(running)}", aet, port))
        return running[-1]

    yield make
    for server in running:
        server.stop()
