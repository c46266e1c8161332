"""Every shipped pipeline runs from its name, as a person would run it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medddpm.share import share_dir
from medddpm.volume import Volume

Cli = Callable[..., Any]


def run(cli: Cli, name: str, *arguments: object) -> Any:
    return cli("pipelines", "run", name, "--", *arguments)


def test_restore_nifti(cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noisy_nifti.rename(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "in" / "b.nii.gz").write_text("no scan")
    out = tmp_path / "out"
    done = run(cli, "restore_nifti", tmp_path / "in", out, "--weights", tiny_weights)
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    assert [row["result"] for row in rows] == ["a_desc-denoised.nii.gz", "failed"]


def test_restore_dicom(
    cli: Cli, noisy_phantom: Volume, dicom_series: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    dicom_series(tmp_path / "in", noisy_phantom.data)
    out = tmp_path / "out"
    done = run(cli, "restore_dicom", tmp_path / "in", out, "--weights", tiny_weights)
    assert done.exit_code == 0, done.stderr
    assert len(list(out.rglob("*.dcm"))) == 26


def test_evaluate(cli: Cli, clean_nifti: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    clean_nifti.rename(tmp_path / "in" / "a.nii.gz")
    options = ("--sigma", 0.05, "--weights", tiny_weights)
    done = run(cli, "evaluate", tmp_path / "in", tmp_path / "out", *options)
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == ["noisy", "restored"]


def test_train_on_nifti(
    cli: Cli, head: Any, save_nifti: Any, noisy_nifti: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for number in (1, 3):
        path = tmp_path / "in" / f"sub-0{number}_T1w.nii.gz"
        save_nifti(path, head((36 + number, 36, 34)), np.eye(4))
    few = [w for s in ("autoencoder", "diffusion", "fidelity") for w in ("--set", f"{s}.steps=2")]
    options = ("--config", "tiny_cpu", *few, "--try", noisy_nifti)
    done = run(cli, "train_on_nifti", tmp_path / "in", tmp_path / "run", *options)
    assert done.exit_code == 0, done.stderr
    assert list((tmp_path / "run" / "restored").glob("*.nii.gz"))


def test_scaling(cli: Cli, tiny_weights: Path, tmp_path: Path) -> None:
    options = ("--sizes", 40, 48, "--weights", tiny_weights)
    done = run(cli, "scaling", tmp_path / "out", *options)
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "out" / "scaling.csv").read_text().splitlines()))
    assert [int(row["size"]) for row in rows] == [40, 48]
    assert all(0 < float(row["peak_gb"]) < 3 for row in rows)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["scaling.csv", "scaling.png"]


def test_gallery(cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """One row of five panels a scan; without a scan the example is drawn."""
    from PIL import Image

    options = ("--box", 32, "--weights", tiny_weights)
    sizes = []
    for scans in ([noisy_nifti, noisy_nifti], []):
        done = run(cli, "gallery", tmp_path / "gallery.png", *scans, *options)
        assert done.exit_code == 0, done.stderr
        with Image.open(tmp_path / "gallery.png") as picture:
            sizes.append(picture.size)
    assert sizes == [(1125, 522), (1125, 274)]


def test_tell_apart(cli: Cli, head: Any, save_nifti: Any, tmp_path: Path) -> None:
    """Every head has a column and an answer; a real one is put on the grid of the drawn ones."""
    from PIL import Image

    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    for number in range(3):
        save_nifti(tmp_path / f"{number}.nii.gz", head((24, 28, 24)), affine)
    drawn, real = [tmp_path / "0.nii.gz", tmp_path / "1.nii.gz"], tmp_path / "2.nii.gz"
    done = run(cli, "tell_apart", tmp_path / "a.png", "--drawn", *drawn, "--real", real)
    assert done.exit_code == 0, done.stderr
    lines = [line.split(": ") for line in done.stdout.strip().splitlines()]
    assert [number for number, _ in lines] == ["1", "2", "3"]
    assert sorted(kind for _, kind in lines) == ["drawn", "drawn", "real"]
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 513
    save_nifti(drawn[1], head((20, 28, 24)), affine)
    done = run(cli, "tell_apart", tmp_path / "a.png", "--drawn", *drawn, "--real", real)
    assert done.exit_code == 2
    assert "several grids" in done.stderr


def test_cohort_overheads(cli: Cli, tmp_path: Path, tiny_weights: Path) -> None:
    pytest.importorskip("distributed")
    options = ("--scans", 4, "--workers", 1, "--weights", tiny_weights)
    done = run(cli, "cohort_overheads", tmp_path, *options)
    assert done.exit_code == 0, done.stderr
    rows = [line.rsplit(maxsplit=2) for line in done.stdout.splitlines()[1:]]
    assert rows[-1][0].strip() == "dask, 1 workers"
    assert len(rows) == 5
    assert all(0 <= float(number) < 60_000 for row in rows for number in row[1:])
    assert list(tmp_path.iterdir()) == []


def test_every_pipeline_has_a_test_and_is_short() -> None:
    paths = sorted((share_dir() / "pipelines").glob("*.py"))
    text = Path(__file__).read_text(encoding="utf-8")
    for path in paths:
        assert f'run(cli, "{path.stem}"' in text
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 80


@pytest.mark.parametrize("name", ["nothing", "../tests/conftest"])
def test_an_unknown_pipeline(cli: Cli, name: str) -> None:
    done = cli("pipelines", "run", name)
    assert done.exit_code == 2
    assert "restore_nifti" in done.stderr
