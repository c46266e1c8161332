"""Single readouts put into the encoded matrix, and the phase of EPI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import VolumeReadError

Samples = NDArray[np.complex64]


@dataclass(frozen=True)
class Line:
    """One readout of all coils.

    Attributes:
        data: (C, n) complex64, in the order of rising kx.
        place: Index along ky and kz of the encoded matrix.
        middle: Sample that lies at the middle of k-space.
        slice: Number of its slice.
        frame: Contrast, phase, repetition and set.
        imaging: It belongs to the image.
        calibrating: It was measured for calibration.
        reversed: It was read from high to low kx, and turned.
    """

    data: Samples
    place: tuple[int, int]
    middle: int
    slice: int = 0
    frame: tuple[int, ...] = (0,)
    imaging: bool = True
    calibrating: bool = False
    reversed: bool = False


@dataclass(frozen=True)
class Grid:
    """Lines put together: k-space (F, S, C, kx, ky, kz) and its mask, see `RawScan`."""

    kspace: Samples
    mask: NDArray[np.bool_]
    averages: int


def gridded(lines: Sequence[Line], matrix: Sequence[int], slices: Sequence[int], name: str) -> Grid:
    """All lines in one array, averages averaged.

    Args:
        lines: One or more.
        matrix: Samples along kx, ky and kz.
        slices: Their numbers in the order wanted.
        name: Of the file, for messages.

    Raises:
        VolumeReadError: A line lies outside of the matrix, or has other coils than the first.
    """
    frames = sorted({line.frame for line in lines})
    coils, (nx, ny, nz) = len(lines[0].data), matrix
    kspace = np.zeros((len(frames), len(slices), coils, nx, ny, nz), np.complex64)
    count = np.zeros((len(frames), len(slices), nx, ny, nz), np.int32)
    where = {number: index for index, number in enumerate(slices)}
    for line in lines:
        y, z = line.place
        start = nx // 2 - line.middle
        if not (0 <= y < ny and 0 <= z < nz):
            raise VolumeReadError(
                f"{name}: a line lies at ({y}, {z}) of an encoded matrix of {ny} x {nz} lines; the "
                "header has the wrong matrix, or the file is of another scan"
            )
        if len(line.data) != coils:
            raise VolumeReadError(
                f"{name}: lines have {coils} and {len(line.data)} coils; the file is damaged, "
                "or cut short: get it again"
            )
        length = line.data.shape[1]
        start = 0 if length == nx else nx // 2 - line.middle
        if start < 0 or start + length > nx:
            raise VolumeReadError(
                f"{name}: a readout of {length} samples, the middle at {line.middle}, does not fit "
                f"an encoded matrix of {nx}; the header has the wrong matrix"
            )
        here = (frames.index(line.frame), where[line.slice])
        along = slice(start, start + length)
        kspace[(*here, slice(None), along, y, z)] += line.data
        count[(*here, along, y, z)] += 1
    measured = count > 0
    kspace /= np.maximum(count, 1)[:, :, None]
    return Grid(kspace, measured, int(np.median(count[measured])))


def frame_words(frame: tuple[int, ...], names: Sequence[str]) -> str:
    """A frame's numbers in words; those that are 0 are left out.

    Example:
        >>> frame_words((1, 0, 2), ["contrast", "phase", "repetition"])
        'contrast 1, repetition 2'
    """
    return ", ".join(f"{n} {v}" for n, v in zip(names, frame, strict=True) if v)


def epi_corrected(lines: Sequence[Line], navigators: Sequence[Line]) -> list[Line]:
    """Lines of EPI without the shift between those read forth and back.

    The navigators are read through the middle of k-space; the phase between those of both
    directions, along the readout of the image, is fitted by a line (Ahn and Cho, IEEE TMI 6:32,
    1987; the slope from the autocorrelation at lag one) and taken off, half from each direction.

    Args:
        lines: Of the image.
        navigators: Without phase encoding; those of a slice correct that slice.
    """
    fits = {}
    for number in {line.slice for line in navigators}:
        own = [line for line in navigators if line.slice == number]
        back = [_image(line.data) for line in own if line.reversed]
        forth = [_image(line.data) for line in own if not line.reversed]
        if back and forth:
            fits[number] = _phase_fit(np.mean(forth, axis=0), np.mean(back, axis=0))
    return [_without_phase(line, fits.get(line.slice)) for line in lines]


def _phase_fit(forth: Samples, back: Samples) -> tuple[float, float]:
    """Slope a voxel and offset at the middle of the phase of back over forth."""
    product = (back * forth.conj()).sum(axis=0)
    slope = float(np.angle(np.sum(product[1:] * product[:-1].conj())))
    place = np.arange(len(product)) - len(product) // 2
    return slope, float(np.angle(np.sum(product * np.exp(-1j * slope * place))))


def _without_phase(line: Line, fit: tuple[float, float] | None) -> Line:
    if fit is None:
        return line
    image = _image(line.data)
    place = np.arange(image.shape[1]) - image.shape[1] // 2
    half = 0.5 * (fit[0] * place + fit[1]) * (-1 if line.reversed else 1)
    data: Any = _kspace(image * np.exp(1j * half))
    return replace(line, data=data.astype(np.complex64))


def _image(data: Samples) -> Any:
    return np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(data, axes=-1)), axes=-1)


def _kspace(image: Any) -> Any:
    return np.fft.fftshift(np.fft.fft(np.fft.ifftshift(image, axes=-1)), axes=-1)
