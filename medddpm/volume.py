"""A scan and where it lies in space. Frozen: every operation returns a new object."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import GeometryError, ShapeError, VolumeReadError

Array = NDArray[np.float32]
Format = Literal["nifti", "mgh", "dicom", "raw", "array"]

_AXES = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True)
class Geometry:
    """The grid of a scan.

    Attributes:
        shape: Voxels along the three array axes (X, Y, Z).
        affine: (4, 4) float64, voxel index to mm, RAS+.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"the affine is not a finite 4x4 matrix: {affine.tolist()}")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise GeometryError(
                f"the affine is singular, so voxels have no place in space: {affine.tolist()}; "
                "repair the header (fslorient, nibabel) before restoring"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    def __repr__(self) -> str:
        return f"Geometry({self.words})"

    @property
    def words(self) -> str:
        """The grid on one line, such as "160 x 256 x 256 voxels of 1 x 0.94 x 0.94 mm, RAS"."""
        shape = " x ".join(map(str, self.shape))
        spacing = " x ".join(f"{s:.3g}" for s in self.spacing)
        return f"{shape} voxels of {spacing} mm, {self.orientation}"

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along the array axes."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def orientation(self) -> str:
        """Anatomical direction of each array axis, such as "RAS" (nearest, for oblique grids)."""
        directions = self.affine[:3, :3] / np.array(self.spacing)
        codes = [""] * 3
        left = set(range(3))
        for axis in np.argsort(-np.abs(directions).max(axis=0)):
            world = max(left, key=lambda w: abs(directions[w, axis]))
            left.remove(world)
            codes[axis] = _AXES[world][int(directions[world, axis] > 0)]
        return "".join(codes)

    def matches(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """True if both grids have one shape and their affines agree to `tolerance_mm`."""
        return self.shape == other.shape and bool(
            np.allclose(self.affine, other.affine, rtol=0, atol=tolerance_mm)
        )

    def require_match(self, other: Geometry, what: str) -> None:
        """Raise GeometryError, naming both grids, unless `other` lies on this grid."""
        if not self.matches(other):
            raise GeometryError(
                f"{what} lies on another grid: {other.shape} {other.orientation} at "
                f"{np.round(other.affine[:3, 3], 3).tolist()} mm, expected {self.shape} "
                f"{self.orientation} at {np.round(self.affine[:3, 3], 3).tolist()} mm; "
                "resample one of them first"
            )


@dataclass(frozen=True)
class Volume:
    """A scan: intensities, their grid and the facts needed to write it back.

    Attributes:
        data: float32, (X, Y, Z) or (X, Y, Z, T), in the scan's own units.
        geometry: The spatial grid.
        format: Where it came from.
        source: File or folder that was read, if any.
        case_id: Stable name without patient data; seeds the noise field.
        modality: "MR", "CT", ... where the source tells; "" if unknown.
        native: The reader's own header (nibabel header, list of pydicom datasets);
            only the writer of the same format looks inside.

    Raises:
        ShapeError: The array does not lie on the grid.
        VolumeReadError: It holds complex numbers, or none.
    """

    data: Array
    geometry: Geometry
    format: Format = "array"
    source: Path | None = None
    case_id: str = "scan"
    modality: str = ""
    native: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", _real(self.data))
        if self.data.ndim not in (3, 4) or self.data.shape[:3] != self.geometry.shape:
            raise ShapeError(
                f"a volume is (X, Y, Z) or (X, Y, Z, T) on its grid {self.geometry.shape}, "
                f"got an array of shape {self.data.shape}"
            )

    def __repr__(self) -> str:
        frames = f", {self.num_frames} frames" if self.num_frames > 1 else ""
        return f"Volume({self.case_id}: {self.geometry.words}{frames}, {self.format})"

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) float64, voxel index to mm, RAS+."""
        return self.geometry.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along the array axes."""
        return self.geometry.spacing

    @property
    def num_frames(self) -> int:
        """Length of the fourth axis; 1 for a 3D scan."""
        return int(self.data.shape[3]) if self.data.ndim == 4 else 1

    def frame(self, index: int) -> Array:
        """The (X, Y, Z) array of one time point."""
        return self.data if self.data.ndim == 3 else self.data[..., index]

    def frame_name(self, index: int) -> str:
        """What a message calls a time point: the scan, and which one of several."""
        return self.case_id if self.num_frames == 1 else f"{self.case_id} frame {index}"

    def to_ras(self) -> Volume:
        """The same scan with its axes turned and flipped to RAS, for showing; without header."""
        order, flips = ras_axes(self.geometry.orientation)
        turn = np.zeros((4, 4))
        turn[3, 3] = 1
        for new, old in enumerate(order):
            turn[old, new] = flips[new].step
            turn[old, 3] = 0 if flips[new].step == 1 else self.geometry.shape[old] - 1
        axes = (*order, 3)[: self.data.ndim]
        data = self.data.transpose(axes)[flips]
        shape = (int(data.shape[0]), int(data.shape[1]), int(data.shape[2]))
        geometry = Geometry(shape, self.geometry.affine @ turn)
        return replace(self, data=data, geometry=geometry, format="array", native=None)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """What Jupyter shows: three planes of the (first) frame, or a viewer."""
        from medddpm.display import mime_bundle

        ras = self.to_ras()
        sizes = " x ".join(str(n) for n in self.data.shape)
        spacing = " x ".join(f"{s:.3g}" for s in self.spacing)
        words = f"{self.case_id}: {sizes} voxels of {spacing} mm, {self.geometry.orientation}"
        return mime_bundle({"scan": ras.frame(0)}, ras.affine, words)

    def with_data(self, data: NDArray[Any]) -> Volume:
        """The same scan, in the same place, with other intensities."""
        return replace(self, data=data)


@dataclass(frozen=True)
class ComplexVolume:
    """A scan with its phase.

    Attributes:
        real: Its real part, with the grid, the header and the name of the scan.
        imaginary: Its imaginary part, of the same shape and on the same grid.

    Raises:
        GeometryError: The parts lie on two grids.
        ShapeError: They have different numbers of frames.
    """

    real: Volume
    imaginary: Volume

    def __post_init__(self) -> None:
        self.real.geometry.require_match(self.imaginary.geometry, "the phase or imaginary part")
        if self.real.data.shape != self.imaginary.data.shape:
            raise ShapeError(
                f"the scan has {self.real.num_frames} frames, its phase or imaginary part "
                f"{self.imaginary.num_frames}; give one of each a frame"
            )

    @classmethod
    def of_phase(cls, magnitude: Volume, radians: Volume) -> ComplexVolume:
        """A magnitude and its phase."""
        both = cls(magnitude, radians)
        size, angle = both.real.data, both.imaginary.data
        return cls(
            magnitude.with_data(size * np.cos(angle)), magnitude.with_data(size * np.sin(angle))
        )

    @property
    def magnitude(self) -> Volume:
        """The magnitude, with the header and the name of the scan."""
        return self.real.with_data(np.hypot(self.real.data, self.imaginary.data))

    def frame(self, index: int) -> NDArray[np.complex64]:
        """The (X, Y, Z) complex array of one time point."""
        out = self.real.frame(index) + 1j * self.imaginary.frame(index)
        return np.asarray(out, np.complex64)


def _real(data: Any) -> Array:
    """The array in float32; nothing of it is dropped without a word."""
    array = np.asarray(data)
    if array.dtype.kind == "c":
        raise VolumeReadError(
            "a scan of complex numbers cannot be one Volume, which would lose the imaginary part: "
            "give the magnitude, np.abs(data), or a ComplexVolume of data.real and data.imag to "
            "Restorer.restore_complex"
        )
    if array.dtype.kind not in "biuf":
        raise VolumeReadError(f"a scan is an array of real numbers, not of {array.dtype}")
    with np.errstate(over="ignore"):  # what becomes infinite is found by who looks at the values
        return array.astype(np.float32, copy=False)


def ras_axes(orientation: str) -> tuple[tuple[int, int, int], tuple[slice, slice, slice]]:
    """The order of axes, and then the flips, that bring an array into RAS order.

    Args:
        orientation: Anatomical direction of each array axis, such as "LPS".

    Raises:
        ShapeError: These are not three different axes.
    """
    if sorted(orientation.translate(str.maketrans("LPI", "RAS"))) != ["A", "R", "S"]:
        raise ShapeError(f"orientation {orientation!r} does not name three different axes")
    x, y, z = (next(a for a in range(3) if orientation[a] in pair) for pair in ("RL", "AP", "SI"))
    right, front, up = (
        slice(None, None, 1 if orientation[axis] in "RAS" else -1) for axis in (x, y, z)
    )
    return (x, y, z), (right, front, up)
