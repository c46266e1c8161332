"""What a reconstruction is given: whitened k-space at intensity scale 1, and its operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from medddpm.errors import ShapeError
from medddpm.operators.compression import compression_matrix
from medddpm.operators.espirit import espirit_maps
from medddpm.operators.fourier import cropped, fft, ifft
from medddpm.operators.linear import Sense, hybrid, varies
from medddpm.operators.nufft import NufftSense
from medddpm.operators.whitening import (
    edge_samples,
    mixed,
    noise_covariance,
    whitening_matrix,
)

_LEAST_CENTRE = 11
"""Lines of calibration along an encoded axis: fewer than 2 x 6 - 1 hold no kernel's worth."""
_MOST_CENTRE = 24
_BRIGHT = 0.995


@dataclass(frozen=True)
class Problem:
    """One image, or a stack of slices as a batch, to be reconstructed.

    Attributes:
        sense: A; its maps have a sum of squares of 1 where there is signal.
        data: (B, C, X, Y, Z) whitened k-space as `sense` takes it, over `scale`.
        sigma: Standard deviation of a real component of the noise of a sample, over `scale`.
        scale: What turns the image into units of the noise: its bright tissue.
        centre: (B, C, x, y, z) the calibration, whitened, over `scale`.
        spacing: Voxel size of the encoded matrix in mm.
        acceleration: Samples of the grid over those that were measured.
        norm: The largest eigenvalue of A^H A, or a little more; 1 on a grid.
        sample_noise: Standard deviation of a real component of a sample over `sigma`, which is that
            of a fully measured image: 1 on a grid.
    """

    sense: Sense | NufftSense
    data: Tensor
    sigma: float
    scale: float
    centre: Tensor
    spacing: tuple[float, float, float]
    acceleration: float
    norm: float = 1.0
    sample_noise: float = 1.0

    @property
    def start(self) -> Tensor:
        """A^H y, (B, X, Y, Z)."""
        return self.sense.adjoint(self.data)

    def planes(self, start: int, stop: int) -> Problem:
        """Some planes across the readout, X, of which all samples were measured.

        Raises:
            ShapeError: Samples along it are missing, so that the planes depend on each other.
        """
        if isinstance(self.sense, NufftSense) or -3 in self.sense.axes:
            raise ShapeError("planes along X hang together where samples along X are missing")
        part = slice(start, stop)
        sense = replace(self.sense, maps=self.sense.maps[:, :, part])
        return replace(self, sense=sense, data=self.data[:, :, part])

    def undersampled(self, lines: Tensor) -> Problem:
        """The same with some lines alone, of a problem of which all were measured.

        Maps and scale stay; they are those of the undersampled data where `lines` hold the centre.

        Args:
            lines: (Y, Z) that are kept.

        Raises:
            ShapeError: The samples lie on no grid.
        """
        if isinstance(self.sense, NufftSense):
            raise ShapeError("samples on no grid have no lines of a grid to leave out")
        back = [axis for axis in (-2, -1) if axis not in self.sense.axes]
        kspace = fft(self.data, back) * lines
        varying = [axis for axis in (-2, -1) if not bool((lines == lines.narrow(axis, 0, 1)).all())]
        left = tuple(varying) or (-1,)
        done = [axis for axis in (-2, -1) if axis not in left]
        mask = lines[None, None]
        for axis in done:
            mask = mask.narrow(axis, 0, 1)
        data = ifft(kspace, done) if done else kspace
        share = float(lines.float().mean())
        sense = Sense(self.sense.maps, mask, left)
        return replace(self, sense=sense, data=data, acceleration=1 / share)


def make_problem(
    kspace: Tensor,
    mask: Tensor,
    spacing: tuple[float, float, float],
    *,
    noise: Tensor | None = None,
    calibration: tuple[Tensor, Tensor] | None = None,
    coils: int | None = None,
    maps: Tensor | None = None,
) -> Problem:
    """Whiten, compress, find the sensitivities and the scale.

    Args:
        kspace: (B, C, X, Y, Z), zero where nothing was measured.
        mask: (B or 1, X, Y, Z), where it was.
        spacing: Voxel size in mm.
        noise: (C, N) samples without signal; the ends of k-space if not given.
        calibration: K-space and mask of lines that were measured for the maps alone.
        coils: Compress to so many.
        maps: (B or 1, C, X, Y, Z) known sensitivities of the whitened coils.

    Raises:
        ShapeError: The centre of k-space is not fully measured, and maps are not given.
    """
    samples = edge_samples(kspace, mask) if noise is None else noise
    needed = maps is None and kspace.shape[1] > 1
    centre = _centre(*(calibration or (kspace, mask)), needed=needed)
    matrix = whitener(samples, kspace.shape[1])
    if coils is not None and coils < kspace.shape[1]:
        matrix = compression_matrix(mixed(centre, matrix), coils) @ matrix
    kspace, centre = mixed(kspace, matrix), mixed(centre, matrix)
    maps = sensitivities(centre, kspace.shape[2:]) if maps is None else maps
    data, short, axes = hybrid(kspace, mask)
    sense = Sense(maps, short, axes)
    scale = brightness(centre, sense.maps)
    share = float(mask.float().mean())
    return Problem(sense, data / scale, 1 / scale, scale, centre / scale, spacing, 1 / share)


def whitener(samples: Tensor, coils: int) -> Tensor:
    """(C, C), see `whitening_matrix`.

    Args:
        samples: (C, N) of noise.
        coils: Of k-space.

    Raises:
        ShapeError: The noise is of other coils.
    """
    if len(samples) != coils:
        raise ShapeError(
            f"the noise samples are of {len(samples)} coils, and k-space of {coils}; "
            "give the noise scan of this measurement"
        )
    return whitening_matrix(noise_covariance(samples))


def sensitivities(centre: Tensor, shape: Sequence[int]) -> Tensor:
    """(B, C, X, Y, Z) maps of each slice from its centre; 1 for a single coil.

    Args:
        centre: (B, C, x, y, z) the middle of k-space.
        shape: X, Y, Z.

    Raises:
        ShapeError: The centre is too small, or blank.
    """
    if centre.shape[1] == 1:
        return torch.ones(1, 1, *shape, dtype=centre.dtype, device=centre.device)
    return torch.stack([espirit_maps(c, shape) for c in centre])


def centre_shape(mask: Tensor, most: int = _MOST_CENTRE) -> tuple[int, int, int]:
    """Sizes of the largest box of at most `most` lines about the centre with no gap.

    Args:
        mask: (B or 1, X, Y, Z).
        most: Lines along each axis.

    Raises:
        ShapeError: It has fewer lines than maps need along an axis that is longer.
    """
    everywhere = mask.bool().all(dim=0)
    best: tuple[int, ...] | None = None
    for x in _sizes(everywhere, 0, most):
        gaps = (~cropped(everywhere, (x,), (0,))).any(dim=0)
        for y, z in product(_sizes(everywhere, 1, most), _sizes(everywhere, 2, most)):
            larger = best is None or x * y * z > best[0] * best[1] * best[2]
            if larger and not bool(cropped(gaps, (y, z), (0, 1)).any()):
                best = (x, y, z)
    if best is None:
        raise ShapeError(
            "the centre of k-space is not fully measured, so coil sensitivities cannot be found in "
            "it: there are no calibration lines; give a scan that has them, or one with 12 or more "
            "adjacent lines in the middle of each encoded axis"
        )
    return best[0], best[1], best[2]


def _sizes(mask: Tensor, axis: int, most: int) -> list[int]:
    """The sizes that come into question along an axis, the largest first."""
    length = mask.shape[axis]
    largest = min(length, most)
    if not varies(mask, axis - 3):
        return [largest]
    return list(range(largest, min(_LEAST_CENTRE, length) - 1, -1))


def _centre(kspace: Tensor, mask: Tensor, *, needed: bool) -> Tensor:
    """(B, C, x, y, z), the fully measured middle."""
    try:
        return cropped(kspace, centre_shape(mask))
    except ShapeError:
        if needed:
            raise
        return cropped(kspace, [min(n, _MOST_CENTRE) for n in kspace.shape[2:]])


def brightness(centre: Tensor, maps: Tensor) -> float:
    """Bright tissue of a low-resolution image, in units of whitened noise."""
    shape = maps.shape[2:]
    low = ifft(cropped(centre, shape))
    image = (maps.conj() * low).sum(dim=1).abs()
    inside = image[maps.abs().sum(dim=1).expand_as(image) > 0]
    if not len(inside) or float(inside.max()) == 0:
        raise ShapeError("no coil has signal in the centre of k-space; this is no scan")
    count = max(1, int((1 - _BRIGHT) * len(inside)))
    return float(inside.topk(count).values[-1])
