from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from medddpm.cohort import claims
from medddpm.cohort.claims import claimed, is_claimed, release_run


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with claimed(tmp_path, "a", "run") as mine:
        assert mine
        assert is_claimed(tmp_path, "a")
        with claimed(tmp_path, "a", "other") as also, claimed(tmp_path, "b", "other") as free:
            assert not also
            assert free
    assert not is_claimed(tmp_path, "a")
    assert list(tmp_path.iterdir()) == []


def dead_claim(folder: Path, run: str = "dead") -> Path:
    """A claim of a real process that was killed with -9."""
    code = (
        "import os, signal, sys; from pathlib import Path; from medddpm.cohort import claims\n"
        f"claims._take(Path({str(folder)!r}), 'a', {run!r})\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    return folder / "a.1"


def test_the_claim_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    assert dead_claim(tmp_path).exists()
    assert not is_claimed(tmp_path, "a")
    with claimed(tmp_path, "a", "run") as mine:
        assert mine
        with claimed(tmp_path, "a", "run") as again:
            assert not again
    assert list(tmp_path.iterdir()) == []


def test_a_number_of_a_process_that_is_used_again_does_not_count(tmp_path: Path) -> None:
    owner = json.loads(dead_claim(tmp_path).read_text())
    (tmp_path / "a.1").write_text(json.dumps(owner | {"pid": os.getpid()}))
    assert not is_claimed(tmp_path, "a")


def test_only_one_of_many_takes_over(tmp_path: Path) -> None:
    dead_claim(tmp_path)

    def take(_: int) -> Any:
        return claims._take(tmp_path, "a", "run")

    with ThreadPoolExecutor(16) as threads:
        taken = Counter(path is not None for path in threads.map(take, range(64)))
    assert taken[True] == 1


def test_another_machine_is_dead_when_it_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "a.1"
    path.write_text(json.dumps({"place": "elsewhere", "pid": 1, "born": "x", "run": "r"}))
    assert is_claimed(tmp_path, "a")
    long_ago = time.time() - claims.SILENT_S - 60
    os.utime(path, (long_ago, long_ago))
    assert not is_claimed(tmp_path, "a")


def test_a_claim_that_is_being_written_counts_for_a_moment(tmp_path: Path) -> None:
    (tmp_path / "a.1").touch()
    assert is_claimed(tmp_path, "a")
    before = time.time() - 2 * claims._WRITING_S
    os.utime(tmp_path / "a.1", (before, before))
    assert not is_claimed(tmp_path, "a")


@pytest.mark.parametrize("links", [True, False])
def test_a_full_disk_leaves_no_claim(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if mode == ("w" if links else "x"):
            real(path, mode).close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode, *rest, **more)

    def no_link(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "open", full)
    if not links:
        monkeypatch.setattr(claims.os, "link", no_link)
    with pytest.raises(OSError, match="No space"), claimed(tmp_path, "a", "run"):
        pass
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(Path, "open", real)
    with claimed(tmp_path, "a", "run") as mine:
        assert mine


def test_where_files_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(claims.os, "link", no_link)
    with claimed(tmp_path, "a", "run") as mine, claimed(tmp_path, "a", "run") as also:
        assert mine
        assert not also
    assert list(tmp_path.iterdir()) == []


def test_another_container_of_the_same_host_name_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process has a number that means nothing here, or another process."""
    with monkeypatch.context() as there:
        there.setattr(claims, "_place", lambda: "another container")
        there.setattr(claims, "_born", lambda pid: "another process")
        path = claims._take(tmp_path, "a", "run")
    assert path is not None
    assert is_claimed(tmp_path, "a")
    with claimed(tmp_path, "a", "run") as mine:
        assert not mine
    before = time.time() - claims.SILENT_S - 60
    os.utime(path, (before, before))
    assert not is_claimed(tmp_path, "a")


def test_a_holder_says_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.01)
    with claimed(tmp_path, "a", "run"):
        os.utime(tmp_path / "a.1", (1, 1))
        deadline = time.monotonic() + 5
        while (tmp_path / "a.1").stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "a.1").stat().st_mtime > 2


def test_what_a_run_left_is_released_but_not_what_lives(tmp_path: Path) -> None:
    dead_claim(tmp_path, "run")
    with claimed(tmp_path, "b", "run"):
        assert release_run(tmp_path, "other") == []
        assert release_run(tmp_path, "run") == ["a"]
        assert is_claimed(tmp_path, "b")
