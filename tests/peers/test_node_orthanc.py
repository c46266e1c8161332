"""A scan goes from Orthanc to a node, and its restored series back into the same study."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pynetdicom")

from pydicom import dcmread
from support.node_process import NodeProcess, free_port, half_files, wait_until
from support.validator import errors_in

from medddpm.io import read_volumes
from medddpm.volume import Volume

pytestmark = pytest.mark.peers
log = logging.getLogger(__name__)
Kind = Callable[..., Any]


@pytest.fixture
def scan(tmp_path: Path, dicom_series: Callable[..., Path], noisy_phantom: Volume) -> Path:
    """MEDDDPM_NODE_SCAN: a folder with a real series; else a phantom of 8 images."""
    given = os.environ.get("MEDDDPM_NODE_SCAN")
    return Path(given) if given else dicom_series(tmp_path / "scan", noisy_phantom.data[:, :, :8])


@pytest.fixture
def weights(tiny_weights: Path) -> Path | str:
    """The shipped ones for a real scan."""
    return "default" if os.environ.get("MEDDDPM_NODE_SCAN") else tiny_weights


@pytest.fixture
def pair(
    tmp_path: Path, weights: Any, start_orthanc: Kind, start_node: Kind
) -> Callable[..., tuple[Any, NodeProcess]]:
    """Starts both, each with the address of the other."""

    def start(**rules: Any) -> tuple[Any, NodeProcess]:
        port = free_port()
        orthanc = start_orthanc("MEDDDPM", port)
        node = start_node(
            tmp_path / "node",
            weights,
            f"ORTHANC@127.0.0.1:{orthanc.dicom}",
            allow=["ORTHANC"],
            aet="MEDDDPM",
            port=port,
            **rules,
        )
        return orthanc, node

    return start


def test_a_study_holds_both_series_and_orthanc_commits(
    pair: Any, scan: Path, tmp_path: Path
) -> None:
    orthanc, node = pair()
    orthanc.upload(scan)
    number = len(list(scan.iterdir()))
    (source,) = orthanc.get("series")
    assert orthanc.send(source)["FailedInstancesCount"] == 0
    began = time.monotonic()
    wait_until(lambda: orthanc.get("statistics")["CountInstances"] == 2 * number, 300, node.told)
    log.info("all is back %.1f s after the last image was sent", time.monotonic() - began)
    node.wait_for(done=1)
    assert [r["committed"] for r in node.records().values()] == [True]

    (study,) = orthanc.get("studies")
    both = orthanc.get(f"studies/{study}/series")
    assert sorted(len(one["Instances"]) for one in both) == [number, number]
    assert {one["MainDicomTags"]["Modality"] for one in both} == {"MR"}
    (derived,) = (one["ID"] for one in both if one["ID"] != source)
    check_same_place(scan, orthanc.download(derived, tmp_path / "derived"))

    assert orthanc.send(source)["FailedInstancesCount"] == 0  # twice: nothing is doubled
    time.sleep(2)
    assert orthanc.get("statistics")["CountInstances"] == 2 * number
    assert node.counts() == {**dict.fromkeys(node.counts(), 0), "done": 1}
    assert orthanc.send(derived)["FailedInstancesCount"] == 0  # what we made is not made again
    node.wait_for(done=1, skipped=1)
    assert orthanc.get("statistics")["CountSeries"] == 2
    assert half_files(node.out) == []


def check_same_place(source: Path, derived: Path) -> None:
    """The derived series lies where its source lies, frame of reference included, and is valid."""
    before, after = (
        sorted((dcmread(p) for p in folder.iterdir()), key=lambda d: int(d.InstanceNumber))
        for folder in (source, derived)
    )
    for name in ("FrameOfReferenceUID", "StudyInstanceUID", "PatientID"):
        assert {d[name].value for d in before} == {d[name].value for d in after}
    assert len({d.SOPInstanceUID for d in [*before, *after]}) == len(before) + len(after)
    places = {d.SOPInstanceUID: d.ImagePositionPatient for d in before}
    for image in after:
        its_source = image.SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_allclose(image.ImagePositionPatient, places[its_source], atol=1e-3)
    (theirs,), (ours,) = read_volumes(source), read_volumes(derived)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-3)
    assert ours.data.shape == theirs.data.shape
    assert not np.array_equal(ours.data, theirs.data)
    assert errors_in(derived) <= errors_in(source)


def test_orthanc_is_down_when_it_shall_get_the_series(
    pair: Any, scan: Path, tmp_path: Path
) -> None:
    orthanc, node = pair(retry_s=0.2, max_retry_s=1, quiet_s=5)
    orthanc.upload(scan)
    (source,) = orthanc.get("series")
    orthanc.send(source)
    orthanc.stop()
    wait_until(lambda: any(r["attempts"] > 1 for r in node.records().values()), 200, node.told)
    assert node.counts()["restored"] == 1
    orthanc.start()
    node.wait_for(300, done=1)
    assert [r["committed"] for r in node.records().values()] == [True]
    assert orthanc.get("statistics")["CountInstances"] == 2 * len(list(scan.iterdir()))


def test_an_enhanced_object_and_its_maps_go_round(
    pair: Any, tmp_path: Path, enhanced_object: Callable[[Path, Any], Path], noisy_phantom: Volume
) -> None:
    ensemble = ("--set", "restore.mode=ensemble", "--set", "restore.steps=2")
    orthanc, node = pair(rules={"min_images": 8}, more=ensemble)
    path = enhanced_object(tmp_path / "enhanced" / "a.dcm", noisy_phantom.data[:, :, :8, None])
    orthanc.upload(path.parent)
    (source,) = orthanc.get("series")
    assert orthanc.send(source)["InstancesCount"] == 1
    node.wait_for(200, done=1)
    assert [r["committed"] for r in node.records().values()] == [True]
    (study,) = orthanc.get("studies")
    tags = [orthanc.get(f"instances/{i}/simplified-tags") for i in orthanc.get("instances")]
    assert {t["StudyInstanceUID"] for t in tags} == {
        orthanc.get(f"studies/{study}")["MainDicomTags"]["StudyInstanceUID"]
    }
    assert len({t["FrameOfReferenceUID"] for t in tags}) == 1
    assert len({t["SOPInstanceUID"] for t in tags}) == len(tags) == 5  # and three maps
    assert {t["NumberOfFrames"] for t in tags} == {"8"}
