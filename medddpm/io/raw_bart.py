"""BART's cfl and hdr to `RawScan`, and back (BART's documentation, "Data format")."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medddpm.display import printable
from medddpm.errors import VolumeReadError
from medddpm.io.files import atomic_path, check_there
from medddpm.io.raw_scan import RawScan, unplaced_affine

_SLICES = 13
"""BART's dimension of slices; 3 is that of the coils."""


def read_cfl(path: str | Path) -> NDArray[np.complex64]:
    """The array of a pair of files, its trailing axes of length one left out.

    Args:
        path: Either file, or their common name.

    Raises:
        VolumeReadError: One is missing, or their sizes differ.
    """
    base = _base(Path(path))
    header, data = base.with_name(f"{base.name}.hdr"), base.with_name(f"{base.name}.cfl")
    check_there(header)
    check_there(data)
    try:
        lines = header.read_text(encoding="utf-8").splitlines()
        sizes = [int(word) for word in lines[lines.index("# Dimensions") + 1].split()]
    except (ValueError, IndexError, UnicodeDecodeError):
        raise VolumeReadError(f"{header} is no header of BART: no line of dimensions") from None
    needed, present = math.prod(sizes) * 8, data.stat().st_size
    if min(sizes, default=0) < 1 or needed != present:
        raise VolumeReadError(
            f"{data}: its header claims {' x '.join(map(str, sizes))} complex numbers, {needed} "
            f"bytes, and there are {present}; the file is cut short, or not of this header"
        )
    while len(sizes) > 1 and sizes[-1] == 1:
        sizes.pop()
    return np.fromfile(data, "<c8").reshape(sizes, order="F")


def write_cfl(array: NDArray[np.complex64], path: str | Path) -> Path:
    """Write both files; returns the data's path.

    Args:
        array: In BART's order of axes.
        path: Either file, or their common name.
    """
    base = _base(Path(path))
    header, data = base.with_name(f"{base.name}.hdr"), base.with_name(f"{base.name}.cfl")
    with atomic_path(data) as partial:
        np.asarray(array, "<c8").ravel(order="F").tofile(partial)
    with atomic_path(header) as partial:
        sizes = " ".join(map(str, array.shape))
        partial.write_text(f"# Dimensions\n{sizes}\n", encoding="utf-8")
    return data


def read_bart(path: str | Path) -> RawScan:
    """K-space of BART: x, y, z, coils, and slices along its dimension 13; nothing else.

    Voxels are taken for 1 mm, as the format tells no size; zeros were not measured.

    Raises:
        VolumeReadError: It has other dimensions than these.
    """
    base = _base(Path(path))
    array = read_cfl(path)
    sizes = [*array.shape, *[1] * (_SLICES + 1 - array.ndim)]
    others = [n for n, size in enumerate(sizes) if size > 1 and n not in (0, 1, 2, 3, _SLICES)]
    if others:
        raise VolumeReadError(
            f"{path} has BART's dimensions {others} too; extract one of them with `bart slice`"
        )
    x, y, z, coils = sizes[:4]
    kspace = array.reshape(x, y, z, coils, sizes[_SLICES]).transpose(4, 3, 0, 1, 2)[None]
    fov = (float(x), float(y), float(z))
    return RawScan(
        np.ascontiguousarray(kspace),
        (kspace != 0).any(axis=2),
        fov,
        (x, y, z),
        fov,
        unplaced_affine((1, 1, 1), (x, y, z * sizes[_SLICES])),
        placed=False,
        format="bart",
        source=base.with_name(f"{base.name}.cfl"),
        case_id=printable(base.name) or "scan",
    )


def _base(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() in (".cfl", ".hdr") else path
