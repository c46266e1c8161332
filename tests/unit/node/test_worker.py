"""Which series are restored, when, and what becomes of the others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pynetdicom")

from pydicom import dcmread

from medddpm.cohort.records import Outcome
from medddpm.errors import OutputError
from medddpm.node import worker as module
from medddpm.node.options import NodeOptions, Rules
from medddpm.node.queue import Queue
from medddpm.node.worker import Worker, why_left_out
from medddpm.volume import Volume

GO = threading.Event()


def test_a_series_is_restored_once(queue: Queue, worker: Worker, scan: Path, fill: Any) -> None:
    name = fill(scan)
    assert queue.counts()["received"] == 1
    worker.step(GO)
    assert queue.counts()["restored"] == 1
    made = {p: p.stat().st_mtime_ns for p in worker.settings.out.rglob("*.dcm")}
    assert len(made) == 8

    fill(scan)  # the same again changes nothing
    queue.records.joinpath(f"{name}.json").unlink()  # as if killed before the record was written
    worker.queue = Queue(queue.incoming.parent)
    worker.step(GO)
    assert worker.queue.load(name).state == "restored"
    assert {p: p.stat().st_mtime_ns for p in worker.settings.out.rglob("*.dcm")} == made


def test_a_series_waits_until_it_is_quiet(
    queue: Queue, worker: Worker, scan: Path, fill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fill(scan)
    worker.options = replace(worker.options, quiet_s=60)
    worker.step(GO)
    assert queue.load(name) is None
    now = time.time()
    monkeypatch.setattr("medddpm.node.queue.time.time", lambda: now + 61)
    worker.step(GO)
    assert queue.load(name).state == "restored"


def test_time_without_a_node_is_not_quiet(
    queue: Queue, worker: Worker, scan: Path, fill: Any
) -> None:
    name = fill(scan)
    for path in queue.files(name):
        os.utime(path, (time.time() - 3600,) * 2)  # the node was down for an hour since
    worker.queue = Queue(queue.incoming.parent)
    worker.options = replace(worker.options, cut_off_s=60)
    worker.step(GO)
    assert worker.queue.load(name) is None
    worker.options = replace(worker.options, cut_off_s=0)
    worker.step(GO)
    assert worker.queue.load(name).state == "restored"


def test_a_series_that_was_cut_off_waits_longer(
    queue: Queue, worker: Worker, scan: Path, fill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fill(scan)
    worker.options = replace(worker.options, quiet_s=10, cut_off_s=60)
    queue.cut_off(name)
    now = [time.time()]
    monkeypatch.setattr("medddpm.node.queue.time.time", lambda: now[0])
    now[0] += 55
    worker.step(GO)
    assert queue.load(name) is None
    fill(scan)  # its sender goes on: what is there already counts as well
    now[0] += 9
    worker.step(GO)
    assert queue.load(name) is None
    now[0] += 2
    worker.step(GO)
    assert queue.load(name).state == "restored"


def test_a_late_image_makes_it_new(queue: Queue, worker: Worker, scan: Path, fill: Any) -> None:
    last = next(path for path in scan.iterdir() if dcmread(path).InstanceNumber == 8)
    content, header = last.read_bytes(), dcmread(last)
    last.unlink()
    name = fill(scan)
    worker.step(GO)
    first = queue.load(name)
    queue.save(name, replace(first, state="done"))
    queue.add(header.SeriesInstanceUID, header.SOPInstanceUID, content)
    assert queue.counts()["received"] == 1
    worker.step(GO)
    assert queue.load(name).state == "restored"
    assert queue.load(name).images != first.images
    assert len(list(worker.settings.out.rglob("*.dcm"))) == 8


def test_a_damaged_series_fails_alone(
    queue: Queue,
    worker: Worker,
    scan: Path,
    fill: Any,
    tmp_path: Path,
    dicom_series: Callable[..., Path],
) -> None:
    bad = dicom_series(tmp_path / "bad", np.full((16, 16, 8), 9.0), number=2)  # constant
    broken, good = fill(bad), fill(scan)
    worker.step(GO)
    assert (queue.load(broken).state, queue.load(good).state) == ("failed", "restored")
    assert "P-0001" not in queue.load(broken).reason
    assert queue.load(broken).reason


def test_trouble_with_the_disk_fails_no_series_and_is_told(
    queue: Queue,
    worker: Worker,
    scan: Path,
    fill: Any,
    tmp_path: Path,
    dicom_series: Callable[..., Path],
    noisy_phantom: Volume,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = sorted([fill(scan), fill(dicom_series(tmp_path / "b", noisy_phantom.data[:, :, :8]))])
    real = module.do_job

    def full(job: Any, settings: Any) -> Outcome:
        if job.name == names[0]:
            return Outcome(job.name, "stopped", reason="No space left on device")
        return real(job, settings)

    monkeypatch.setattr(module, "do_job", full)
    with pytest.raises(OutputError, match="No space left"):
        worker.step(GO)
    assert [queue.load(name) and queue.load(name).state for name in names] == [None, "restored"]
    monkeypatch.setattr(module, "do_job", real)
    worker.step(GO)
    assert queue.load(names[0]).state == "restored"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(), ""),
        (Rules(description="^T1"), ""),
        (Rules(description="FLAIR"), "description"),
        (Rules(modality=("CT",)), "modality"),
        (Rules(contrast=("T2w",)), "contrast"),
        (Rules(min_images=9), "8 images"),
    ],
)
def test_rules(scan: Path, rules: Rules, expected: str) -> None:
    why = why_left_out(sorted(scan.iterdir()), rules)
    assert expected in why
    assert bool(why) == bool(expected)


def test_what_we_made_is_left_alone(queue: Queue, worker: Worker, restored: str, fill: Any) -> None:
    derived = next(p for p in worker.settings.out.rglob("*") if list(p.glob("*.dcm")))
    name = fill(derived)
    assert name != restored
    worker.step(GO)
    assert queue.load(name).state == "skipped"
    assert "medddpm" in queue.load(name).reason


@pytest.mark.parametrize(("fewest", "expected"), [(2, "restored"), (8, "restored"), (9, "skipped")])
def test_the_frames_of_an_enhanced_object_count_as_images(
    fewest: int,
    expected: str,
    queue: Queue,
    worker: Worker,
    options: NodeOptions,
    fill: Any,
    enhanced_object: Callable[[Path, Any], Path],
    noisy_phantom: Volume,
    tmp_path: Path,
) -> None:
    data = noisy_phantom.data[:, :, 10:18, None]
    name = fill(enhanced_object(tmp_path / "enhanced" / "a.dcm", data).parent)
    worker.options = replace(options, rules=Rules(min_images=fewest))
    worker.step(GO)
    assert queue.load(name).state == expected, queue.load(name)
    made = list(worker.settings.out.rglob("*.dcm"))
    frames = [int(dcmread(path).NumberOfFrames) for path in made]
    assert frames == ([8] if expected == "restored" else [])
