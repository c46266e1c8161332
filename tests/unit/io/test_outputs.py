from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from medddpm.errors import ConfigError, OutputError
from medddpm.io import outputs
from medddpm.volume import Geometry, Volume


def scan(source: str = "sub-1_T1w.nii.gz", format: str = "nifti", case_id: str = "case") -> Volume:
    data = np.zeros((2, 2, 2), np.float32)
    geometry = Geometry((2, 2, 2), np.eye(4))
    return Volume(data, geometry, format=format, source=Path(source), case_id=case_id)  # type: ignore[arg-type]


def names(volumes: list[Volume], output: str | Path, format: str = "nifti") -> list[str]:
    targets = outputs.plan_targets(volumes, Path(output), format=format, label="desc-denoised")  # type: ignore[arg-type]
    return [str(t.image) for t in targets]


def test_a_folder_takes_the_name_of_the_scan() -> None:
    assert names([scan()], "out") == ["out/sub-1_T1w_desc-denoised.nii.gz"]
    assert names([scan("x.mgz", "mgh")], "out") == ["out/x_desc-denoised.nii.gz"]


def test_dicom_names_come_from_the_case_not_from_the_folder() -> None:
    volume = scan("/data/DOE_JOHN", "dicom", "series-12ab")
    assert names([volume], "out") == ["out/series-12ab_desc-denoised.nii.gz"]
    assert names([volume], "out", "dicom") == ["out/series-12ab_desc-denoised"]


def test_equal_names_are_numbered() -> None:
    assert names([scan(), scan()], "out")[1] == "out/sub-1_T1w-2_desc-denoised.nii.gz"


def test_a_file_is_taken_as_it_is() -> None:
    [target] = outputs.plan_targets([scan()], Path("a/b.nii.gz"), format="nifti", label="x")
    assert target.image == Path("a/b.nii.gz")
    assert target.sidecar == Path("a/b.json")
    assert target.part("std") == Path("a/b_std.nii.gz")
    [target] = outputs.plan_targets([scan()], Path("a"), format="dicom", label="x")
    assert target.part("std").suffix == ".dcm"
    assert names([scan()], "b.nii") == ["b.nii"]


def test_an_existing_folder_may_have_a_dot(tmp_path: Path) -> None:
    folder = tmp_path / "v1.0"
    folder.mkdir()
    assert names([scan()], folder)[0].startswith(str(folder))


@pytest.mark.parametrize(
    "name", ["results.v2", "2024.05.01", "1.5T", "out", "v1.0.", "a.nii.gz/", "x.png/", ".hidden"]
)
def test_a_dot_does_not_make_a_file(name: str) -> None:
    assert outputs.names_folder(name)


@pytest.mark.parametrize("name", ["a.nii", "A.NII.GZ", "1.5T.nii.gz"])
def test_an_image_suffix_does(name: str) -> None:
    assert not outputs.names_folder(name)


@pytest.mark.parametrize("name", ["a.nii.g", "a.niigz", "a.nii.gzz", "a.mgz", "a.IMG", "a.json"])
def test_another_suffix_is_a_slip(name: str) -> None:
    with pytest.raises(ConfigError, match="or go into a folder"):
        outputs.names_folder(name)


def test_a_folder_at_the_name_of_an_output_stays(tmp_path: Path) -> None:
    path = tmp_path / "a_desc-denoised.json"
    (path / "thesis").mkdir(parents=True)
    with pytest.raises(OutputError, match="a folder stands at"):
        outputs.check_targets([path], overwrite=True)
    with pytest.raises(OutputError, match="a folder stands at"):
        outputs.check_targets([path], overwrite=True, folders=[path])
    with pytest.raises(OutputError), outputs.staged(tmp_path) as work:
        (work / path.name).write_text("{}")
    assert (path / "thesis").is_dir()


@pytest.mark.parametrize("how", ["same", "dots", "symlink", "hard link", "folder link"])
def test_an_output_is_never_an_input(tmp_path: Path, how: str) -> None:
    source, link = tmp_path / "scan.nii.gz", tmp_path / "link.nii.gz"
    source.write_text("voxels")
    output = {"same": source, "dots": tmp_path / ".." / tmp_path.name / source.name}.get(how, link)
    if how == "symlink":
        link.symlink_to(source)
    elif how == "hard link":
        link.hardlink_to(source)
    elif how == "folder link":
        (tmp_path / "other").symlink_to(tmp_path)
        output = tmp_path / "other" / source.name
    with pytest.raises(OutputError, match="inputs are never replaced"):
        outputs.check_targets([output], overwrite=True, inputs=[source])


@pytest.mark.parametrize("name", ["scan.json", "scan.hdr", "scan.img"])
def test_what_belongs_to_an_input_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / "scan.img").touch()
    (tmp_path / name).touch()
    with pytest.raises(OutputError, match="inputs are never replaced"):
        outputs.check_targets([tmp_path / name], overwrite=True, inputs=[tmp_path / "scan.img"])


def test_two_scans_with_one_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "a.nii.gz", tmp_path / "A.nii.gz"]
    outputs.check_targets(paths, overwrite=False)
    with pytest.raises(OutputError, match="two scans"):
        outputs.check_targets([paths[0], paths[0]], overwrite=False)
    monkeypatch.setattr("medddpm.io.files._ignores_case", lambda folder: True)
    with pytest.raises(OutputError, match="two scans"):
        outputs.check_targets(paths, overwrite=False)


def test_outputs_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match=r"\.nii\.gz"):
        names([scan()], "out.txt")
    with pytest.raises(ConfigError, match="2 scans"):
        names([scan(), scan()], "b.nii.gz")
    with pytest.raises(ConfigError, match="folders"):
        names([scan(format="dicom")], "b.nii.gz", "dicom")


def test_an_existing_output_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.touch()
    with pytest.raises(OutputError, match="--overwrite"):
        outputs.check_targets([path], overwrite=False)
    outputs.check_targets([path], overwrite=True)
    assert list(tmp_path.iterdir()) == [path]


def test_folders_that_cannot_take_a_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        outputs.check_targets([tmp_path / "no" / "such" / "a.nii.gz"], overwrite=False)
    with pytest.raises(OutputError, match="cannot write"):
        outputs.check_targets([Path("/proc/a.nii.gz")], overwrite=False)
    outputs.check_targets([tmp_path / "new" / "a.nii.gz"], overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_staged_outputs_appear_together_and_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "is_derived_series", lambda folder: True)
    out = tmp_path / "out"
    for text in ("old", "new"):
        with outputs.staged(out) as folder:
            (folder / "a.txt").write_text(text)
            (folder / "series").mkdir()
            (folder / "series" / f"{text}.dcm").write_text(text)
            assert text == "new" or list(out.iterdir()) == [folder]
    assert sorted(p.name for p in out.rglob("*")) == ["a.txt", "new.dcm", "series"]
    assert (out / "a.txt").read_text() == "new"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ConfigError("x"), ConfigError),
    ],
)
def test_a_failure_leaves_nothing(
    tmp_path: Path, error: BaseException, raised: type[BaseException]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(raised):
        _write_and_fail(out, error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failure_between_two_moves_undoes_the_first(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(outputs, "is_derived_series", lambda folder: True)
    with outputs.staged(out) as folder:
        _write_both(folder, "old")
    real = outputs.os.rename

    def rename(source: Path, target: Path) -> None:
        if source.name == "report.json" and target.parent == out:
            monkeypatch.setattr(outputs.os, "rename", real)
            raise error
        real(source, target)

    monkeypatch.setattr(outputs.os, "rename", rename)
    with pytest.raises((OutputError, KeyboardInterrupt)), outputs.staged(out) as folder:
        _write_both(folder, "new")
        (folder / "another").write_text("new")
    assert sorted(p.name for p in out.rglob("*")) == ["1.dcm", "report.json", "series"]
    assert (out / "series" / "1.dcm").read_text() == "old"
    assert (out / "report.json").read_text() == "old"


def _write_both(folder: Path, text: str) -> None:
    (folder / "series").mkdir()
    (folder / "series" / "1.dcm").write_text(text)
    (folder / "report.json").write_text(text)


def test_reports_are_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    content = {"a": np.float32(1.5), "b": (np.int64(2), float("nan")), "c": np.eye(2), "d": path}
    outputs.write_json(path, content)
    read = json.loads(path.read_text())
    assert read == {"a": 1.5, "b": [2, None], "c": [[1, 0], [0, 1]], "d": str(path)}


def _write_and_fail(out: Path, error: BaseException) -> None:
    with outputs.staged(out) as folder:
        (folder / "a.txt").write_text("half")
        raise error
