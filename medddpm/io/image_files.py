"""Image files by their names: which of them a folder holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from medddpm.io.nifti import suffix_of

_PREAMBLE = 128
"""Bytes before the letters DICM (DICOM PS3.10, section 7.1)."""


def find_images(folder: Path, *, deep: bool = True) -> list[Path]:
    """The NIfTI and MGH files of a folder, sorted; of a pair .img and .hdr its .img alone.

    Hidden files and folders are left out, which are no scans but what macOS and others keep beside
    them. A link whose target is missing is an image, so that whoever reads it names it.

    Args:
        folder: Is searched.
        deep: Search its folders, too.
    """
    found = folder.rglob("*") if deep else folder.iterdir()
    shown = (p for p in found if not any(x.startswith(".") for x in p.relative_to(folder).parts))
    return images_of(p for p in shown if suffix_of(p) and (p.is_file() or _is_dangling(p)))


def images_of(files: Iterable[Path]) -> list[Path]:
    """Files named as NIfTI or MGH, sorted; a .img that is DICOM, as some exports are, is none."""
    listed, beside = list(files), defaultdict[Path, set[str]](set)
    for path in listed:
        beside[path.parent].add(path.name.lower())
    return sorted(p for p in listed if _is_image(p, beside[p.parent]))


def parts_of(image: Path) -> tuple[Path, ...]:
    """The files of an image: one, or the two of a pair."""
    suffix = suffix_of(image)
    stem = image.name[: len(image.name) - len(suffix)]
    ending = image.name[len(stem) :]
    for old, new in ((".img", ".hdr"), (".IMG", ".HDR")):
        header = image.with_name(stem + ending.replace(old, new))
        if old in ending and header.is_file():
            return (image, header)
    return (image,)


def _is_image(path: Path, beside: set[str]) -> bool:
    """Whether a file stands for a scan, among the lower-case names of images in its folder."""
    name, suffix = path.name.lower(), suffix_of(path)
    stem = name.removesuffix(suffix)
    if suffix.startswith(".hdr"):
        return stem + suffix.replace(".hdr", ".img") not in beside
    if suffix.startswith(".img") and stem + suffix.replace(".img", ".hdr") not in beside:
        return not _is_dicom(path)
    return True


def _is_dangling(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(_PREAMBLE)
            return file.read(4) == b"DICM"
    except OSError:
        return False
