"""What people give as input and output, from the command line: folders, lists, links."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medddpm.cohort.pool import Pool, opened
from medddpm.volume import Volume

Cli = Callable[..., Any]
WRITTEN = (0, 6)


@pytest.fixture
def scans(tmp_path: Path, noisy_phantom: Volume, save_nifti: Any) -> Path:
    """A folder of two scans, one of them a pair of files, and one that is none."""
    folder = tmp_path / "scans"
    folder.mkdir()
    save_nifti(folder / "a.nii.gz", noisy_phantom.data, noisy_phantom.affine)
    nib.save(nib.nifti1.Nifti1Pair(noisy_phantom.data, noisy_phantom.affine), folder / "b.img")
    (folder / "c.nii.gz").write_text("no scan")
    (folder / "._a.nii.gz").write_text("of macOS")
    return folder


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_of_nifti(cli: Cli, scans: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.v2"
    done = cli("restore", scans, f"{out}/", "--weights", tiny_weights)
    assert done.exit_code == 3
    assert "c.nii.gz" in done.stderr
    assert "2 done, 1 left out" in done.stderr
    assert "a folder of 3 NIfTI files" in done.stderr
    names = [f"{n}_desc-denoised{s}" for n in "ab" for s in (".json", ".nii.gz")]
    assert listing(out) == names
    a, b = (nib.load(out / f"{n}_desc-denoised.nii.gz").get_fdata() for n in "ab")
    assert a.shape == b.shape
    (scans / "c.nii.gz").unlink()
    assert cli("convert", scans, tmp_path / "1.5T").exit_code == 0
    assert listing(tmp_path / "1.5T") == ["a_converted.nii.gz", "b_converted.nii.gz"]
    done = cli("estimate-noise", scans)
    assert done.exit_code == 0
    assert done.stdout.count("in scan units, ") == 2


def test_a_folder_of_nifti_with_two_of_one_name(
    cli: Cli, scans: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    (scans / "a.nii").write_bytes((scans / "b.img").read_bytes())
    done = cli("restore", scans, tmp_path / "out", "--weights", tiny_weights)
    assert done.exit_code == 5
    assert "two scans would both be written" in done.stderr
    assert not (tmp_path / "out").exists()
    done = cli("restore", scans, scans, "--weights", tiny_weights)
    assert done.exit_code == 2
    assert "also the folder of the scans" in done.stderr
    done = cli("restore", scans, tmp_path / "one.nii.gz", "--weights", tiny_weights)
    assert done.exit_code == 2


def test_nifti_and_dicom_in_one_folder(
    cli: Cli, scans: Path, dicom_series: Any, noisy_phantom: Volume, tmp_path: Path
) -> None:
    (scans / "c.nii.gz").unlink()
    dicom_series(scans, noisy_phantom.data)
    done = cli("convert", scans, tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert len(listing(tmp_path / "out")) == 3


def test_nifti_deeper_down_is_for_cohort(cli: Cli, scans: Path, tmp_path: Path) -> None:
    done = cli("convert", scans.parent, tmp_path / "out")
    assert done.exit_code == 3
    assert "medddpm cohort" in done.stderr


@pytest.mark.parametrize("link", ["", "symlink", "hard link"])
@pytest.mark.parametrize(
    "words",
    [
        ("restore", "I", "O", "--overwrite"),
        ("convert", "I", "O", "--overwrite"),
        ("simulate", "I", "O", "--sigma", "0.05", "--overwrite"),
        ("simulate", "C", "O", "--sigma", "0.05", "--noise", "white", "--gmap", "I", "--overwrite"),
        ("estimate-noise", "I", "--map", "O", "--overwrite"),
    ],
)
def test_an_input_is_never_replaced(
    words: tuple[str, ...], link: str, cli: Cli, noisy_nifti: Path, clean_nifti: Path
) -> None:
    before = noisy_nifti.read_bytes()
    output = noisy_nifti
    if link:
        output = noisy_nifti.with_name("link.nii.gz")
        (output.symlink_to if link == "symlink" else output.hardlink_to)(noisy_nifti)
    put = {"I": noisy_nifti, "O": output, "C": clean_nifti}
    done = cli(*(put.get(word, word) for word in words))
    assert done.exit_code == 5, done.stderr
    assert "inputs are never replaced" in done.stderr
    assert noisy_nifti.read_bytes() == before
    assert output.exists()


def test_the_sidecar_of_an_input_stays(cli: Cli, noisy_nifti: Path, tiny_weights: Path) -> None:
    """A BIDS sidecar; the report of a restoration into the same folder would have its name."""
    sidecar = noisy_nifti.with_name("noisy.json")
    sidecar.write_text('{"EchoTime": 0.003}')
    output = noisy_nifti.with_name("noisy.nii")
    done = cli("restore", noisy_nifti, output, "--overwrite", "--weights", tiny_weights)
    assert done.exit_code == 5
    assert json.loads(sidecar.read_text()) == {"EchoTime": 0.003}
    assert not output.exists()


@pytest.mark.parametrize("name", ["out.json", "out.html", "out_std.nii.gz"])
def test_no_folder_is_replaced(
    name: str, cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    (tmp_path / name / "thesis").mkdir(parents=True)
    words = ("--weights", tiny_weights, "--mode", "ensemble", "--samples", 2, "--steps", 1)
    output = tmp_path / "out.nii.gz"
    done = cli("restore", noisy_nifti, output, "--overwrite", "--report", *words)
    assert done.exit_code == 5
    assert "replaces no folder" in done.stderr
    assert (tmp_path / name / "thesis").is_dir()
    assert not output.exists()


def test_a_folder_with_other_things_is_no_series_of_ours(
    cli: Cli, dicom_series: Any, noisy_phantom: Volume, tmp_path: Path
) -> None:
    source = dicom_series(tmp_path / "in", noisy_phantom.data)
    words = ("convert", source, tmp_path / "out", "--format", "dicom")
    assert cli(*words).exit_code == 0
    [series] = (tmp_path / "out").iterdir()
    assert cli(*words).exit_code == 5
    assert cli(*words, "--overwrite").exit_code == 0
    (series / "notes.txt").write_text("mine")
    done = cli(*words, "--overwrite")
    assert done.exit_code == 5
    assert (series / "notes.txt").read_text() == "mine"
    (series / "notes.txt").unlink()
    for path in series.iterdir():  # somebody's images that happen to be called as ours
        path.write_bytes(sorted(source.iterdir())[0].read_bytes())
    assert cli(*words, "--overwrite").exit_code == 5


def test_a_folder_wins_over_the_result_of_its_name(
    cli: Cli, scans: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    words = ("--weights", tiny_weights)
    assert cli("restore", scans / "a.nii.gz", tmp_path / "r.nii.gz", *words).exit_code in WRITTEN
    assert cli("restore", scans / "b.img", tmp_path / "r/", *words).exit_code in WRITTEN
    done = cli("report", tmp_path / "r")
    assert done.exit_code == 0, done.stderr
    assert listing(tmp_path / "r") == [
        "b_desc-denoised.html",
        "b_desc-denoised.json",
        "b_desc-denoised.nii.gz",
    ]
    assert not (tmp_path / "r.html").exists()
    assert cli("report", tmp_path / "r.nii.gz").exit_code == 0
    assert (tmp_path / "r.html").exists()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.json").write_bytes((tmp_path / "r.json").read_bytes())
    (tmp_path / "empty.nii.gz").write_bytes((tmp_path / "r.nii.gz").read_bytes())
    assert cli("report", tmp_path / "empty").exit_code == 2


def test_a_blank_frame_is_named(
    cli: Cli, noisy_phantom: Volume, save_nifti: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    film = np.stack([noisy_phantom.data * 0, noisy_phantom.data], -1)
    source = save_nifti(tmp_path / "film.nii.gz", film, noisy_phantom.affine)
    done = cli("restore", source, tmp_path / "out/", "--report", "--weights", tiny_weights)
    assert done.exit_code in WRITTEN, done.stderr
    assert "blank and passed through: frame 0" in done.stderr
    facts = json.loads((tmp_path / "out" / "film_desc-denoised.json").read_text())
    assert [frame.get("blank", False) for frame in facts["frames"]] == [True, False]
    assert "film frame 0: no noise to be seen" in cli("estimate-noise", source).stdout
    done = cli("report", tmp_path / "out", "--frame", 0, "--out", tmp_path / "x/")
    assert "frame 0" in done.stderr


def test_nobody_else_has_workers_run_code(tmp_path: Path) -> None:
    """The scheduler of a run on this machine listens on its loopback alone, and asks for keys."""
    distributed = pytest.importorskip("distributed")
    security = pytest.importorskip("distributed.security").Security
    with opened(Pool("local", 1, 1, 2.0), tmp_path) as client:
        address = client.cluster.scheduler_address
        assert address.startswith("tls://127.0.0.1:")
        client.wait_for_workers(1)
        assert next(iter(client.scheduler_info()["workers"])).startswith("tls://127.0.0.1:")
        assert client.submit(sum, [1, 2]).result() == 3
        for place, keys in (
            (address.replace("tls", "tcp"), None),
            (address, security.temporary()),  # keys of somebody else
        ):
            with pytest.raises((OSError, AssertionError)):
                distributed.Client(place, security=keys, timeout=2)
