"""No value of a header in what any door prints or logs, whatever the header holds."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from support.dicom_fuzz import set_raw

MARKER = "Zq7Xw"
TEXT = (
    "AE",
    "AS",
    "CS",
    "DA",
    "DS",
    "DT",
    "IS",
    "LO",
    "LT",
    "PN",
    "SH",
    "ST",
    "TM",
    "UC",
    "UI",
    "UT",
)
KEPT = {
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SpecificCharacterSet",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "PhotometricInterpretation",
    "Modality",
}
NUMBERS = (
    "SeriesNumber",
    "InstanceNumber",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "EchoTime",
    "RepetitionTime",
    "RescaleSlope",
    "RescaleIntercept",
)
Said = list[str]


def mark(dataset: Dataset, spared: set[str]) -> None:
    """The marker in every text attribute of the standard, but for those that are spared."""
    for tag in sorted(DicomDictionary):
        keyword = keyword_for_tag(tag)
        group = tag >> 16
        if keyword in KEPT | spared or group not in (
            0x0008,
            0x0010,
            0x0018,
            0x0020,
            0x0028,
            0x0040,
        ):
            continue
        if dictionary_VR(tag) in TEXT:
            set_raw(dataset, keyword, MARKER.encode())
    dataset.add_new((0x0009, 0x0010), "LO", MARKER)
    dataset.add_new((0x0009, 0x1001), "LO", MARKER)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory, dicom_series: Any, head: Any) -> Path:
    """Four series: one is sound, the others have no numbers, no modality, a palette."""
    top, shape = tmp_path_factory.mktemp("marked"), (32, 30, 8)
    real, imaginary = np.random.default_rng(20).normal(0, 50, (2, *shape))
    noisy = np.hypot(head((32, 30, 26))[:, :, 10:18] + real, imaginary)
    sound: set[str] = set(NUMBERS)
    spared = [sound, set[str](), sound, sound]
    for number, keep in enumerate(spared):
        folder = dicom_series(top / "in" / f"{number}", noisy + number)
        for path in folder.iterdir():
            dataset = dcmread(path)
            mark(dataset, keep | {"NumberOfFrames", "PixelAspectRatio"})
            if number == 2:
                set_raw(dataset, "Modality", MARKER.encode())
            if number == 3:
                set_raw(dataset, "PhotometricInterpretation", b"PALETTE COLOR")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset.save_as(path)
    return top / "in"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Said]:
    """What is logged, or warned of in any thread, while the test runs."""
    words: Said = []
    show = warnings.showwarning
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.resetwarnings()
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=r"pydicom(\..*)?$")  # as the command does
        warnings.showwarning = lambda message, *_, **__: words.append(str(message))
        yield words
        words += [record.getMessage() for record in caplog.records]
        warnings.showwarning = show


def check(*texts: str) -> None:
    for text in texts:
        assert not re.search(MARKER, text, re.IGNORECASE), text


@pytest.mark.parametrize(
    "verb", ["restore", "convert", "info", "estimate-noise", "prepare", "cohort"]
)
def test_no_value_of_a_header_is_said(
    verb: str, marked: Path, tmp_path: Path, cli: Any, tiny_weights: Path, said: Said, caplog: Any
) -> None:
    out = tmp_path / "out"
    words = {
        "restore": [marked, out, "--weights", tiny_weights, "--steps", 1],
        "convert": [marked, out],
        "info": [marked],
        "estimate-noise": [marked],
        "prepare": [marked, out],
        "cohort": [marked, out, "--weights", tiny_weights, "--workers", 1],
    }[verb]
    result = cli(verb, *words)
    assert result.exit_code in (0, 3, 6, 7), result.stderr
    assert "a bug" not in result.stderr
    check(result.stdout, result.stderr, *said, *(r.getMessage() for r in caplog.records))
    if verb in ("restore", "convert"):
        assert len(list(out.glob("*.nii.gz"))) == 1
        assert "left out" in result.stderr
    for path in out.rglob("*.csv") if verb == "cohort" else out.glob("ledger.csv"):
        check(path.read_text())


def test_no_value_of_a_header_is_said_by_a_node(
    marked: Path, tmp_path: Path, tiny_weights: Path, said: Said, caplog: Any
) -> None:
    """In a thread of its own, as there."""
    pytest.importorskip("pynetdicom")
    from medddpm.cohort.run import make_settings
    from medddpm.node.options import NodeOptions, Rules
    from medddpm.node.queue import Queue
    from medddpm.node.receiver import _uids_of
    from medddpm.node.worker import Worker
    from medddpm.restoration.options import RestoreOptions

    queue = Queue(tmp_path / "node")
    for path in sorted(marked.rglob("*.dcm")):
        uids = _uids_of(path.read_bytes())
        assert uids is not None
        queue.add(uids[2], uids[1], path.read_bytes())
    settings = make_settings(
        tmp_path / "node" / "derived", RestoreOptions(), tiny_weights, device="cpu", format="dicom"
    )
    options = NodeOptions(quiet_s=0, cut_off_s=0, rules=Rules(modality=("MR",)))
    worker = Worker(queue, options, settings)
    thread = threading.Thread(target=worker.step, args=(threading.Event(),))
    thread.start()
    thread.join()
    records = [record for _, record in queue.all()]
    states = sorted(record.state for record in records)
    assert states == ["failed", "failed", "restored", "skipped"], records
    check(*said, *(r.getMessage() for r in caplog.records), *(r.reason for r in records))


@pytest.mark.parametrize(
    ("keyword", "value"), [("PatientBirthDate", b"1931-12-31"), ("PatientAge", b"95 Y")]
)
def test_what_pydicom_would_warn_of(
    keyword: str, value: bytes, dicom_series: Any, tmp_path: Path, cli: Any, said: Said, caplog: Any
) -> None:
    folder = dicom_series(tmp_path / "in", np.random.default_rng(0).integers(1, 99, (8, 8, 4)))
    for path in folder.iterdir():
        dataset = dcmread(path)
        set_raw(dataset, keyword, value)
        dataset.save_as(path)
    for number, format in enumerate(("nifti", "dicom")):
        result = cli("convert", folder, tmp_path / str(number), "--format", format)
        assert result.exit_code == 0, result.stderr
        told = [result.stdout, result.stderr, *said, *(r.getMessage() for r in caplog.records)]
        assert not any(value.decode() in text for text in told)
