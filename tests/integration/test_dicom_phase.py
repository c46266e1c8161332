"""Phase is left out of what restores, with a reason, and converted by what converts."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
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
    assert nib.load(done.image).shape == (32, 30, 8)


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


PARTS = [
    ("--phase", np.abs, lambda z: np.floor(np.angle(z) / np.pi * 2048) + 2048, "ND", "P"),
    ("--imaginary", lambda z: z.real + 2048, lambda z: z.imag + 2048, "R", "I"),
]


@pytest.mark.parametrize("where", ["apart", "together"])
@pytest.mark.parametrize(("flag", "first", "second", "one", "two"), PARTS)
def test_both_parts_are_restored_as_one_scan(
    flag: str,
    first: Any,
    second: Any,
    one: str,
    two: str,
    where: str,
    dicom_series: Any,
    phantom: Volume,
    rng: np.random.Generator,
    tmp_path: Path,
    cli: Any,
    tiny_weights: Path,
) -> None:
    """Magnitude with phase; real with imaginary parts, stored with 2048 more."""
    clean = phantom.data[:, :, 10:18]
    turned = clean * np.exp(1j * np.linspace(-2, 2, clean.shape[0]))[:, None, None]
    noise = rng.normal(0, 40, (2, *clean.shape))
    whole = turned + noise[0] + 1j * noise[1]
    names = ("a", "b") if where == "apart" else ("a", "a")
    for name, values, kind in zip(names, (first(whole), second(whole)), (one, two), strict=True):
        made = dicom_series(tmp_path / "made", values, number=3 if kind == two else 2)
        (tmp_path / "in" / name).mkdir(parents=True, exist_ok=True)
        for path in list(made.iterdir()):
            dataset = dcmread(path)
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "M" if kind == "ND" else kind, "ND"]
            if flag == "--imaginary":
                dataset.RescaleIntercept, dataset.RescaleSlope = -2048, 1
            dataset.save_as(tmp_path / "in" / name / path.name)
            path.unlink()
    scan, other = (tmp_path / "in" / name for name in names)
    out = tmp_path / "out.nii.gz"
    done = cli("restore", scan, out, flag, other, "--weights", tiny_weights, "--sigma", "0.04")
    assert done.exit_code in (0, 6), done.stderr
    angle = nib.load(tmp_path / "out_part-phase.nii.gz").get_fdata()
    bright = clean > 500
    gap = np.angle(np.exp(1j * (angle - np.angle(turned))))[bright]
    assert np.sqrt(np.mean(gap**2)) < 0.15
    text = (tmp_path / "out.json").read_text()
    assert str(scan) not in text
    assert json.loads(text)["input"]["phase"]["file"]["file"] == "dicom"
    done = cli("replay", tmp_path / "out.json", "--source", tmp_path / "in")
    assert done.exit_code == 0, done.stderr
    next(other.iterdir()).unlink()
    done = cli("replay", tmp_path / "out.json", "--source", tmp_path / "in")
    assert done.exit_code == 3
    assert "does not hold both series" in done.stderr


def test_one_series_has_no_second_part(magnitude: Path, tmp_path: Path, cli: Any) -> None:
    done = cli("restore", magnitude, tmp_path / "out", "--phase", magnitude)
    assert done.exit_code == 3
    assert "holds no DICOM series that shows the phase" in done.stderr
