from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medddpm.cohort.sources import find_jobs
from medddpm.errors import ConfigError, OutputError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_of_nifti(tmp_path: Path) -> None:
    source = tmp_path / "in"
    names = ("b.nii.gz", "x/a.nii", "x/a.nii.gz", "c.mgz", ".hidden/d.nii", "e.txt")
    touch(*(source / n for n in names), source / "b_desc-denoised.nii.gz")
    jobs = find_jobs(source, tmp_path / "out").jobs
    assert [(j.name, j.folder, j.stem) for j in jobs] == [
        ("b", "", "b_desc-denoised"),
        ("c", "", "c_desc-denoised"),
        ("x/a.nii", "x", "a.nii_desc-denoised"),
        ("x/a.nii.gz", "x", "a.nii.gz_desc-denoised"),
    ]
    assert len({job.key for job in jobs}) == 4


def test_a_bids_data_set(tmp_path: Path) -> None:
    touch(
        tmp_path / "dataset_description.json",
        tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz",
        tmp_path / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_run-1_T2w.nii.gz",
        tmp_path / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_part-phase_T2starw.nii.gz",
        tmp_path / "sub-02" / "ses-a" / "func" / "sub-02_ses-a_task-rest_bold.nii.gz",
        tmp_path / "derivatives" / "x" / "sub-01" / "anat" / "sub-01_T1w.nii.gz",
    )
    jobs = find_jobs(tmp_path, tmp_path / "derivatives" / "medddpm").jobs
    assert [(j.folder, j.stem) for j in jobs] == [
        ("sub-01/anat", "sub-01_desc-denoised_T1w"),
        ("sub-02/ses-a/anat", "sub-02_ses-a_run-1_desc-denoised_T2w"),
    ]


def test_a_bids_scan_that_is_there_twice(tmp_path: Path) -> None:
    touch(tmp_path / "dataset_description.json")
    touch(*(tmp_path / "sub-01" / "anat" / f"sub-01_T1w{s}" for s in (".nii", ".nii.gz")))
    with pytest.raises(ConfigError, match="one name for two files"):
        find_jobs(tmp_path, tmp_path / "derivatives")


def test_a_derivative_is_not_written_among_raw_data(tmp_path: Path) -> None:
    touch(tmp_path / "dataset_description.json", tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii")
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link", tmp_path / "sub-01" / ".."):
        with pytest.raises(ConfigError, match="the raw data set itself"):
            find_jobs(tmp_path, out)


def test_pairs_of_files(tmp_path: Path) -> None:
    source = tmp_path / "in"
    touch(*(source / n for n in ("a.img", "a.hdr", "B.IMG", "B.HDR", "c.img.gz", "c.hdr.gz")))
    jobs = find_jobs(source, tmp_path / "out").jobs
    assert [[p.name for p in job.files] for job in jobs] == [
        ["B.IMG", "B.HDR"],
        ["a.img", "a.hdr"],
        ["c.img.gz", "c.hdr.gz"],
    ]
    (tmp_path / "m.csv").write_text("file\nin/a.img\nin/B.HDR\n")
    jobs = find_jobs(tmp_path / "m.csv", tmp_path / "out").jobs
    assert [len(job.files) for job in jobs] == [1, 2]


@pytest.mark.parametrize(
    "names", [("x", "./x"), ("x/y", "x//y"), ("x", "x/."), ("x/y", "x/./y"), ("y", "y/")]
)
def test_names_that_meet(names: tuple[str, str], tmp_path: Path) -> None:
    lines = "".join(f"{name};s{number}.nii\n" for number, name in enumerate(names))
    (tmp_path / "m.csv").write_text(f"scan;file\n{lines}")
    with pytest.raises(ConfigError, match="both be written"):
        find_jobs(tmp_path / "m.csv", tmp_path / "out")


@pytest.mark.parametrize(
    "pair", [("Scan", "scan"), ("stra\u00dfe", "STRASSE"), ("\u00e9", "e\u0301")]
)
def test_names_that_meet_where_case_is_ignored(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(*(tmp_path / "in" / f"{name}.nii.gz" for name in pair))
    assert len(find_jobs(tmp_path / "in", tmp_path / "out").jobs) == 2
    monkeypatch.setattr("medddpm.io.files._ignores_case", lambda folder: True)
    with pytest.raises(ConfigError, match="both be written"):
        find_jobs(tmp_path / "in", tmp_path / "out")


def test_a_kept_suffix_that_meets_a_name(tmp_path: Path) -> None:
    touch(*(tmp_path / "in" / name for name in ("x.nii", "x.nii.gz", "x.nii.nii")))
    with pytest.raises(ConfigError, match="both be written"):
        find_jobs(tmp_path / "in", tmp_path / "out")


def test_a_list_never_leads_to_its_own_inputs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    touch(out / "x_desc-denoised.nii.gz")
    (tmp_path / "m.csv").write_text("scan,file\nx,out/x_desc-denoised.nii.gz\n")
    with pytest.raises(OutputError, match="inputs are never replaced"):
        find_jobs(tmp_path / "m.csv", out)
    (out / "cohort.csv").write_text("file\na.nii\n")
    with pytest.raises(OutputError, match="inputs are never replaced"):
        find_jobs(out / "cohort.csv", out)


def test_a_dicom_tree_names_no_patient(tmp_path: Path, head: Any, dicom_series: Any) -> None:
    source = tmp_path / "Private^Person"
    for number in (1, 2):
        dicom_series(source / f"P-0001-{number}", head((16, 16, 4)), number=number)
    bad = dicom_series(source / "P-0001-3", head((16, 16, 4)), number=3)
    first = sorted(bad.iterdir())[0]
    first.write_bytes(first.read_bytes()[:200])
    found = find_jobs(source, tmp_path / "out")
    assert [len(job.files) for job in found.jobs] == [4, 4]
    assert len(found.broken) == 2  # the file, and the series that may lack it
    said = repr([j.name for j in found.jobs]) + repr(found.broken)
    assert "P-0001" not in said
    assert "Private" not in said


def test_a_manifest(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "one.nii.gz")
    manifest = tmp_path / "m.csv"
    manifest.write_text("scan,file\nsub-1/x,a/one.nii.gz\nleft-out,\n")
    [job] = find_jobs(manifest, tmp_path / "out").jobs
    assert (job.name, job.folder, job.stem) == ("sub-1/x", "sub-1", "x_desc-denoised")
    assert job.files == (tmp_path / "a" / "one.nii.gz",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scan\nx\n", "no column file"),
        ("scan,file\nx,a.nii\nx,b.nii\n", "two scans"),
        ("scan,file\n../x,a.nii\n", "cannot name"),
        ("file\n", "holds no"),
    ],
)
def test_a_bad_manifest(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ConfigError, match=said):
        find_jobs(tmp_path / "m.csv", tmp_path / "out")


def test_bad_sources(tmp_path: Path, save_nifti: Any) -> None:
    with pytest.raises(ConfigError, match="neither a folder"):
        find_jobs(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no"):
        find_jobs(tmp_path / "empty", tmp_path / "out")
    save_nifti(tmp_path / "a.nii", np.ones((4, 4, 4), np.float32), np.eye(4))
    with pytest.raises(ConfigError, match="lies in"):
        find_jobs(tmp_path, tmp_path / "out")


def test_dicom_beside_nifti(tmp_path: Path, dicom_series: Any, phantom: Any) -> None:
    """Both are done; content that was not fetched is told as that, once a folder."""
    source = tmp_path / "in"
    touch(source / "a.nii.gz")
    (source / "b.nii.gz").symlink_to(".git/annex/objects/b")
    dicom_series(source / "dicom" / "good", phantom.data[:, :, :4])
    (source / "dicom" / "gone").mkdir()
    for number in range(3):
        (source / "dicom" / "gone" / f"{number}.dcm").symlink_to(".git/annex/objects/c")
    found = find_jobs(source, tmp_path / "out")
    assert [len(job.files) for job in found.jobs if not job.stem] == [4]
    assert sorted(job.name for job in found.jobs if job.stem) == ["a", "b"]
    [reason] = found.broken.values()
    assert "was not fetched" in reason
    assert "gone" not in reason


def test_a_list_that_names_folders(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a.nii.gz", tmp_path / "in" / "b.nii.gz")
    (tmp_path / "empty").mkdir()
    for folder, words in (("in", "line 2 names a folder of NIfTI"), ("empty", "without files")):
        (tmp_path / "m.csv").write_text(f"scan;file\nx;{folder}\n")
        with pytest.raises(ConfigError, match=words):
            find_jobs(tmp_path / "m.csv", tmp_path / "out")
