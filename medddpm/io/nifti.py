"""NIfTI and MGH files to volumes, and volumes to NIfTI files."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from medddpm.display import printable
from medddpm.errors import ConfigError, GeometryError, VolumeReadError
from medddpm.io.dicom_values import number_or
from medddpm.io.files import atomic_path, check_intensities, check_output, check_there
from medddpm.io.nifti_forms import SPACE_BITS, Trust, choose_affine, decoded, in_mm, mm_per_unit
from medddpm.io.stored import Stored
from medddpm.io.stream import content_length, is_gzip, total_memory
from medddpm.volume import ComplexVolume, Geometry, Volume

nib: Any = nibabel  # untyped

READ_SUFFIXES = (".nii", ".nii.gz", ".img", ".img.gz", ".hdr", ".hdr.gz", ".mgz", ".mgh")
WRITE_SUFFIXES = (".nii", ".nii.gz", ".img", ".hdr")
_MM_CODE = 2
_UNREADABLE = (
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    OverflowError,
    MemoryError,
    KeyError,  # a code that nibabel does not know
    nib.freesurfer.mghformat.MGHError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
)


def suffix_of(path: Path, suffixes: tuple[str, ...] = READ_SUFFIXES) -> str:
    """The longest of `suffixes` that the name ends in; "" if none."""
    name = path.name.lower()
    return max((s for s in suffixes if name.endswith(s)), key=len, default="")


def read_nifti(
    path: str | Path, *, trust: Trust | None = None, may_be_even: bool = False
) -> Volume:
    """Read .nii, .nii.gz, .img/.hdr, .mgz or .mgh.

    Args:
        path: The file.
        trust: Which matrix to take where sform and qform disagree; the header that the volume
            carries keeps both, with their codes.
        may_be_even: One value everywhere is no error: this is a map, not a scan.

    Returns:
        float32 in the scan's units, scl_slope and scl_inter applied; (X, Y, Z) or
        (X, Y, Z, T). The affine is the header's in float64: bit for bit if its unit is mm or
        unknown (taken for mm), turned to mm if it is metre or micron (xyzt_units).

    Raises:
        VolumeReadError: Missing, cut short, damaged (gzip's checksum is wrong), no image, one
            slice, over four dimensions, complex or RGB, NaN or infinity, all zeros or constant;
            or the header claims more voxels than the file, or the memory, holds.
        GeometryError: No form is a transform, sform and qform put one space at two places, or
            voxels in metre or micron have a size that no scan has.
    """
    volume, _ = _read(Path(path), trust, "iuf")
    check_intensities(volume.data, str(path), may_be_even=may_be_even)
    return volume


def read_complex_nifti(path: str | Path, *, trust: Trust | None = None) -> ComplexVolume:
    """Read a file of complex numbers; all else is as in `read_nifti`."""
    real, imaginary = _read(Path(path), trust, "c")
    scan = ComplexVolume(real, real.with_data(imaginary))
    check_intensities(scan.magnitude.data, str(path))
    return scan


def is_complex_nifti(path: Path) -> bool:
    """Whether a file is an image of complex numbers, by its header; False if it is unreadable."""
    if not (path.is_file() and suffix_of(path)):
        return False
    try:
        with _readable(path):
            image: Any = nib.load(path)
    except (VolumeReadError, GeometryError):
        return False
    return bool(np.dtype(image.get_data_dtype()).kind == "c")


def _read(path: Path, trust: Trust | None, kinds: str) -> tuple[Volume, NDArray[np.float32]]:
    """A file of numbers of these kinds; the values are its real and its imaginary part."""
    check_there(path)
    if not path.is_file():
        raise VolumeReadError(f"{path} is not a file")
    with _readable(path):
        image: Any = nib.load(path)
    if not isinstance(image, (nib.nifti1.Nifti1Pair, nib.freesurfer.MGHImage)):
        raise VolumeReadError(
            f"{path} is {type(image).__name__}, whose place in space is not reliable or which "
            "is no volume; convert it to NIfTI first"
        )
    shape = _check_kind(image, path, kinds)
    is_mgh = isinstance(image, nib.freesurfer.MGHImage)
    with _readable(path):
        _check_size(image, shape, path)
        header = image.header.copy()
        if not isinstance(image, nib.freesurfer.MGHImage):  # nibabel forgets them in the header
            header.set_slope_inter(image.dataobj.slope, image.dataobj.inter)
        affine = np.array(image.affine) if is_mgh else choose_affine(header, shape, trust, path)
        geometry = Geometry((shape[0], shape[1], shape[2]), affine)
        if kinds == "c":
            values = np.asarray(image.dataobj).reshape(shape)
            parts = [np.asarray(part, np.float32) for part in (values.real, values.imag)]
        else:
            values = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
            parts = [values.reshape(shape), np.zeros(0, np.float32)]
    volume = Volume(
        data=parts[0],
        geometry=geometry,
        format="mgh" if is_mgh else "nifti",
        source=path,
        case_id=printable(path.name[: -len(suffix_of(path))]) or "scan",
        native=header,
    )
    return volume, parts[1]


def nifti_shape(path: Path) -> tuple[tuple[int, int, int], int]:
    """Shape and number of frames of a NIfTI or MGH file, from its header alone."""
    with _readable(path):
        image: Any = nib.load(path)
    shape = _check_kind(image, path)
    return (shape[0], shape[1], shape[2]), (shape[3] if len(shape) > 3 else 1)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what nibabel raises for a broken file into one clear error."""
    try:
        with np.errstate(all="ignore"):  # numbers that overflow are found by what becomes of them
            yield
    except VolumeReadError:
        raise
    except GeometryError as error:
        if str(path) in str(error):
            raise
        raise GeometryError(f"{path}: {error}") from error
    except _UNREADABLE as error:
        raise VolumeReadError(
            f"{path} cannot be read as an image: {error}; it may be cut short or of another format"
        ) from error
    except nib.filebasedimages.ImageFileError as error:
        raise VolumeReadError(f"{path} is no image that is known: {error}") from error


def _check_size(image: Any, shape: tuple[int, ...], path: Path) -> None:
    """Refuse a header that claims more than there is, before anything of that size is made.

    Compressed files are read to their end for it, where the checksum is: nibabel stops before.
    """
    name = image.file_map["image"].filename
    if name is None or not (file := Path(name)).is_file():
        raise VolumeReadError(f"{path}: the file with its voxels is not there")
    header = Path(image.file_map["header"].filename or name) if "header" in image.file_map else file
    if header != file and is_gzip(header):
        content_length(header)
    present = content_length(file)
    dtype, voxels = np.dtype(image.get_data_dtype()), math.prod(shape)
    needed = int(image.dataobj.offset) + voxels * dtype.itemsize
    sizes = " x ".join(map(str, shape))
    if present < needed:
        raise VolumeReadError(
            f"{path}: its header claims {sizes} voxels of {dtype}, {needed} bytes, and there are "
            f"{present}; the file is cut short, or its header is damaged: get it again"
        )
    wanted, memory = voxels * np.dtype(np.float32).itemsize, total_memory()
    if wanted > memory:
        raise VolumeReadError(
            f"{path}: its {sizes} voxels take {wanted / 1e9:.1f} GB of memory, and this machine "
            f"has {memory / 1e9:.1f} GB; cut it into parts, or take a larger machine"
        )


def _check_kind(image: Any, path: Path, kinds: str = "iuf") -> tuple[int, ...]:
    """The shape without trailing axes of length one, if it and the number type are usable."""
    dtype = np.dtype(image.get_data_dtype())
    if dtype.kind not in kinds:
        kind = {"c": "complex", "V": "RGB or other structured"}.get(dtype.kind, "real")
        needed = "a magnitude image of real" if "f" in kinds else "an image of complex"
        raise VolumeReadError(f"{path} holds {kind} values ({dtype}); {needed} numbers is needed")
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 3:
        raise VolumeReadError(f"{path} has one slice (shape {shape}); a volume is needed")
    if len(shape) > 4:
        raise VolumeReadError(
            f"{path} has {len(shape)} dimensions (shape {shape}); split it into 3D or 4D files"
        )
    if min(shape) < 1:
        raise VolumeReadError(f"{path} has no voxels (shape {shape}); its header is damaged")
    return shape


def write_nifti(
    volume: Volume, path: str | Path, *, overwrite: bool = False, stored: Stored | None = None
) -> Path:
    """Write NIfTI by atomic rename: float32 with slope 1 if not told otherwise.

    A header that came from NIfTI is kept: qform and sform with their codes, units, TR,
    extensions; an unknown spatial unit becomes mm. From other sources both forms get code 1
    (scanner), mm and seconds.

    Args:
        volume: What to write.
        path: Ends in .nii, .nii.gz, or .img or .hdr (then both are written).
        overwrite: Replace an existing file.
        stored: Integers to round to.

    Returns:
        The path.

    Raises:
        ConfigError: Another suffix.
        OutputError: It exists, or cannot be written.
    """
    path = Path(path)
    suffix = suffix_of(path, WRITE_SUFFIXES)
    if not suffix:
        raise ConfigError(f"{path.name}: the output must end in one of {', '.join(WRITE_SUFFIXES)}")
    is_pair = suffix in (".img", ".hdr")
    targets = [path.with_suffix(s) for s in (".img", ".hdr")] if is_pair else [path]
    for target in targets:
        check_output(target, overwrite)
    header = nifti_header(volume)
    wide = isinstance(header, nib.nifti2.Nifti2Header)
    kinds = (nib.Nifti1Pair, nib.Nifti2Pair) if is_pair else (nib.Nifti1Image, nib.Nifti2Image)
    # Without an affine, nibabel leaves both forms of the header as they are.
    data: NDArray[Any] = volume.data
    if stored is not None:
        data = stored.integers(data)
        header.set_data_dtype(data.dtype)
    image = kinds[wide](data, None, header)
    if stored is not None:  # a new image forgets those of its header
        image.header.set_slope_inter(stored.slope, stored.inter)
    with ExitStack() as stack:
        partials = [stack.enter_context(atomic_path(target)) for target in targets]
        holders = [nib.FileHolder(str(partial)) for partial in partials]
        image.to_file_map({"image": holders[0], "header": holders[-1]})
    return path


def nifti_header(volume: Volume) -> Any:
    """A NIfTI header for the volume: the source's own where there is one.

    Args:
        volume: Its `native` header is copied if it is NIfTI.

    Returns:
        nibabel Nifti1Header or Nifti2Header: float32, slope 1, the source's units or mm.
    """
    from medddpm.version import __version__

    is_nifti = isinstance(volume.native, nib.nifti1.Nifti1Header)
    header = volume.native.copy() if is_nifti else nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1, 0)
    header.set_data_shape(volume.data.shape)
    if not is_nifti:
        header.set_xyzt_units("mm", "sec")
    elif int(header["xyzt_units"]) & SPACE_BITS == 0:
        header["xyzt_units"] = int(header["xyzt_units"]) | _MM_CODE
    if not is_nifti or not _holds(header, volume.affine):
        _set_forms(header, volume.affine)
    if not is_nifti and volume.data.ndim == 4:
        header["pixdim"][4] = _repetition_seconds(volume)
    header["descrip"] = f"medddpm {__version__}"[:79].encode()
    return header


def _holds(header: Any, affine: NDArray[np.float64]) -> bool:
    """Whether an affine is one of those that a header states."""
    forms = [decoded(header, n) for n in ("sform", "qform") if int(header[f"{n}_code"]) > 0]
    known = [form for form in forms if form is not None]
    known = known or [in_mm(header, header.get_best_affine())]
    return any(np.allclose(form, affine, rtol=0, atol=1e-5) for form in known)


def _set_forms(header: Any, affine: NDArray[np.float64]) -> None:
    """Set both forms to an affine in mm; a qform cannot hold a sheared grid and gets code 0."""
    unit = mm_per_unit(header)
    affine = np.concatenate([affine[:3] / unit, affine[3:]])
    code = max(int(header["sform_code"]), 1)
    header.set_qform(affine, code=max(int(header["qform_code"]), 1))
    header.set_sform(affine, code=code)
    if not np.allclose(header.get_qform(), affine, rtol=0, atol=1e-3 / unit):
        header["qform_code"] = 0


def _repetition_seconds(volume: Volume) -> float:
    """Time between frames in seconds, 0 if the source does not tell."""
    if volume.format == "mgh":
        return float(volume.native.get_zooms()[3]) / 1000
    if volume.format == "dicom" and volume.native:
        return number_or(volume.native[0], "RepetitionTime", 0.0) / 1000
    return 0.0
