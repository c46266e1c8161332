"""HDF5 by h5py, an extra, with clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medddpm.errors import MedddpmError, MissingExtraError, VolumeReadError, missing_extra
from medddpm.io.files import check_there


def hdf5() -> Any:
    """The h5py package.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingExtraError(missing_extra("h5py", "raw")) from None
    return h5py


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file of HDF5 that is read; what h5py says of a damaged one is one clear error.

    Raises:
        VolumeReadError: It is no HDF5, or was cut short.
    """
    h5py = hdf5()
    check_there(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except MedddpmError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise VolumeReadError(
            f"{path} cannot be read as raw data in HDF5: {text}; it may be cut short: get it again"
        ) from None
