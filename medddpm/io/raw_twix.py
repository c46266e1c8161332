"""Siemens twix (.dat) to `RawScan`, by twixtools, an extra."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.display import printable
from medddpm.errors import MedddpmError, MissingExtraError, VolumeReadError, missing_extra
from medddpm.io.files import check_there
from medddpm.io.raw_lines import Line, epi_corrected, frame_words, gridded
from medddpm.io.raw_scan import RawScan, affine_of, stack_of

_FRAME = ("contrast", "phase", "repetition", "set")
_SIDES = ("dSag", "dCor", "dTra")
_CARTESIAN = 1
_OTHER_KINDS = {2: "radial", 4: "spiral", 8: "blade"}
"""Of ucTrajectory in the protocol."""


def read_twix(path: str | Path) -> RawScan:
    """The last, which is the imaging, measurement of a file.

    Samples on the ramps of an EPI readout are put onto an even grid, lines that were read
    backwards are turned, and the phase between both directions is taken off.

    Args:
        path: A .dat file.

    Raises:
        VolumeReadError: Not readable, not Cartesian, or without lines.
        GeometryError: Slices are no stack.
        MissingExtraError: twixtools is not installed.
    """
    path = Path(path)
    check_there(path)
    scans = _parsed(path)
    scan = scans[-1]
    try:
        noise = [m.data for s in scans for m in s["mdb"] if m.is_flag_set("NOISEADJSCAN")]
        return _read(scan, noise, path)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise VolumeReadError(
            f"{path}: its protocol lacks what is needed ({type(error).__name__}: {error})"
        ) from None


def _parsed(path: Path) -> list[Any]:
    try:
        import twixtools
    except ImportError:
        raise MissingExtraError(missing_extra("twixtools", "raw")) from None
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: list[Any] = twixtools.read_twix(
                str(path), parse_pmu=False, keep_syncdata=False, verbose=False
            )
    except MedddpmError:
        raise
    except Exception as error:  # whatever its parser meets in a damaged file
        raise VolumeReadError(
            f"{path} cannot be read as twix: {type(error).__name__}: {error}; it may be cut short"
        ) from None
    if not found or not found[-1].get("mdb"):
        raise VolumeReadError(f"{path} holds no measurement; it may be cut short: get it again")
    return found


def _read(scan: Any, noise: Sequence[NDArray[Any]], path: Path) -> RawScan:
    protocol = scan["hdr"]["MeasYaps"]
    space, slices = protocol["sKSpace"], protocol["sSliceArray"]["asSlice"]
    kind = int(space.get("ucTrajectory", _CARTESIAN))
    if kind != _CARTESIAN:
        raise VolumeReadError(
            f"{path} is not Cartesian ({_OTHER_KINDS.get(kind, kind)}), and twix does not tell "
            "where its samples lie; convert it to ISMRMRD with the trajectory in its readouts"
        )
    blocks = [m for m in scan["mdb"] if m.is_image_scan() or m.is_flag_set("PATREFSCAN")]
    if not blocks:
        raise VolumeReadError(f"{path} holds no line of an image")
    three = int(space["ucDimension"]) == 4
    base, columns = int(space["lBaseResolution"]), int(blocks[0].data.shape[1])
    oversampling = max(1, round(columns / base))
    matrix = (
        base * oversampling,
        int(space["lPhaseEncodingLines"]),
        int(space.get("lPartitions", 1)) if three else 1,
    )
    ramps = _ramps(scan, columns)
    lines = [_line(m, matrix, ramps) for m in blocks]
    phase = [m for m in scan["mdb"] if m.is_flag_set("PHASCOR")]
    if phase:
        lines = epi_corrected(lines, [_line(m, matrix, ramps) for m in phase])
    imaging = [line for line in lines if line.imaging]
    extent = slices[0]
    recon_fov = (
        float(extent["dReadoutFOV"]),
        float(extent["dPhaseFOV"]),
        float(extent["dThickness"]),
    )
    recon_matrix = (base, matrix[1], matrix[2])
    order, affine = _geometry(scan, imaging, recon_matrix, recon_fov, path)
    grid = gridded(imaging, matrix, order, str(path))
    calibration = None
    if any(not line.imaging for line in lines):
        found = gridded([ln for ln in lines if ln.calibrating], matrix, order, str(path))
        calibration = (found.kspace, found.mask)
    samples = np.concatenate(noise, axis=1) / np.sqrt(grid.averages) if noise else None
    frames = sorted({line.frame for line in imaging})
    return RawScan(
        grid.kspace,
        grid.mask,
        (recon_fov[0] * matrix[0] / base, recon_fov[1], recon_fov[2]),
        recon_matrix,
        recon_fov,
        affine,
        noise=None if samples is None else samples.astype(np.complex64),
        calibration=calibration,
        frames=tuple(frame_words(frame, _FRAME) for frame in frames),
        format="twix",
        source=path,
        case_id=printable(path.stem) or "scan",
        facts={"epi": bool(phase), "ramp_sampling": ramps is not None, "averages": grid.averages},
    )


def _ramps(scan: Any, columns: int) -> Any:
    """Where the samples of a readout with ramps lie; None if the gradient was constant."""
    from twixtools.recon_helpers import calc_regrid_traj

    return calc_regrid_traj(scan["hdr"], ncol=columns)


def _line(block: Any, matrix: Sequence[int], ramps: Any) -> Line:
    data = np.asarray(block.data)
    if ramps is not None and not block.is_flag_set("SKIP_REGRIDDING"):
        from twixtools.recon_helpers import perform_regrid

        data = perform_regrid(data, ramps, block.mdh.ReadOutOffcentre)
    middle, turned = int(block.mdh.CenterCol), block.is_flag_set("REFLECT")
    if turned:
        data = data[:, ::-1]
        middle = data.shape[1] - middle
    reference = block.is_flag_set("PATREFSCAN")
    both = block.is_flag_set("PATREFANDIMASCAN")
    navigating = block.is_flag_set("PHASCOR")
    return Line(
        np.ascontiguousarray(data, np.complex64),
        (
            int(block.cLin) - int(block.mdh.CenterLin) + matrix[1] // 2,
            int(block.cPar) - int(block.mdh.CenterPar) + matrix[2] // 2,
        ),
        middle,
        int(block.cSlc),
        (int(block.cEco), int(block.cPhs), 0 if navigating else int(block.cRep), int(block.cSet)),
        imaging=both or not reference,
        calibrating=both or reference,
        reversed=bool(turned),
    )


def _geometry(
    scan: Any,
    lines: Sequence[Line],
    shape: tuple[int, int, int],
    fov: Sequence[float],
    path: Path,
) -> tuple[list[int], NDArray[np.float64]]:
    """Slices in order, and the affine, from the positions and rotations of the readouts.

    The rotation's columns are phase, readout and slice; both of the plane run against the image's
    axes, as the transform's sign is the other one (twixtools, `geometry.py`).
    """
    from twixtools.geometry import quat_to_rotmat

    numbers = sorted({line.slice for line in lines})
    first: dict[int, Any] = {}
    for block in scan["mdb"]:
        if block.is_image_scan():
            first.setdefault(int(block.cSlc), block)
    places = [first[n].mdh.SliceData for n in numbers]
    positions = np.array(
        [[p.SlicePos.Sag, p.SlicePos.Cor, p.SlicePos.Tra] for p in places], np.float64
    )
    turn = quat_to_rotmat(*(float(q) for q in places[0].Quaternion))
    axes = [-turn[:, 1], -turn[:, 0], turn[:, 2]]
    spacing = [f / n for f, n in zip(fov, shape, strict=True)]
    order, step = stack_of(positions, axes[2], spacing[2], str(path))
    if len(numbers) > 1:
        spacing[2] = step
        return [numbers[i] for i in order], affine_of(
            positions[order[0]], axes, spacing, (*shape[:2], 1)
        )
    return numbers, affine_of(positions[0], axes, spacing, shape)
