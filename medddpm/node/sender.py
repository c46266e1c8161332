"""The sending side: C-STORE of what was restored, and storage commitment (PS3.4 annexes B, J)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from medddpm.io.dicom_quiet import quiet_pydicom
from medddpm.node.options import NodeOptions, Peer
from medddpm.node.queue import Queue, Record
from medddpm.node.receiver import client_context, report_handler

_UIDS = ["SOPClassUID", "SOPInstanceUID"]
_MOST_ASKED = 3
_LOST = "the association was lost"

log = logging.getLogger(__name__)


class Sender:
    """Sends what was restored until the destination has it.

    Args:
        queue: The series.
        options: Waits and keys.
        derived: Folder with one folder of outputs a series.
        aet: Our title.
        peer: The destination.

    Attributes:
        num_sent: Objects that the destination took since the sender was made.
    """

    def __init__(
        self, queue: Queue, options: NodeOptions, *, derived: Path, aet: str, peer: Peer
    ) -> None:
        self.queue, self.options, self.derived, self.peer = queue, options, derived, peer
        self.aet, self.num_sent = aet, 0

    def step(self, stop: Event) -> None:
        """Send, or ask for commitment of, every series whose time has come."""
        for name, record in self.queue.all():
            if stop.is_set():
                return
            if record.next_try > time.time():
                continue
            if record.state == "restored":
                new = self._try(name, record, stop)
                if new is not None:
                    self._keep(name, record, new)
            elif record.state == "sent":  # no answer came: ask again, or go without
                again = replace(record, state="restored", next_try=0.0)
                self._keep(name, record, again if record.asked < _MOST_ASKED else _done(record))

    def on_commitment(self, transaction: str, is_safe: bool) -> None:
        """The destination says what became of the objects of a transaction."""
        for name, record in self.queue.all():
            if transaction and record.transaction == transaction:
                if is_safe:
                    new = _done(replace(record, committed=True))
                else:
                    why = "the destination did not commit to all objects"
                    new = self._later(replace(record, sent=[]), why, refused=True)
                self._keep(name, record, new)

    def _try(self, name: str, record: Record, stop: Event) -> Record | None:
        """Send; whatever happens to one series, the others are sent.

        Returns:
            What the record becomes; None if that is written already.
        """
        try:
            return self._send(name, record, stop)
        except Exception as error:  # a file that is gone or damaged, or a bug
            return self._later(record, f"it cannot be sent ({type(error).__name__})", refused=True)

    def _send(self, name: str, record: Record, stop: Event) -> Record | None:
        folder = self.derived / name
        files = {str(path.relative_to(folder)): path for path in _outputs(folder)}
        known = {key: _header(path) for key, path in files.items()}
        if not files:
            return replace(record, state="failed", reason="its restored images are gone")
        left = [key for key in files if key not in record.sent]
        with self._association(list(known.values())) as association:
            if association is None:
                return self._later(record, "the destination cannot be reached", refused=False)
            sent, why = list(record.sent), ""
            for key in left:
                if stop.is_set():
                    return replace(record, sent=sent)
                if why := _store(association, files[key]):
                    break
                sent.append(key)
                self.num_sent += 1
            complete = replace(record, sent=sent)
            if why:
                return self._later(complete, why, refused=why != _LOST)
            if not self.options.commitment or not _offers_commitment(association):
                return _done(complete)
            self._ask(name, record, complete, association, list(known.values()))
            return None

    def _ask(
        self, name: str, old: Record, sent: Record, association: Any, headers: list[Dataset]
    ) -> None:
        """Ask for storage commitment; the answer may be there before this returns."""
        transaction = generate_uid()
        asking = replace(
            sent,
            state="sent",
            transaction=transaction,
            asked=sent.asked + 1,
            next_try=time.time() + self.options.commitment_wait_s,
        )
        if not self._keep(name, old, asking):
            return
        wanted = Dataset()
        wanted.TransactionUID = transaction
        wanted.ReferencedSOPSequence = Sequence([_reference(header) for header in headers])
        status, _ = association.send_n_action(
            wanted, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        if status.get("Status", 0) != 0:  # without any status it is asked again later
            self._keep(name, asking, _done(sent))

    def _keep(self, name: str, old: Record, new: Record) -> bool:
        """Write a record, unless it changed: images came, or the destination answered.

        Returns:
            True if it was written.
        """
        if old == new or not self.queue.change(name, old, new):
            return False
        level = logging.WARNING if new.reason and new.state != "done" else logging.INFO
        log.log(level, "series %s: %s %s", name, new.state, new.reason)
        return True

    def _later(self, record: Record, why: str, *, refused: bool) -> Record:
        """The record after a failed sending: wait twice as long as the last time."""
        attempts, refusals = record.attempts + 1, record.refusals + refused
        if refusals >= self.options.max_refusals:
            return replace(record, state="failed", reason=why, refusals=refusals)
        wait = min(self.options.retry_s * 2 ** min(record.attempts, 30), self.options.max_retry_s)
        return replace(
            record,
            state="restored",
            reason=why,
            attempts=attempts,
            refusals=refusals,
            next_try=time.time() + wait,
        )

    @contextmanager
    def _association(self, headers: list[Dataset]) -> Iterator[Any]:
        """An association for objects of these kinds; None if there is none to be had."""
        ae = AE(self.aet)
        ae.connection_timeout = ae.acse_timeout = 30
        kinds = {(h.SOPClassUID, h.file_meta.TransferSyntaxUID) for h in headers}
        for sop_class, syntax in sorted(kinds):
            ae.add_requested_context(sop_class, syntax)
        if self.options.commitment:
            ae.add_requested_context(StorageCommitmentPushModel)
        tls = self.options.tls
        association = ae.associate(
            self.peer.host,
            self.peer.port,
            ae_title=self.peer.aet,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, report_handler(self.on_commitment))],
            tls_args=(client_context(tls), self.peer.host) if tls and tls.send else None,
        )
        try:
            yield association if association.is_established else None
        finally:
            if association.is_established:
                association.release()


def _done(record: Record) -> Record:
    return replace(record, state="done", reason="", sent=[], next_try=0.0)


def _outputs(folder: Path) -> list[Path]:
    """DICOM files of a restored series: images, maps, pages; not what is half-written."""
    found = sorted(folder.rglob("*.dcm"))
    return [p for p in found if not any(n.startswith(".") for n in p.relative_to(folder).parts)]


def _header(path: Path) -> Dataset:
    with quiet_pydicom():
        return dcmread(path, stop_before_pixels=True, specific_tags=_UIDS)


def _store(association: Any, path: Path) -> str:
    """Send one object; why that failed, "" if it did not. Warnings (Bxxx) mean stored."""
    try:
        with quiet_pydicom():
            status = association.send_c_store(path)
    except ValueError:
        return "the destination does not take objects of this kind"
    except RuntimeError:
        return _LOST
    if "Status" not in status:
        return _LOST
    code = int(status.Status)
    return "" if code == 0 or code >> 12 == 0xB else f"the destination answered {code:04X}"


def _offers_commitment(association: Any) -> bool:
    contexts = association.accepted_contexts
    return any(c.abstract_syntax == StorageCommitmentPushModel for c in contexts)


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item
