"""Run a node until it is told to stop."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from medddpm.cohort.run import make_settings
from medddpm.errors import (
    ConfigError,
    MedddpmError,
    MissingExtraError,
    OutputError,
    missing_extra,
)
from medddpm.io.lock import lock_of
from medddpm.node.health import Health, LastError, health_endpoint, last_error
from medddpm.node.options import NodeOptions, check_aet, parse_peer
from medddpm.node.queue import Queue
from medddpm.node.worker import Worker
from medddpm.restoration.options import RestoreOptions

if TYPE_CHECKING:
    from medddpm.node.receiver import Receiver
    from medddpm.node.sender import Sender

OnNews = Callable[[str], None]
log = logging.getLogger(__name__)


def serve_dicom(
    out: Path,
    *,
    port: int,
    aet: str,
    send_to: str,
    allow: Sequence[str],
    node: NodeOptions | None = None,
    options: RestoreOptions | None = None,
    weights: str | Path = "default",
    device: str = "auto",
    health_port: int | None = None,
    stop: Event | None = None,
    on_news: OnNews | None = None,
) -> None:
    """Receive series, restore those that the rules select, send them on; until `stop` is set.

    All that was accepted is in `out`, and goes on from there when the node starts again.

    Args:
        out: Made if missing; one node at a time uses it.
        port: To listen on; 0 takes a free one.
        aet: Our AE title.
        send_to: Destination, AET@HOST:PORT.
        allow: Titles of peers that may send; "any" lets everyone.
        node: Rules, limits, keys.
        options: How to restore.
        weights: A shipped name or a weights file.
        device: "auto", "cpu", "cuda", "cuda:1".
        health_port: Of the health report on localhost; none without it.
        stop: Ends the node: the series in hand is finished.
        on_news: Called with lines for the person.

    Raises:
        ConfigError: A title, address, port or key cannot be used; nobody may send.
        OutputError: Another node uses `out`, or it cannot be written.
        MissingExtraError: pynetdicom is not installed.
    """
    node, stop, say = node or NodeOptions(), stop or Event(), on_news or (lambda text: None)
    if not allow:
        raise ConfigError("nobody may send: name AE titles with --allow, or say --allow any")
    peer, titles = parse_peer(send_to), [check_aet(title) for title in allow]
    settings = make_settings(
        out / "derived",
        options or RestoreOptions(),
        weights,
        device=device,
        format="dicom",
        state=out / "restoring",
    )
    receiving, sending = _network()
    with ExitStack() as stack:
        stack.callback(_only_node(out).release)
        queue = Queue(out)
        settings.out.mkdir(exist_ok=True)
        sender = sending(queue, node, derived=settings.out, aet=check_aet(aet), peer=peer)
        receiver = receiving(
            queue,
            node,
            aet=check_aet(aet),
            allow=titles,
            answers=peer.aet,
            on_commitment=sender.on_commitment,
        )
        loops = [
            _Loop(part.step, stop, node.poll_s) for part in (Worker(queue, node, settings), sender)
        ]
        if health_port is not None:
            told = stack.enter_context(last_error())
            report = _reporter(queue, sender, node, loops, told)
            number = stack.enter_context(health_endpoint(health_port, report))
            say(f"health: http://127.0.0.1:{number}/")
        words = f"{aet} listens on port {receiver.start(port)}; {_words(queue)}"
        _work(loops, receiver, stop, say, words)
        say(f"stopped; {_words(queue)}")


def _work(loops: list[_Loop], receiver: Receiver, stop: Event, say: OnNews, ready: str) -> None:
    """Run the loops until `stop` is set; what is in hand is finished."""
    try:
        for loop in loops:
            loop.start()
        say(ready)  # not before: until now the health report says 503
        while not stop.is_set():  # not wait(): its lock may be held when the signal sets it
            time.sleep(0.2)
    finally:
        stop.set()
        receiver.stop()
        say("stopping: the series in hand is finished first")
        for loop in loops:
            loop.join()


class _Loop(threading.Thread):
    """Calls a step again and again; an error of one call is logged, and the next is tried."""

    def __init__(self, step: Callable[[Event], None], stop: Event, every_s: float) -> None:
        super().__init__(daemon=True)
        self.step, self.stop, self.every_s = step, stop, every_s
        self.error = ""

    def run(self) -> None:
        """Until `stop` is set."""
        while not self.stop.is_set():
            try:
                self.step(self.stop)
                self.error = ""
            except Exception as error:  # a full disk may be emptied; the node lives on
                # another error's text may name a patient
                why = str(error) if isinstance(error, MedddpmError) else type(error).__name__
                if why != self.error:
                    log.warning("the queue cannot go on now: %s", why)
                self.error = why
            self.stop.wait(self.every_s)


def _only_node(out: Path) -> FileLock:
    lock = lock_of(out / "node.lock")
    if lock is None:
        raise OutputError(f"{out} is used by another node; stop it or take another folder")
    return lock


def _network() -> tuple[Any, Any]:
    """The classes that need pynetdicom; its log may name patients, so it is silenced."""
    try:
        import pynetdicom  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError(missing_extra("pynetdicom", "node")) from None
    from medddpm.node.receiver import Receiver
    from medddpm.node.sender import Sender

    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    return Receiver, Sender


def _reporter(
    queue: Queue, sender: Sender, node: NodeOptions, loops: Sequence[_Loop], told: LastError
) -> Callable[[], Health]:
    def report() -> Health:
        free_gb = shutil.disk_usage(queue.incoming).free / 1e9
        errors = [loop.error for loop in loops if loop.error]
        alive = all(loop.is_alive() for loop in loops)
        series = queue.counts()
        return Health(
            healthy=alive and not errors and free_gb > node.min_free_gb,
            series=series,
            waiting=series["received"] + series["restored"] + series["sent"],
            images_received=queue.num_received,
            images_sent=sender.num_sent,
            free_gb=round(free_gb, 3),
            errors=errors,
            last_error=told.text,
            last_error_time=told.time,
        )

    return report


def _words(queue: Queue) -> str:
    return ", ".join(f"{number} {state}" for state, number in queue.counts().items())
