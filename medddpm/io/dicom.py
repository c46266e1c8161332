"""DICOM series to volumes: classic, enhanced multi-frame and Siemens mosaic."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID

from medddpm.errors import DicomSeriesError, MedddpmError, VolumeReadError
from medddpm.io.dicom_geometry import SAME_PLACE_MM, Headers, Slice, Stack, stack
from medddpm.io.dicom_slices import by_kind, read_pixels, slice_pixels, slices_of
from medddpm.io.files import check_intensities
from medddpm.io.image_files import find_images
from medddpm.volume import Geometry, Volume

Files = list[tuple[Path, Dataset]]
OnError = Callable[[MedddpmError], None]


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings about values that break the standard.

    They are frequent, they do not change what is read here, and they quote the values, which
    may name a patient.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pydicom(\..*)?$")
        yield


def read_dicom(
    path: str | Path, *, force: bool = False, on_error: OnError | None = None
) -> list[Volume]:
    """Read the series of a DICOM file, or all series in a folder and the folders in it.

    Array axes are (column index, row index, slice), slices in the direction of the normal;
    repeats of a stack make a fourth axis in time order. A series with several echoes, or
    magnitude and phase, gives a volume each.

    Args:
        path: A file or a folder.
        force: Take other modalities than MR.
        on_error: Called with the error of each bad series, and the other series are read; without
            it the first error is raised.

    Returns:
        One volume a scan, by series number. `native` holds the headers without pixels, in
        slice order, time slowest: one a slice, or one an enhanced object or mosaic.

    Raises:
        VolumeReadError: No DICOM image there.
        DicomSeriesError: Missing, duplicated, unequally spaced or mixed slices, no geometry,
            no pixels, not MR, or a damaged file beside it.
    """
    path = Path(path)
    on_error = on_error or _raise
    volumes: list[Volume] = []
    with quiet_pydicom():
        series = [_series_of_file(path)] if path.is_file() else _files_by_series(path, on_error)
        for files in series:
            try:
                with _naming(_name(files)):
                    volumes += _read_series(files, path, force=force)
            except VolumeReadError as error:
                on_error(error)
    return volumes


def dicom_headers(
    folder: Path, keywords: Sequence[str], on_error: Callable[[Path, MedddpmError], None]
) -> Iterator[tuple[Path, Dataset]]:
    """Each DICOM image under a folder with a few of its attributes, in sorted order.

    Whole headers of a hospital's archive would fill the memory.

    Args:
        folder: Searched through.
        keywords: The attributes to read, beside those that tell images from other objects.
        on_error: Called with each damaged file and what is wrong with it.
    """
    wanted = [*_NEEDED, *keywords]
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "DICOMDIR"):
        try:
            with quiet_pydicom():
                header = _header(path, wanted)
        except VolumeReadError as error:
            on_error(path, error)
            continue
        if header is not None and "Rows" in header:
            yield path, header


@dataclass(frozen=True)
class SeriesFiles:
    """One series that was found, not read yet.

    Attributes:
        tag: Stands for the series and tells nothing of the patient.
        files: Its files, sorted.
    """

    tag: str
    files: tuple[Path, ...]


def find_series(path: str | Path, on_error: OnError) -> list[SeriesFiles]:
    """The series under a folder, by tag; headers are read one at a time and not kept.

    Args:
        path: A folder.
        on_error: Called with the error of each damaged file, and of each series beside one.
    """
    found: dict[str, list[Path]] = {}
    damaged: set[Path] = set()

    def note(file: Path, error: MedddpmError) -> None:
        damaged.add(file.parent)
        on_error(error)

    for file, header in dicom_headers(Path(path), [], note):
        found.setdefault(series_tag(header), []).append(file)
    series = []
    for tag, files in sorted(found.items()):
        if damaged.isdisjoint(file.parent for file in files):
            series.append(SeriesFiles(tag, tuple(files)))
            continue
        on_error(
            DicomSeriesError(
                f"series {tag} lies in one folder with a damaged file, which may be a slice of it; "
                "export it again, or take that file out"
            )
        )
    return series


def read_series(files: Sequence[Path], *, force: bool = False) -> list[Volume]:
    """Read the series that `find_series` found; results and errors as for `read_dicom`."""
    with quiet_pydicom():
        headers = _headers(files)
        if not headers:
            raise DicomSeriesError("the series has no readable file any more; export it again")
        with _naming(_name(headers)):
            return _read_series(headers, files[0].parent, force=force)


def series_shape(files: Sequence[Path]) -> tuple[tuple[int, int, int], int]:
    """Shape and number of frames that a series seems to have, from one header.

    Slices that repeat in time are counted as slices.
    """
    with quiet_pydicom():
        header = _header(files[0])
        if header is None or "Rows" not in header:
            raise DicomSeriesError("a series without readable headers")
        slices = int(header.get("NumberOfFrames") or 1) if len(files) == 1 else len(files)
        return (int(header.Columns), int(header.Rows), slices), 1


def _raise(error: MedddpmError) -> None:
    raise error


def series_tag(dataset: Dataset) -> str:
    """Twelve hexadecimal digits that stand for a series and tell nothing of the patient."""
    uid = str(dataset.get("SeriesInstanceUID") or "")
    return hashlib.sha256(uid.encode()).hexdigest()[:12]


def _files_by_series(path: Path, on_error: OnError) -> list[Files]:
    """Series of a folder by number, without those that may lack a slice in a damaged file."""
    series: dict[str, Files] = {}
    damaged: dict[Path, Path] = {}
    for item in sorted(p for p in path.rglob("*") if p.is_file()):
        try:
            found = _headers([item])
        except VolumeReadError as error:
            damaged[item.parent] = item
            on_error(error)
            continue
        for _, header in found:
            if "Rows" in header:
                series.setdefault(str(header.get("SeriesInstanceUID")), []).append((item, header))
    if not series and not damaged:
        more = (
            "; folders in it hold NIfTI files: name one of them, or give it to `medddpm cohort`, "
            "which searches through"
        )
        raise VolumeReadError(f"{path} holds no DICOM image{more if find_images(path) else ''}")
    whole = [files for files in series.values() if not _lies_beside(files, damaged, on_error)]
    return sorted(whole, key=lambda files: int(files[0][1].get("SeriesNumber") or 0))


def _lies_beside(files: Files, damaged: dict[Path, Path], on_error: OnError) -> bool:
    """True, and reported, if a damaged file may be a slice of the series: a folder has both."""
    found = [damaged[path.parent] for path, _ in files if path.parent in damaged]
    if found:
        on_error(
            DicomSeriesError(
                f"{_name(files)} lies in one folder with {found[0].name}, which may be a slice of "
                "it and is damaged; export it again, or take that file out"
            )
        )
    return bool(found)


def _series_of_file(path: Path) -> Files:
    wanted = _header(path)
    if wanted is None:
        raise VolumeReadError(f"{path} is neither a DICOM nor a NIfTI or MGH file")
    if "Rows" not in wanted:
        raise VolumeReadError(f"{path} is DICOM ({wanted.get('Modality')}) and no image")
    uid = wanted.get("SeriesInstanceUID")
    if uid is None or int(wanted.get("NumberOfFrames") or 1) > 1:
        return [(path, wanted)]
    found = _headers(sorted(p for p in path.parent.iterdir() if p.is_file()))
    return [(p, d) for p, d in found if d.get("SeriesInstanceUID") == uid]


def _headers(paths: Sequence[Path]) -> Files:
    headers = ((p, _header(p)) for p in paths if p.name != "DICOMDIR")
    return [(path, header) for path, header in headers if header is not None]


def _header(path: Path, keywords: Sequence[str] | None = None) -> Dataset | None:
    """The data set without pixels, all or some of it, or None if the file is not DICOM."""
    try:
        dataset = dcmread(
            path, stop_before_pixels=True, specific_tags=list(keywords) if keywords else None
        )
        for name in _NEEDED:
            dataset.get(name)  # turns bytes into values, or raises
    except (InvalidDicomError, EOFError) as error:
        if path.suffix.lower() != ".dcm" or path.name.startswith("."):
            return None
        raise DicomSeriesError(f"{path} is no DICOM, or cut short; export it again") from error
    except OSError as error:
        raise VolumeReadError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged header makes pydicom raise anything
        raise DicomSeriesError(
            f"{path} is DICOM but damaged ({type(error).__name__}); export it again"
        ) from error
    if "Rows" not in dataset and _should_be_image(dataset):
        raise DicomSeriesError(f"{path} is DICOM but cut short; export it again")
    return dataset


_NEEDED = ("SeriesInstanceUID", "SeriesNumber", "Modality", "Rows", "NumberOfFrames")


def _should_be_image(dataset: Dataset) -> bool:
    """True if the SOP class is that of an image, or if the file ends before it is told."""
    meta: Dataset = dataset.file_meta
    if "MediaStorageSOPClassUID" not in meta or "TransferSyntaxUID" not in meta:
        return True
    return UID(meta.MediaStorageSOPClassUID).name.endswith("Image Storage")


def _name(files: Files) -> str:
    """What a message calls a series."""
    first = files[0][1]
    return f"series {first.get('SeriesNumber', '')} ({series_tag(first)})"


@contextmanager
def _naming(series: str) -> Iterator[None]:
    """Let an error that speaks of one file name its series too."""
    try:
        yield
    except VolumeReadError as error:
        if series in str(error):
            raise
        raise type(error)(f"{series}: {error}") from error


def _read_series(files: Files, source: Path, *, force: bool) -> list[Volume]:
    first, what = files[0][1], _name(files)
    _check_modality(files, what, force=force)
    _check_unique(files, what)
    slices = [item for path, dataset in files for item in _slices(dataset, path)]
    stacks = [stack(part, what) for part in _split(slices)]
    pixels: dict[Path, NDArray[np.float32]] = {}
    volumes = []
    for number, item in enumerate(stacks, start=1):
        tag = series_tag(first) + (f"-{number}" if len(stacks) > 1 else "")
        part = f"{what}, scan {number} of it" if len(stacks) > 1 else what
        volumes.append(_volume(item, tag, source, pixels, part))
    return volumes


def _slices(dataset: Dataset, path: Path) -> list[Slice]:
    """The slices in one file; a value that is cut short or is no number is one clear error."""
    try:
        return slices_of(dataset, path)
    except (AttributeError, TypeError, ValueError, IndexError, BytesLengthException) as error:
        raise DicomSeriesError(
            f"the header of {path.name} is damaged or incomplete ({type(error).__name__}); "
            "export it again"
        ) from error


def _check_modality(files: Files, what: str, *, force: bool) -> None:
    others = sorted({str(d.get("Modality")) for _, d in files if d.get("Modality") != "MR"})
    if others and not force:
        raise DicomSeriesError(
            f"{what} is {', '.join(others)}, not MR, and the noise of MR does not describe it; "
            "use --force to take it all the same"
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


def _volume(
    item: Stack, tag: str, source: Path, pixels: dict[Path, NDArray[np.float32]], what: str
) -> Volume:
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
    check_intensities(data, what)
    return Volume(
        data=data,
        geometry=Geometry(shape, item.affine),
        format="dicom",
        source=source,
        case_id=tag,
        modality=str(first.dataset.get("Modality") or ""),
        native=Headers([plane for frame in item.frames for plane in frame]),
    )
