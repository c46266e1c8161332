"""DICOM series to volumes: classic, enhanced multi-frame and Siemens mosaic."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from medddpm.errors import DicomSeriesError, VolumeReadError
from medddpm.io.dicom_geometry import SAME_PLACE_MM, Slice, Stack, stack
from medddpm.io.dicom_slices import by_kind, read_pixels, slice_pixels, slices_of
from medddpm.io.files import check_intensities
from medddpm.volume import Geometry, Volume

Files = list[tuple[Path, Dataset]]


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings about values that break the standard.

    They are frequent, they do not change what is read here, and they quote the values, which
    may name a patient.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pydicom(\..*)?$")
        yield


def read_dicom(path: str | Path, *, force: bool = False) -> list[Volume]:
    """Read the series of a DICOM file, or all series in a folder and the folders in it.

    Array axes are (column index, row index, slice), slices in the direction of the normal;
    repeats of a stack make a fourth axis in time order. A series with several echoes, or
    magnitude and phase, gives a volume each.

    Args:
        path: A file or a folder.
        force: Take other modalities than MR.

    Returns:
        One volume a scan, by series number. `native` holds the headers without pixels, in
        slice order, time slowest: one a slice, or one an enhanced object or mosaic.

    Raises:
        VolumeReadError: No DICOM image there.
        DicomSeriesError: Missing, duplicated, unequally spaced or mixed slices, no geometry,
            no pixels, not MR.
    """
    path = Path(path)
    with quiet_pydicom():
        series = _files_by_series(path)
        volumes: list[Volume] = []
        for files in series:
            volumes += _read_series(files, path, force=force)
    return volumes


def series_tag(dataset: Dataset) -> str:
    """Twelve hexadecimal digits that stand for a series and tell nothing of the patient."""
    uid = str(dataset.get("SeriesInstanceUID") or "")
    return hashlib.sha256(uid.encode()).hexdigest()[:12]


def _files_by_series(path: Path) -> list[Files]:
    if path.is_file():
        wanted = _header(path)
        if wanted is None:
            raise VolumeReadError(f"{path} is neither a DICOM nor a NIfTI or MGH file")
        if "Rows" not in wanted:
            raise VolumeReadError(f"{path} is DICOM ({wanted.get('Modality')}) and no image")
        found = _headers(p for p in sorted(path.parent.iterdir()) if p.is_file())
        uid = wanted.get("SeriesInstanceUID")
        if uid is None or int(wanted.get("NumberOfFrames") or 1) > 1:
            return [[(path, wanted)]]
        return [[(p, d) for p, d in found if d.get("SeriesInstanceUID") == uid]]
    found = _headers(p for p in sorted(path.rglob("*")) if p.is_file())
    series: dict[str, Files] = {}
    for item in found:
        if "Rows" in item[1]:
            series.setdefault(str(item[1].get("SeriesInstanceUID")), []).append(item)
    if not series:
        raise VolumeReadError(f"{path} holds no DICOM image")
    return sorted(series.values(), key=lambda files: int(files[0][1].get("SeriesNumber") or 0))


def _headers(paths: Iterable[Path]) -> Files:
    headers = ((p, _header(p)) for p in paths if p.name != "DICOMDIR")
    return [(path, header) for path, header in headers if header is not None]


def _header(path: Path) -> Dataset | None:
    """The data set without pixels, or None if the file is not DICOM."""
    try:
        return dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, EOFError):
        return None
    except OSError as error:
        raise VolumeReadError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged header makes pydicom raise anything
        raise DicomSeriesError(
            f"{path} is DICOM but damaged ({type(error).__name__}); export it again"
        ) from error


def _read_series(files: Files, source: Path, *, force: bool) -> list[Volume]:
    first = files[0][1]
    what = f"series {first.get('SeriesNumber', '')} ({series_tag(first)})"
    _check_modality(files, what, force=force)
    _check_unique(files, what)
    slices = [item for path, dataset in files for item in slices_of(dataset, path)]
    stacks = [stack(part, what) for part in _split(slices)]
    pixels: dict[Path, NDArray[np.float32]] = {}
    volumes = []
    for number, item in enumerate(stacks, start=1):
        tag = series_tag(first) + (f"-{number}" if len(stacks) > 1 else "")
        volumes.append(_volume(item, tag, source, pixels))
    return volumes


def _check_modality(files: Files, what: str, *, force: bool) -> None:
    others = sorted({str(d.get("Modality")) for _, d in files if d.get("Modality") != "MR"})
    if others and not force:
        raise DicomSeriesError(
            f"{what} is {', '.join(others)}, not MR, and the noise of MR does not describe it; "
            "use --force to restore it all the same"
        )


def _check_unique(files: Files, what: str) -> None:
    seen: dict[str, Path] = {}
    for path, dataset in files:
        uid = str(dataset.get("SOPInstanceUID") or path)
        if uid in seen:
            raise DicomSeriesError(
                f"{what} has duplicated slices: {seen[uid].name} and {path.name} are the same "
                "image; keep one of them"
            )
        seen[uid] = path


def _split(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Parts that are a volume each: kinds, where slices repeat, and mosaics that were moved."""
    places = {tuple(np.round(s.position / SAME_PLACE_MM).astype(int)) for s in slices}
    kinds = by_kind(slices) if len(places) < len(slices) else [list(slices)]
    parts: list[list[Slice]] = []
    for kind in kinds:
        moved: dict[tuple[int, ...], list[Slice]] = {}
        starts = {s.path: s.position for s in kind if s.place == (0, 0)}
        is_mosaic = any(s.place[0] > 0 for s in kind)
        for item in kind:
            start = starts[item.path] if is_mosaic else np.zeros(3)
            moved.setdefault(tuple(np.round(start / SAME_PLACE_MM).astype(int)), []).append(item)
        parts += moved.values()
    return parts


def _volume(item: Stack, tag: str, source: Path, pixels: dict[Path, NDArray[np.float32]]) -> Volume:
    first = item.frames[0][0]
    shape = (*first.shape, len(item.frames[0]))
    data = np.empty((*shape, len(item.frames)), dtype=np.float32)
    for t, frame in enumerate(item.frames):
        for z, plane in enumerate(frame):
            several = plane.place != (0, 0) or "PerFrameFunctionalGroupsSequence" in plane.dataset
            if plane.path not in pixels:
                if not several:
                    pixels.clear()  # a classic image is used once
                pixels[plane.path] = read_pixels(plane.path)
            data[:, :, z, t] = slice_pixels(pixels[plane.path], plane)
    data = data if data.shape[3] > 1 else data[..., 0]
    check_intensities(data, f"series {tag}")
    native = {s.path: s.dataset for frame in item.frames for s in frame}
    return Volume(
        data=data,
        geometry=Geometry(shape, item.affine),
        format="dicom",
        source=source,
        case_id=tag,
        modality=str(first.dataset.get("Modality") or ""),
        native=list(native.values()),
    )
