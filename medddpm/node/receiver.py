"""The receiving side: C-ECHO, C-STORE and answers to storage commitment (PS3.4 annexes A, B, J)."""

from __future__ import annotations

import logging
import shutil
import ssl
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.pdu import A_RELEASE_RQ
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StorageCommitmentPushModel,
    Verification,
)

from medddpm.errors import ConfigError
from medddpm.io.dicom_quiet import quiet_pydicom
from medddpm.node.options import NodeOptions, Tls
from medddpm.node.queue import Queue, series_name

ANY = "any"
STORED = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless]
_JPEG = [JPEGLosslessSV1, JPEGLSLossless]  # what the extra `dicom` reads
# Status codes of C-STORE (PS3.4 table B.2-1) and of all services (PS3.7 annex C).
SUCCESS, OUT_OF_RESOURCES, NOT_MATCHING, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
NOT_AUTHORIZED = 0x0124
_STOP_S = 5.0
_UIDS = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"]

log = logging.getLogger(__name__)
OnCommitment = Callable[[str, bool], None]


class _LateHandshake(ssl.SSLContext):
    """Shakes hands in the thread of the association: a silent client must not block the others."""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*args, **{**kwargs, "do_handshake_on_connect": False})


class Receiver:
    """Takes objects from listed peers into the queue.

    Args:
        queue: Where they go.
        options: Limits and keys.
        aet: Our title; peers must call us by it.
        allow: Titles of peers that may store; ("any",) lets everyone.
        answers: Title of the destination, which may report on storage commitment.
        on_commitment: Called with the transaction UID and whether all objects are safe.
    """

    def __init__(
        self,
        queue: Queue,
        options: NodeOptions,
        *,
        aet: str,
        allow: Sequence[str],
        answers: str,
        on_commitment: OnCommitment,
    ) -> None:
        self.queue, self.options, self.allow = queue, options, set(allow)
        self.on_commitment = on_commitment
        self._open: dict[Any, set[str]] = {}  # associations, and the series that came in them
        self._refused: set[Any] = set()  # associations in which the disk had no room
        self.ae = AE(aet)
        self.ae.maximum_associations = options.max_associations
        self.ae.require_called_aet = True
        self.ae.acse_timeout = 10
        if ANY not in self.allow:
            self.ae.require_calling_aet = sorted({*allow, answers})
        syntaxes = [*_SYNTAXES, *(_JPEG if find_spec("libjpeg") else [])]
        self.ae.add_supported_context(Verification)
        for sop_class in STORED:
            self.ae.add_supported_context(sop_class, syntaxes)
        self.ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)

    def start(self, port: int) -> int:
        """Listen on all interfaces, in threads; returns the port, which may be given as 0.

        Raises:
            ConfigError: The port is taken, or the keys cannot be read.
        """
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, _let_go),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_PDU_RECV, self._released),
            (evt.EVT_CONN_CLOSE, self._closed),
            (evt.EVT_N_EVENT_REPORT, report_handler(self.on_commitment)),
        ]
        tls = self.options.tls
        context = _server_context(tls) if tls else None
        try:
            server = self.ae.start_server(
                ("0.0.0.0", port),
                block=False,
                evt_handlers=handlers,
                ssl_context=context,
            )
        except OSError as error:
            raise ConfigError(f"port {port}: {error.strerror or error}; take another") from error
        assert server is not None
        return int(server.server_address[1])

    def stop(self) -> None:
        """Take no more; associations that are open are ended, stuck ones are left behind."""
        ending = threading.Thread(target=self._end, daemon=True)
        ending.start()
        ending.join(_STOP_S)

    def _end(self) -> None:
        for association in self.ae.active_associations:
            if not association.is_established:  # a peer that says nothing; it cannot be aborted
                association.dul.kill_dul()
                if association.dul.socket is not None:
                    association.dul.socket.close()
                association.kill()
        self.ae.shutdown()

    def _store(self, event: Any) -> int:
        """Handle C-STORE: success is returned only when the object is on the disk."""
        status = self._take(event)
        if status == OUT_OF_RESOURCES:
            self._refused.add(event.assoc)
        return status

    def _take(self, event: Any) -> int:
        caller = str(event.assoc.requestor.ae_title).strip()
        if ANY not in self.allow and caller not in self.allow:
            return NOT_AUTHORIZED
        content = event.encoded_dataset()
        if len(content) > self.options.max_file_mb * 1e6:
            log.warning("refused: an object of %.0f MB is too large", len(content) / 1e6)
            return OUT_OF_RESOURCES
        free = shutil.disk_usage(self.queue.incoming).free
        if free - len(content) < self.options.min_free_gb * 1e9:
            log.warning("refused: only %.1f GB are free", free / 1e9)
            return OUT_OF_RESOURCES
        uids = _uids_of(content)
        if uids is None:
            return NOT_UNDERSTOOD
        request = event.request
        if uids[:2] != [request.AffectedSOPClassUID, request.AffectedSOPInstanceUID]:
            return NOT_MATCHING
        name = series_name(uids[2])
        self._open.setdefault(event.assoc, set()).add(name)
        try:
            self.queue.add(uids[2], uids[1], content)
        except OSError as error:  # OutputError is one
            log.warning("refused: an object cannot be stored (%s)", type(error).__name__)
            return OUT_OF_RESOURCES
        if event.assoc not in self._open:  # it was lost meanwhile
            self.queue.cut_off(name)
        return SUCCESS

    def _released(self, event: Any) -> None:
        """When a peer asks for release, all has come that it wanted to send, or was refused.

        EVT_RELEASED may come after the connection is closed.
        """
        if isinstance(event.pdu, A_RELEASE_RQ) and event.assoc not in self._refused:
            self._open.pop(event.assoc, None)

    def _closed(self, event: Any) -> None:
        """Without a release before, the peer was not at its end."""
        self._refused.discard(event.assoc)
        for name in self._open.pop(event.assoc, set()):
            self.queue.cut_off(name)


def _let_go(event: Any) -> None:
    """A connection that says nothing must not keep the process from ending."""
    event.assoc.dul.daemon = True


def report_handler(on_commitment: OnCommitment) -> Callable[[Any], tuple[int, None]]:
    """A handler of N-EVENT-REPORT: event type 1 says that all objects are safe (PS3.4 J.3.3)."""

    def handle(event: Any) -> tuple[int, None]:
        transaction = str(event.event_information.get("TransactionUID") or "")
        on_commitment(transaction, event.event_type == 1)
        return SUCCESS, None

    return handle


def client_context(tls: Tls) -> ssl.SSLContext:
    """How we speak to a destination: it must show a certificate of the authority."""
    return _with_keys(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), tls)


def _server_context(tls: Tls) -> ssl.SSLContext:
    context = _with_keys(_LateHandshake(ssl.PROTOCOL_TLS_SERVER), tls)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _with_keys(context: ssl.SSLContext, tls: Tls) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert, tls.key)
        context.load_verify_locations(tls.ca)
    except OSError as error:  # SSLError is one
        raise ConfigError(f"tls: a key or certificate cannot be read: {error}") from error
    return context


def _uids_of(content: bytes) -> list[UID] | None:
    """Class, instance and series of an object, or None if it cannot be read."""
    try:
        with quiet_pydicom():
            header: Dataset = dcmread(
                BytesIO(content), stop_before_pixels=True, specific_tags=_UIDS
            )
            found = [UID(str(header.get(name) or "")) for name in _UIDS]
    except Exception as error:  # a damaged object makes pydicom raise anything
        log.warning("refused: an object cannot be read (%s)", type(error).__name__)
        return None
    return found if all(found) else None
