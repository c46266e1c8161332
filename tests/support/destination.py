"""A small archive in this process, and a modality that sends to a node."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset


class Destination:
    """Keeps what it gets; `answers` are given first, then success."""

    def __init__(self) -> None:
        self.datasets: list[Dataset] = []
        self.answers: list[int] = []
        self.commitments: list[str] = []
        self.on_store: Callable[[], Any] = lambda: None
        self.on_action: Callable[[], int] = lambda: 0
        self.server: Any = None

    @property
    def got(self) -> list[str]:
        """Instance UIDs in the order of their arrival."""
        return [str(dataset.SOPInstanceUID) for dataset in self.datasets]

    def start(self, port: int = 0, *, commitment: bool = False) -> int:
        from pynetdicom import AE, AllStoragePresentationContexts, evt
        from pynetdicom.sop_class import StorageCommitmentPushModel

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
            self.datasets.append(event.dataset)
        self.on_store()
        return answer

    def _action(self, event: Any) -> tuple[int, None]:
        self.commitments.append(str(event.action_information.TransactionUID))
        return self.on_action(), None


@pytest.fixture(scope="module")
def no_sockets_left() -> Iterator[None]:
    """Collects the sockets that pynetdicom leaves open after a failed connection."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def destination() -> Iterator[Destination]:
    made = Destination()
    yield made
    made.stop()


@pytest.fixture
def store() -> Callable[..., list[int]]:
    """Sends files: store(port, files, calling="SCANNER") -> status of each; [] if rejected.

    They end where the association was lost.
    """

    def send(port: int, files: list[Path], calling: str = "SCANNER", called: str = "NODE") -> Any:
        from pynetdicom import AE

        ae = AE(calling)
        ae.dimse_timeout = 120  # a busy machine is no lost association
        datasets = [dcmread(path) for path in files]
        for kind in {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}:
            ae.add_requested_context(*kind)
        association = ae.associate("127.0.0.1", port, ae_title=called)
        if not association.is_established:
            return []
        found: list[int] = []
        for dataset in datasets:
            try:
                status = association.send_c_store(dataset).get("Status")
            except RuntimeError:  # it was lost before
                status = None
            if status is None:
                return found
            found.append(int(status))
        association.release()
        return found

    return send
