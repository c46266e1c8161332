"""Raw data of any known format to `RawScan`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import VolumeReadError
from medddpm.io.files import check_there
from medddpm.io.raw_bart import read_bart
from medddpm.io.raw_fastmri import read_fastmri
from medddpm.io.raw_hdf5 import opened
from medddpm.io.raw_ismrmrd import read_ismrmrd
from medddpm.io.raw_scan import RawScan
from medddpm.io.raw_twix import read_twix

_HDF5 = (".h5", ".hdf5", ".mrd")
RAW_SUFFIXES = (*_HDF5, ".cfl", ".hdr", ".dat")


def read_raw(path: str | Path) -> RawScan:
    """The measurement of a file: ISMRMRD or fastMRI HDF5, BART cfl/hdr, or Siemens twix.

    Raises:
        VolumeReadError: Missing, of another format, cut short, or holding no k-space that can be
            reconstructed.
        GeometryError: Its place in space is contradictory.
        MissingExtraError: h5py or twixtools is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".cfl", ".hdr") or path.with_name(f"{path.name}.cfl").exists():
        return read_bart(path)
    check_there(path)
    if suffix == ".dat":
        return read_twix(path)
    if suffix not in _HDF5:
        raise VolumeReadError(
            f"{path} is no raw data that is known: {', '.join(RAW_SUFFIXES)} are; images are "
            "restored by `medddpm restore`"
        )
    with opened(path) as file:
        is_fastmri = "kspace" in file
    return read_fastmri(path) if is_fastmri else read_ismrmrd(path)


def read_noise(path: str | Path) -> NDArray[np.complex64]:
    """(C, N) samples of a scan without signal: its noise readouts, or else all that it measured."""
    scan = read_raw(path)
    if scan.noise is not None:
        return scan.noise
    measured = np.broadcast_to(scan.mask[:, :, None], scan.kspace.shape)
    flat = np.moveaxis(scan.kspace, 2, 0)[np.moveaxis(measured, 2, 0)]
    return flat.reshape(scan.num_coils, -1)
