"""Restore an image that a program holds: nibabel, SimpleITK, or an array with its affine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import ArrayLike

from medddpm.errors import ConfigError
from medddpm.io.outputs import file_stem
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Geometry, Volume

_LPS = np.diag([-1.0, -1.0, 1.0])
"""SimpleITK's axes in ours: it counts to the left and to the back."""


def restore_image(
    image: Any,
    *,
    affine: ArrayLike | None = None,
    weights: str | Path = "default",
    device: str = "auto",
    options: RestoreOptions | None = None,
) -> Any:
    """The image with its noise removed, as the kind of object that was given.

    An image that nibabel read from a file gets the voxels that `restore` writes for that file: its
    name names the noise field.

    Args:
        image: A SpatialImage of nibabel, an Image of SimpleITK, or an array (X, Y, Z) or
            (X, Y, Z, T), of magnitudes in any unit.
        affine: (4, 4), voxel to mm RAS+, of an array.
        weights: A shipped name or a file.
        device: "auto", "cpu", "cuda" or "cuda:1".
        options: How; the defaults if not given.

    Returns:
        float32 values on the same grid, with the header that it had.

    Raises:
        ConfigError: This is no image, or an array without an affine, or an image with one.
    """
    is_array = isinstance(image, np.ndarray)
    if is_array is (affine is None):
        raise ConfigError(
            "an array needs affine=, voxel to mm RAS+; an image of nibabel or SimpleITK has its own"
        )
    restorer = Restorer.from_pretrained(weights, device=device)

    def restored(data: Any, where: ArrayLike, name: str = "scan") -> Any:
        grid = Geometry(data.shape[:3], np.asarray(where, dtype=np.float64))
        volume = Volume(np.asarray(data, dtype=np.float32), grid, case_id=name)
        return restorer.restore(volume, options=options).volume.data

    if is_array:
        assert affine is not None
        return restored(image, affine)
    if isinstance(image, SpatialImage):
        name = image.get_filename()
        case = file_stem(Path(name)) if name else "scan"
        data = restored(image.get_fdata(dtype=np.float32), image.affine, case)
        header = image.header.copy()
        header.set_data_dtype(np.float32)
        return type(image)(data, image.affine, header, image.extra)
    if type(image).__module__.startswith("SimpleITK"):
        return _of_simpleitk(image, restored)
    raise ConfigError(
        f"a {type(image).__name__} cannot be restored; give a file, a nibabel or SimpleITK image, "
        "or an array with affine="
    )


def _of_simpleitk(image: Any, restored: Any) -> Any:
    import SimpleITK

    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ConfigError("an image of SimpleITK must have three axes and one value a voxel")
    data = SimpleITK.GetArrayFromImage(image).T  # it counts z, y, x
    affine = np.eye(4)
    direction = np.reshape(image.GetDirection(), (3, 3))
    affine[:3, :3] = _LPS @ direction @ np.diag(image.GetSpacing())
    affine[:3, 3] = _LPS @ image.GetOrigin()
    out = SimpleITK.GetImageFromArray(np.ascontiguousarray(restored(data, affine).T))
    out.CopyInformation(image)
    for key in image.GetMetaDataKeys():
        out.SetMetaData(key, image.GetMetaData(key))
    return out
