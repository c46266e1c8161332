"""A receiver on a free port, and a destination that keeps what it gets."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom")

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import StorageCommitmentPushModel


@pytest.fixture(scope="module", autouse=True)
def no_sockets_left() -> Iterator[None]:
    """Collects the sockets that pynetdicom leaves open after a failed connection."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Destination:
    """A small archive; `answers` are given first, then success."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.answers: list[int] = []
        self.commitments: list[str] = []
        self.on_store: Callable[[], Any] = lambda: None
        self.server: Any = None

    def start(self, port: int = 0, *, commitment: bool = False) -> int:
        ae = AE("ARCHIVE")
        ae.supported_contexts = AllStoragePresentationContexts
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)]
        if commitment:
            ae.add_supported_context(StorageCommitmentPushModel)
        self.server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        return int(self.server.server_address[1])

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()

    def _store(self, event: Any) -> int:
        answer = self.answers.pop(0) if self.answers else 0
        if answer == 0:
            self.got.append(str(event.request.AffectedSOPInstanceUID))
        self.on_store()
        return answer

    def _action(self, event: Any) -> tuple[int, None]:
        self.commitments.append(str(event.action_information.TransactionUID))
        return 0, None


@pytest.fixture
def destination() -> Iterator[Destination]:
    made = Destination()
    yield made
    made.stop()


@pytest.fixture
def store() -> Callable[..., list[int]]:
    """Sends files: store(port, files, calling="SCANNER") -> status of each; [] if rejected."""

    def send(port: int, files: list[Path], calling: str = "SCANNER", called: str = "NODE") -> Any:
        from pydicom import dcmread

        ae = AE(calling)
        datasets = [dcmread(path) for path in files]
        for kind in {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}:
            ae.add_requested_context(*kind)
        association = ae.associate("127.0.0.1", port, ae_title=called)
        if not association.is_established:
            return []
        found = [int(association.send_c_store(d).Status) for d in datasets]
        association.release()
        return found

    return send
