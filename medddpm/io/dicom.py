"""DICOM series to volumes: classic, enhanced multi-frame and mosaics."""

from __future__ import annotations

import filecmp
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException

from medddpm.errors import (
    ContentAbsentError,
    DicomSeriesError,
    GeometryError,
    LeftOutWarning,
    MedddpmError,
    VolumeReadError,
)
from medddpm.io.dicom_files import files_under, is_directory_record, read_header
from medddpm.io.dicom_geometry import Headers, Slice, Stack, stack
from medddpm.io.dicom_kind import holds_magnitude, kind_of
from medddpm.io.dicom_padding import Mask, is_padding
from medddpm.io.dicom_quiet import quiet_pydicom
from medddpm.io.dicom_slices import read_pixels, slice_pixels, slices_of, split
from medddpm.io.dicom_values import modality_of, number_or, text, whole
from medddpm.io.files import check_intensities
from medddpm.io.image_files import find_images
from medddpm.volume import Geometry, Volume

Files = list[tuple[Path, Dataset]]
OnError = Callable[[MedddpmError], None]


def read_dicom(
    path: str | Path, *, force: bool = False, on_error: OnError | None = None
) -> list[Volume]:
    """Read the series of a DICOM file, or all series in a folder and the folders in it.

    Array axes are (column index, row index, slice), slices in the direction of the normal;
    repeats of a stack make a fourth axis in time order. A series with several echoes, or
    magnitude and phase, or water and fat, gives a volume each. Byte-identical copies of a file
    are passed over, with a warning.

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
            except (VolumeReadError, GeometryError) as error:
                on_error(error)
    return volumes


def dicom_headers(
    folder: Path, keywords: Sequence[str], on_error: Callable[[Path, MedddpmError], None]
) -> Iterator[tuple[Path, Dataset]]:
    """Each DICOM image under a folder with a few of its attributes, in sorted order.

    Whole headers of a hospital's archive would fill the memory. A value that cannot be read is
    left out.

    Args:
        folder: Searched through.
        keywords: The attributes to read, beside those that tell images from other objects.
        on_error: Called with each damaged file and what is wrong with it.
    """
    for path in files_under(folder):
        try:
            with quiet_pydicom():
                header = read_header(path, [*keywords, "SeriesNumber"])
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
        if file.parent not in damaged or not isinstance(error, ContentAbsentError):
            on_error(error)  # content that is not there is said once a folder
        damaged.add(file.parent)

    for file, header in dicom_headers(Path(path), [], note):
        found.setdefault(series_tag(header), []).append(file)
    series = []
    for tag, files in sorted(found.items()):
        if damaged.isdisjoint(file.parent for file in files):
            series.append(SeriesFiles(tag, tuple(files)))
            continue
        on_error(
            DicomSeriesError(
                f"series {tag} lies in one folder with a file that is damaged or was not fetched, "
                "and may be a slice of it; export or fetch it again, or take that file out"
            )
        )
    return series


def why_left_out(files: Sequence[Path]) -> str:
    """Why a series is not restored, "" if an image of it may be, or cannot be judged.

    Headers are read until one is a magnitude, so most often one.
    """
    why = ""
    with quiet_pydicom():
        for path in files:
            try:
                header = read_header(path)
                if header is None or holds_magnitude(header):
                    return ""
                why = why or kind_of(header).why_no_magnitude
            except VolumeReadError:  # whoever reads it says what is wrong
                return ""
    return why or "it shows no magnitude"


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
        header = read_header(files[0])
        if header is None or "Rows" not in header:
            raise DicomSeriesError("a series without readable headers")
        slices = whole(header, "NumberOfFrames", 1) if len(files) == 1 else len(files)
        return (whole(header, "Columns"), whole(header, "Rows"), slices), 1


def _raise(error: MedddpmError) -> None:
    raise error


def series_tag(dataset: Dataset) -> str:
    """Twelve hexadecimal digits that stand for a series and tell nothing of the patient."""
    uid = text(dataset, "SeriesInstanceUID")
    return hashlib.sha256(uid.encode()).hexdigest()[:12]


def _files_by_series(path: Path, on_error: OnError) -> list[Files]:
    """Series of a folder by number, without those that may lack a slice in a damaged file."""
    series: dict[str, Files] = {}
    damaged: dict[Path, Path] = {}
    for item in files_under(path):
        try:
            header = read_header(item)
        except VolumeReadError as error:
            known = damaged.setdefault(item.parent, item)
            if known == item or not isinstance(error, ContentAbsentError):  # else once a folder
                on_error(error)
            continue
        if header is not None and "Rows" in header:
            series.setdefault(_uid(header), []).append((item, header))
    if not series and not damaged:
        more = (
            "; folders in it hold NIfTI files: name one of them, or give it to `medddpm cohort`, "
            "which searches through"
        )
        raise VolumeReadError(f"{path} holds no DICOM image{more if find_images(path) else ''}")
    whole = [files for files in series.values() if not _lies_beside(files, damaged, on_error)]
    return sorted(whole, key=lambda files: number_or(files[0][1], "SeriesNumber", 0.0))


def _uid(header: Dataset) -> str:
    """Series Instance UID; all images without one in a folder count as one series."""
    return text(header, "SeriesInstanceUID")


def _lies_beside(files: Files, damaged: dict[Path, Path], on_error: OnError) -> bool:
    """True, and reported, if a damaged file may be a slice of the series: a folder has both."""
    found = [damaged[path.parent] for path, _ in files if path.parent in damaged]
    if found:
        on_error(
            DicomSeriesError(
                f"{_name(files)} lies in one folder with {found[0].name}, which may be a slice of "
                "it and is damaged or not there; export or fetch it again, or take that file out"
            )
        )
    return bool(found)


def _series_of_file(path: Path) -> Files:
    wanted = read_header(path)
    if wanted is None:
        raise VolumeReadError(f"{path} is neither a DICOM nor a NIfTI or MGH file")
    if is_directory_record(wanted):
        raise VolumeReadError(
            f"{path} is a DICOMDIR, the index of a disc, and no image; give the folder it lies in"
        )
    if "Rows" not in wanted:
        kind = modality_of(wanted) or "no modality"
        raise VolumeReadError(f"{path} is DICOM ({kind}) and no image")
    uid = _uid(wanted)
    if not uid or number_or(wanted, "NumberOfFrames", 1) > 1:
        return [(path, wanted)]
    beside = [p for p in files_under(path.parent) if p.parent == path.parent]
    return [(p, header) for p, header in _headers(beside) if _uid(header) == uid]


def _headers(paths: Sequence[Path]) -> Files:
    headers = ((p, read_header(p)) for p in paths)
    return [(path, header) for path, header in headers if header is not None]


def _name(files: Files) -> str:
    """What a message calls a series: its number, if it is one, and a hash."""
    first = files[0][1]
    told, tag = number_or(first, "SeriesNumber", np.nan), series_tag(first)
    return f"series {int(told)} ({tag})" if np.isfinite(told) else f"series ({tag})"


@contextmanager
def _naming(series: str) -> Iterator[None]:
    """Let an error that speaks of one file name its series too."""
    try:
        yield
    except (VolumeReadError, GeometryError) as error:
        if series in str(error):
            raise
        raise type(error)(f"{series}: {error}") from error


def _read_series(files: Files, source: Path, *, force: bool) -> list[Volume]:
    first, what = files[0][1], _name(files)
    _check_modality(files, what, force=force)
    files = _without_copies(files, what)
    _check_polarity(files, what)
    slices = [item for path, dataset in files for item in _slices(dataset, path)]
    stacks = [stack(part, what) for part in split(slices)]
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
    except DicomSeriesError as error:
        if path.name in str(error):
            raise
        raise DicomSeriesError(f"in {path.name}, {error}") from error
    except (AttributeError, TypeError, ValueError, IndexError, BytesLengthException) as error:
        raise DicomSeriesError(
            f"the header of {path.name} is damaged or incomplete ({type(error).__name__}); "
            "export it again"
        ) from error


def _check_modality(files: Files, what: str, *, force: bool) -> None:
    found = {modality_of(dataset) or "of no modality" for _, dataset in files}
    others = sorted(found - {"MR"})
    if others and not force:
        raise DicomSeriesError(
            f"{what} is {', '.join(others)}, not MR, and the noise of MR does not describe it; "
            "use --force to take it all the same"
        )


def _check_polarity(files: Files, what: str) -> None:
    """Values are kept, as dcm2niix keeps them, so all must mean the same."""
    if len({text(d, "PhotometricInterpretation").upper() == "MONOCHROME1" for _, d in files}) > 1:
        raise DicomSeriesError(
            f"{what} mixes MONOCHROME1, where the lowest value is white, and MONOCHROME2; "
            "keep the images of one kind"
        )


def _without_copies(files: Files, what: str) -> Files:
    """The files without those that are copies of others, byte for byte; these are said."""
    seen: dict[str, Path] = {}
    kept: Files = []
    for path, dataset in files:
        first = seen.setdefault(text(dataset, "SOPInstanceUID") or str(path), path)
        if first == path:
            kept.append((path, dataset))
        elif not filecmp.cmp(first, path, shallow=False):
            raise DicomSeriesError(
                f"{what} has duplicated slices: {first.name} and {path.name} are the same image "
                "in other bytes; keep one of them"
            )
    if len(kept) < len(files):
        number = len(files) - len(kept)
        copies = "1 file is a copy of another" if number == 1 else f"{number} files are copies"
        warnings.warn(
            f"{what}: {copies}, byte for byte, and passed over", LeftOutWarning, stacklevel=2
        )
    return kept


def _volume(
    item: Stack, tag: str, source: Path, pixels: dict[Path, NDArray[np.float32]], what: str
) -> Volume:
    first = item.frames[0][0]
    shape = (*first.shape, len(item.frames[0]))
    data = np.empty((*shape, len(item.frames)), dtype=np.float32)
    padding: Mask | None = None
    for t, frame in enumerate(item.frames):
        for z, plane in enumerate(frame):
            several = plane.place != (0, 0) or "PerFrameFunctionalGroupsSequence" in plane.dataset
            if plane.path not in pixels:
                if not several:
                    pixels.clear()  # a classic image is used once
                pixels[plane.path] = read_pixels(plane.path)
            data[:, :, z, t] = slice_pixels(pixels[plane.path], plane)
            padded = is_padding(plane, data[:, :, z, t])
            if padded is not None and padded.any():
                padding = np.zeros(data.shape, dtype=bool) if padding is None else padding
                padding[:, :, z, t] = padded
    if data.shape[3] == 1:
        data, padding = data[..., 0], None if padding is None else padding[..., 0]
    check_intensities(data, what)
    return Volume(
        data=data,
        geometry=Geometry(shape, item.affine),
        format="dicom",
        source=source,
        case_id=tag,
        modality=modality_of(first.dataset),
        native=Headers([plane for frame in item.frames for plane in frame], padding),
    )
