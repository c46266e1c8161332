"""Phase is left out of what restores, with a reason, and converted by what converts."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
from pydicom import dcmread

from medddpm.data.ledger import read_ledger
from medddpm.errors import LeftOutWarning, VolumeReadError
from medddpm.restoration.options import RestoreOptions
from medddpm.volume import Volume
from medddpm.workflows.restoring import restore

TYPES = (["P", "ND"], ["R", "ND"], ["I", "ND"], ["PHASE MAP", "P", "FFE"], ["B0 MAP", "B0"])


@pytest.fixture
def magnitude(dicom_series: Any, tmp_path: Path, noisy_phantom: Volume) -> Path:
    return Path(dicom_series(tmp_path / "in" / "magnitude", noisy_phantom.data[:, :, 10:18]))


def phase(dicom_series: Any, folder: Path, like: Path, data: Any, types: list[str]) -> Path:
    """A series of its own; the same one as `like` if that is its folder."""
    uid = dcmread(next(like.iterdir())).SeriesInstanceUID if folder == like else None
    made = dicom_series(folder.parent / "made", data, number=2)
    folder.mkdir(exist_ok=True)
    for path in list(made.iterdir()):
        dataset = dcmread(path)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", *types]
        dataset.SeriesInstanceUID = uid or dataset.SeriesInstanceUID
        dataset.save_as(folder / path.name)
        path.unlink()
    made.rmdir()
    return folder


@pytest.mark.parametrize("types", TYPES, ids=str)
@pytest.mark.parametrize("where", ["own", "same"])
def test_beside_a_magnitude(
    where: str, types: Any, magnitude: Path, dicom_series: Any, tmp_path: Path, tiny_weights: Path
) -> None:
    values = dcmread(next(magnitude.iterdir())).pixel_array
    volume = values.T[..., None].repeat(8, -1)
    folder = magnitude if where == "same" else magnitude.parent / "phase"
    phase(dicom_series, folder, magnitude, volume, types)
    options = RestoreOptions(steps=1)
    with pytest.warns(LeftOutWarning, match="not a magnitude"):
        [done] = restore(
            magnitude.parent, tmp_path / "out", options=options, weights=tiny_weights, device="cpu"
        )
    assert nib.load(done.image).shape == (40, 44, 8)


def test_alone(
    magnitude: Path, dicom_series: Any, tmp_path: Path, cli: Any, tiny_weights: Path
) -> None:
    volume = dcmread(next(magnitude.iterdir())).pixel_array.T[..., None].repeat(8, -1)
    folder = phase(dicom_series, tmp_path / "phase", magnitude, volume, TYPES[0])
    with pytest.raises(VolumeReadError, match="it shows the phase"):
        restore(folder, tmp_path / "out", weights=tiny_weights, device="cpu")
    result = cli("restore", folder, tmp_path / "out", "--weights", tiny_weights)
    assert result.exit_code == 3
    assert "phase" in result.stderr
    assert not (tmp_path / "out").exists()
    assert cli("convert", folder, tmp_path / "out").exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_in_a_cohort_and_in_prepare(
    magnitude: Path, dicom_series: Any, tmp_path: Path, cli: Any, tiny_weights: Path
) -> None:
    volume = dcmread(next(magnitude.iterdir())).pixel_array.T[..., None].repeat(8, -1)
    phase(dicom_series, magnitude, magnitude, volume, TYPES[0])
    out = tmp_path / "out"
    result = cli("cohort", magnitude, out, "--weights", tiny_weights, "--workers", 1)
    assert result.exit_code in (0, 6), result.stderr
    assert "is left out: it shows the phase" in (out / "cohort.csv").read_text()
    assert len(list(out.glob("*.nii.gz"))) == 1
    alone = phase(dicom_series, magnitude.parent / "phase", magnitude, volume, TYPES[0])
    result = cli("cohort", magnitude.parent, out, "--weights", tiny_weights, "--workers", 1)
    assert result.exit_code in (0, 6), result.stderr
    assert "left out, 1 x: it shows the phase" in result.stderr
    shutil.rmtree(alone)
    assert cli("prepare", magnitude, tmp_path / "prepared").exit_code == 0
    [row] = read_ledger(tmp_path / "prepared" / "ledger.csv")
    assert row.code == "not-magnitude"
    assert len((tmp_path / "prepared" / "manifest.csv").read_text().splitlines()) == 2


def test_in_a_node(magnitude: Path, dicom_series: Any, tmp_path: Path, tiny_weights: Path) -> None:
    pytest.importorskip("pynetdicom")
    from medddpm.cohort.run import make_settings
    from medddpm.node.options import NodeOptions
    from medddpm.node.queue import Queue
    from medddpm.node.worker import Worker

    volume = dcmread(next(magnitude.iterdir())).pixel_array.T[..., None].repeat(8, -1)
    folder = phase(dicom_series, tmp_path / "phase", magnitude, volume, TYPES[0])
    phase(dicom_series, magnitude, magnitude, volume, TYPES[1])
    queue = Queue(tmp_path / "node")
    for path in [*folder.iterdir(), *magnitude.iterdir()]:
        header = dcmread(path)
        queue.add(header.SeriesInstanceUID, header.SOPInstanceUID, path.read_bytes())
    out = tmp_path / "node" / "derived"
    settings = make_settings(out, RestoreOptions(), tiny_weights, device="cpu", format="dicom")
    Worker(queue, NodeOptions(quiet_s=0, cut_off_s=0), settings).step(threading.Event())
    records = {record.state: record.reason for _, record in queue.all()}
    assert set(records) == {"restored", "skipped"}
    assert "phase" in records["skipped"]
    assert "it shows the real part" in records["restored"]
    assert len(list(out.rglob("*.dcm"))) == 8


@pytest.mark.parametrize("verb", ["estimate-noise", "simulate"])
def test_phase_has_no_noise_of_a_magnitude(
    verb: str, magnitude: Path, dicom_series: Any, tmp_path: Path, cli: Any
) -> None:
    values = dcmread(next(magnitude.iterdir())).pixel_array.T[..., None].repeat(8, -1)
    folder = phase(dicom_series, tmp_path / "phase", magnitude, values, ["P", "ND"])
    more = (tmp_path / "out.nii.gz", "--sigma", 0.05) if verb == "simulate" else ()
    done = cli(verb, folder, *more)
    assert done.exit_code == 3
    assert "it shows the phase" in done.stderr
    assert not (tmp_path / "out.nii.gz").exists()
