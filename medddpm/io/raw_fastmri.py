"""fastMRI HDF5 to `RawScan` (Zbontar et al., arXiv:1811.08839, section 4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medddpm.display import printable
from medddpm.errors import VolumeReadError
from medddpm.io.raw_hdf5 import opened
from medddpm.io.raw_header import Encoding, parse_header
from medddpm.io.raw_scan import RawScan, unplaced_affine


def read_fastmri(path: str | Path) -> RawScan:
    """The slices of a file; where they lie in space is not in such files.

    Args:
        path: HDF5 with "kspace", (slices, coils, kx, ky) or (slices, kx, ky).

    Raises:
        VolumeReadError: Not readable, or k-space has another shape.
        MissingExtraError: h5py is not installed.
    """
    path = Path(path)
    with opened(path) as file:
        if "kspace" not in file:
            raise VolumeReadError(f"{path} holds no kspace; it is no file of fastMRI")
        data = np.asarray(file["kspace"][()])
        header: Any = file["ismrmrd_header"][()] if "ismrmrd_header" in file else None
        lines = np.asarray(file["mask"][()], bool) if "mask" in file else None
    if data.ndim == 3:
        data = data[:, None]
    if data.ndim != 4 or data.dtype.kind != "c":
        raise VolumeReadError(
            f"{path}: kspace is {data.dtype} of shape {data.shape}; expected complex (slices, "
            "coils, kx, ky)"
        )
    kspace = data.astype(np.complex64)[None, ..., None]
    mask = (kspace != 0).any(axis=2)
    if lines is not None:
        if lines.size != data.shape[3]:
            raise VolumeReadError(
                f"{path}: the mask has {lines.size} lines, and k-space {data.shape[3]}"
            )
        mask &= lines.reshape(-1, 1)
        kspace = np.where(mask[:, :, None], kspace, np.complex64(0))
    encoding = _encoding(header, kspace.shape[3:5], path)
    spacing = [f / n for f, n in zip(encoding.recon_fov_mm, encoding.recon_matrix, strict=True)]
    shape = (*encoding.recon_matrix[:2], len(data))
    return RawScan(
        kspace,
        mask,
        encoding.fov_mm,
        encoding.recon_matrix,
        encoding.recon_fov_mm,
        unplaced_affine(spacing, shape),
        placed=False,
        format="fastmri",
        source=path,
        case_id=printable(path.stem) or "scan",
        facts=encoding.facts,
    )


def _encoding(header: Any, shape: Any, path: Path) -> Encoding:
    """The header's, for k-space whose width may differ from what it says; 1 mm without one."""
    x, y = (int(n) for n in shape)
    if header is None:
        size = (float(x), float(y), 1.0)
        return Encoding((x, y, 1), size, (x, y, 1), size)
    found = parse_header(header, str(path))
    width = found.fov_mm[1] * y / found.matrix[1]  # lines at both ends may not be stored
    fov = (found.fov_mm[0], width, found.fov_mm[2]) if y > found.matrix[1] else found.fov_mm
    matrix = (*found.recon_matrix[:2], 1)
    if min(fov) <= 0 or min(found.recon_fov_mm) <= 0:
        raise VolumeReadError(f"{path}: its header tells no field of view")
    return Encoding((x, y, 1), fov, matrix, found.recon_fov_mm, facts=found.facts)
