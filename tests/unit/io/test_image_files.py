from __future__ import annotations

from pathlib import Path

from medddpm.io import find_images


def names(folder: Path, *, deep: bool = True) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder, deep=deep)]


def make(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 200)


def test_every_kind_of_image_once(tmp_path: Path) -> None:
    make(tmp_path, "a.nii", "B.NII.GZ", "c.mgz", "d.mgh", "sub/e.img", "sub/e.hdr")
    make(tmp_path, "f.img.gz", "f.hdr.gz", "G.IMG", "G.HDR", "readme.txt", "scan.json")
    wanted = ["B.NII.GZ", "G.IMG", "a.nii", "c.mgz", "d.mgh", "f.img.gz", "sub/e.img"]
    assert names(tmp_path) == wanted
    assert names(tmp_path, deep=False) == wanted[:-1]


def test_half_a_pair_is_named_and_dicom_called_img_is_none(tmp_path: Path) -> None:
    make(tmp_path, "lone.hdr", "raw.img")
    (tmp_path / "IMG0001.img").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)
    assert names(tmp_path) == ["lone.hdr", "raw.img"]


def test_hidden_files_are_none_and_a_link_to_nothing_is_one(tmp_path: Path) -> None:
    make(tmp_path, "a.nii", "._a.nii", ".git/b.nii", "x/.c/d.nii.gz")
    (tmp_path / "gone.nii.gz").symlink_to(tmp_path / "annex" / "object")
    (tmp_path / "folder.nii").mkdir()
    assert names(tmp_path) == ["a.nii", "gone.nii.gz"]
