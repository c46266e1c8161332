"""A node in a process of its own."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.processes import begun, command

QUICK = {"quiet_s": 0.5, "cut_off_s": 0.5, "poll_s": 0.1, "min_free_gb": 0}


class NodeProcess:
    """A running `medddpm serve-dicom`; the same arguments start it again."""

    def __init__(
        self,
        out: Path,
        weights: Path,
        send_to: str,
        *,
        allow: Sequence[str] = ("SCANNER",),
        aet: str = "NODE",
        port: int = 0,
        more: Sequence[str] = (),
        **rules: Any,
    ) -> None:
        self.out = out
        number = len(list(out.parent.glob("node-*")))
        folder = out.with_name(f"node-{number}")
        folder.mkdir()
        self.log, file = folder / "stderr", folder / "rules.yaml"
        file.write_text(yaml.safe_dump({**QUICK, **rules}))
        words = ["serve-dicom", "--out", out, "--port", port]
        words += ["--aet", aet, "--send-to", send_to, "--rules", file, "--health-port", 0]
        words += ["--weights", weights, "--device", "cpu", *more]
        for title in allow:
            words += ["--allow", title]
        self.process = begun(folder, command, *words)
        self.port = int(self.wait_for_words(r"listens on port (\d+)"))
        self.health = self.wait_for_words(r"(http://\S+)")

    def wait_for_words(self, pattern: str, limit_s: float = 60) -> str:
        end = time.monotonic() + limit_s
        said = ""
        while time.monotonic() < end and self.process.is_alive():
            said = self.log.read_text() if self.log.exists() else ""
            if found := re.search(pattern, said):
                return found[1]
            time.sleep(0.02)
        raise AssertionError(said)

    def get(self, path: str = "") -> str:
        try:
            with urllib.request.urlopen(f"{self.health}{path}", timeout=30) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return str(error.read().decode())

    def counts(self) -> dict[str, int]:
        content = json.loads(self.get())
        assert content["healthy"], f"{content}\n{self.log.read_text()}"
        return dict(content["series"])

    def wait_for(self, limit_s: float = 60, **expected: int) -> None:
        """Until so many series are in these states."""
        wait_until(lambda: expected.items() <= self.counts().items(), limit_s, self.told)

    def told(self) -> str:
        return f"{self.get()}\n{self.log.read_text()}"

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.join()

    def end(self, limit_s: float = 60) -> int:
        """As `kill` does; returns the exit code."""
        self.process.terminate()
        self.process.join(limit_s)
        assert self.process.exitcode is not None, self.told()
        return self.process.exitcode

    def records(self) -> dict[str, dict[str, Any]]:
        return {p.stem: json.loads(p.read_text()) for p in self.out.glob("records/*.json")}

    def claims(self) -> list[Path]:
        """There is one while a series is restored, and after a death in the middle of it."""
        return list(self.out.glob("restoring/claims/*"))


def wait_until(
    is_so: Callable[[], bool],
    limit_s: float = 60,
    words: Callable[[], object] = lambda: "",
    every_s: float = 0.05,
) -> None:
    end = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end, words()
        time.sleep(every_s)


def half_files(out: Path) -> list[str]:
    """What is half-written, or cannot be read, in the folder of a node."""
    from pydicom import dcmread

    found = [str(path.relative_to(out)) for path in out.rglob(".*")]
    for path in (*out.glob("incoming/*/*.dcm"), *out.glob("derived/*/*/*.dcm")):
        dataset = dcmread(path)
        frames = int(dataset.get("NumberOfFrames") or 1)
        if len(dataset.PixelData) < 2 * frames * dataset.Rows * dataset.Columns:
            found.append(path.name)
    return found


@pytest.fixture
def start_node() -> Iterator[Callable[..., NodeProcess]]:
    """Starts a node: start_node(out, weights, "AET@host:port", **rules)."""
    running: list[NodeProcess] = []

    def make(*arguments: Any, **named: Any) -> NodeProcess:
        running.append(NodeProcess(*arguments, **named))
        return running[-1]

    yield make
    for node in running:
        node.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
