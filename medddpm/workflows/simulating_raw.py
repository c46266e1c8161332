"""Raw data made of a scan, and raw data with fewer lines, from file to file."""

from __future__ import annotations

from pathlib import Path

from medddpm.errors import ConfigError
from medddpm.io import check_output, read_volume, without_padding
from medddpm.io.raw import read_raw
from medddpm.io.raw_ismrmrd_write import write_ismrmrd
from medddpm.io.raw_scan import RawScan
from medddpm.reconstruction.masks import MaskKind, sampling_lines
from medddpm.reconstruction.simulated_raw import simulate_raw as simulated
from medddpm.reconstruction.trajectories import TrajectoryKind


def undersample(
    raw: str | Path,
    output: str | Path,
    mask: MaskKind,
    acceleration: float,
    *,
    acs: int = 24,
    seed: int = 0,
    overwrite: bool = False,
) -> RawScan:
    """Write a raw scan with some of its lines alone, as ISMRMRD; returns it.

    Args:
        raw: What `read_raw` takes.
        output: A .h5 file.
        mask: See `sampling_lines`; "uniform" for readouts of a trajectory, of which it keeps every
            R-th, as all of them are denser in the middle.
        acceleration: R.
        acs: Lines of calibration in the middle.
        seed: Of a random mask.
        overwrite: Replace an output that exists.

    Raises:
        ConfigError: The mask does not suit the scan.
    """
    path = check_output(output, overwrite)
    scan = read_raw(raw)
    _, y, z = scan.encoded_matrix
    if scan.trajectory is not None:
        if mask != "uniform":
            raise ConfigError(
                f"{raw} is {scan.trajectory.kind}, and mask {mask} is of lines on a grid; take "
                "--mask uniform, which keeps every R-th readout"
            )
        y, z, acs = scan.kspace.shape[4], 1, 0
    lines = sampling_lines(mask, (y, z), acceleration, acs=acs, seed=seed)
    fewer = scan.undersampled(lines)
    write_ismrmrd(fewer, path)
    return fewer


def simulate_raw(
    clean: str | Path,
    output: str | Path,
    sigma: float,
    *,
    coils: int = 8,
    seed: int = 0,
    trajectory: TrajectoryKind | None = None,
    overwrite: bool = False,
) -> RawScan:
    """Write raw data of a clean scan as ISMRMRD; returns it.

    Args:
        clean: A scan.
        output: A .h5 file.
        sigma: Noise as a fraction of the intensity scale.
        coils: Of the receiver.
        seed: Of coils, phase and noise.
        trajectory: "radial" or "spiral"; a grid if not given.
        overwrite: Replace an output that exists.
    """
    path = check_output(output, overwrite)
    volume = without_padding(read_volume(clean))
    scan = simulated(volume, sigma, coils=coils, seed=seed, trajectory=trajectory)
    write_ismrmrd(scan, path)
    return scan
