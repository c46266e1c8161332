"""Where a NIfTI scan lies: sform, qform and the unit of both, from the header to mm."""

from __future__ import annotations

import warnings
from itertools import product
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from numpy.typing import NDArray

from medddpm.errors import GeometryError, GeometryWarning

nib: Any = nibabel  # untyped

Trust = Literal["sform", "qform"]

SPACE_BITS = 7  # of xyzt_units; the others are the unit of time
_TOLERANCE = 1e-3  # of the diagonal of the field of view
_SCANNER_CODE = 1
_MM_PER_UNIT = {1: 1e3, 3: 1e-3}  # metre and micron; anything else is taken for mm
_UNIT_NAMES = {1: "meter", 3: "micron"}  # nibabel knows no byte whose unit of time is unknown
_PLAUSIBLE_MM = (0.003, 100.0)  # voxels of a scan whose header states another unit than mm


def choose_affine(
    header: Any, shape: tuple[int, ...], trust: Trust | None, path: Path
) -> NDArray[np.float64]:
    """The affine of the scan's grid, (4, 4) in mm; a form that is no transform gets code 0.

    Forms of two codes describe two spaces, as the NIfTI-1 standard provides (qform: where the
    scanner had it; sform: where a template or another scan has it). Both stay; the grid is that
    of the scanner, else that of qform, whose voxels have their true size.
    """
    sform, qform = (_usable_form(header, name, path) for name in ("sform", "qform"))
    if sform is None or qform is None:
        if (
            trust is not None
            and (sform if trust == "sform" else qform) is None
            and (sform is not None or qform is not None)
        ):
            raise GeometryError(f"{path} has no usable {trust}; leave --trust out")
        affine = in_mm(header, header.get_best_affine())
    elif trust is not None:
        affine = sform if trust == "sform" else qform
    elif _agree(sform, qform, shape):
        affine = in_mm(header, header.get_best_affine())
    elif int(header["sform_code"]) != int(header["qform_code"]):
        affine = sform if int(header["sform_code"]) == _SCANNER_CODE else qform
    else:
        raise GeometryError(_two_places(sform, qform, shape, path))
    _check_unit(header, affine, path)
    return affine


def _usable_form(header: Any, name: str, path: Path) -> NDArray[np.float64] | None:
    """A form in mm; None if its code is 0, or if it is no transform and the other is one."""
    other = "sform" if name == "qform" else "qform"
    if int(header[f"{name}_code"]) <= 0:
        return None
    form = decoded(header, name)
    if form is not None:
        return form
    if int(header[f"{other}_code"]) > 0 and decoded(header, other) is not None:
        header[f"{name}_code"] = 0
        warnings.warn(
            f"{path}: its {name} is no transform and is left out; its {other} is taken",
            GeometryWarning,
            stacklevel=2,
        )
        return None
    raise GeometryError(
        f"{path}: its {name} is no transform (singular, not finite, or no rotation), so the place "
        "of the scan is unknown; convert it again from its source"
    )


def decoded(header: Any, name: str) -> NDArray[np.float64] | None:
    """A form in mm, (4, 4); None if it is no transform."""
    try:
        form = in_mm(header, getattr(header, f"get_{name}")())
    except (ValueError, ArithmeticError, np.linalg.LinAlgError, nib.spatialimages.HeaderDataError):
        return None
    if not np.isfinite(form).all() or abs(np.linalg.det(form[:3, :3])) < 1e-12:
        return None
    return form


def mm_per_unit(header: Any) -> float:
    """How many mm the spatial unit of the header is."""
    return _MM_PER_UNIT.get(int(header["xyzt_units"]) & SPACE_BITS, 1.0)


def in_mm(header: Any, affine: Any) -> NDArray[np.float64]:
    """An affine in the unit of the header, in mm; of a header in mm it is the same, bit for bit."""
    in_mm: NDArray[np.float64] = np.array(affine, dtype=np.float64)
    in_mm[:3] *= mm_per_unit(header)
    return in_mm


def _check_unit(header: Any, affine: NDArray[np.float64], path: Path) -> None:
    """Refuse a unit that is not mm and cannot be meant: many tools never look at it."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if mm_per_unit(header) == 1 or spacing.min() == 0:  # singular: an error of its own
        return
    if spacing.min() < _PLAUSIBLE_MM[0] or spacing.max() > _PLAUSIBLE_MM[1]:
        unit = _UNIT_NAMES[int(header["xyzt_units"]) & SPACE_BITS]
        raise GeometryError(
            f"{path}: its header states the unit {unit}, so its voxels would be "
            f"{' x '.join(f'{s:.4g}' for s in spacing)} mm; if the numbers are mm, correct the "
            'unit first (nibabel: image.header.set_xyzt_units("mm"))'
        )


def _agree(sform: NDArray[np.float64], qform: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Whether two forms put every corner of the grid at one place."""
    corners = _corners(shape)
    diagonal = float(np.linalg.norm((sform @ corners)[:, 7] - (sform @ corners)[:, 0]))
    return _apart(sform, qform, shape) <= _TOLERANCE * diagonal


def _apart(a: NDArray[np.float64], b: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Most mm between the places of a corner of the grid."""
    return float(np.linalg.norm((a - b) @ _corners(shape), axis=0).max())


def _corners(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Homogeneous voxel indices of the corners of a grid, (4, 8)."""
    return np.array([[*c, 1.0] for c in product(*([0, n - 1] for n in shape[:3]))]).T


def _two_places(
    sform: NDArray[np.float64], qform: NDArray[np.float64], shape: tuple[int, ...], path: Path
) -> str:
    return (
        f"{path}: sform and qform disagree by up to {_apart(sform, qform, shape):.3g} mm and name "
        "one space, so the place of the scan is unknown; choose one with --trust sform or --trust "
        "qform (restore, convert, cohort, evaluate, estimate-noise), or in Python "
        'read_volume(..., trust="sform")'
    )
