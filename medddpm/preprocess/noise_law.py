"""What is known of a scan's noise, as one object: its kind, its level and its colour.

Noise of a scanner is white where it is measured, in k-space. A finished image is another thing:
zero-filling, an elliptical scan and filters leave it with noise on a part of its k-space alone,
and neighbouring voxels share it. `Colour` is that part, `NoiseLaw` the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from medddpm.errors import ConfigError

Image = NDArray[np.float32]
NoiseKind = Literal["rician", "gaussian", "ncchi"]

_KNOTS = 64
"""Frequencies an axis at which the power of a block's coefficients is summed."""
_FREQUENCIES = (np.arange(_KNOTS) + 0.5) / _KNOTS
_LEAST_STD = 0.03
"""Of a coefficient, relative to white noise: less is no noise, but must not divide by zero."""


@dataclass(frozen=True)
class Colour:
    """Power spectrum of stationary noise on the grid of a scan, up to a factor.

    S(f) = prod_a w_a(|f_a|)^2 where |f_a| <= edge_a and, over the elliptical axes, the sum of
    (f_a / edge_a)^2 <= 1; elsewhere 0. Frequencies are fractions of the Nyquist frequency.

    Attributes:
        edge: Where the spectrum ends along each array axis, in (0, 1]; 1 is the whole of k-space.
        elliptical: Axes over which the corners are missing too; none, two or all three.
        window: For each axis, amplitudes at evenly spaced frequencies from 0 to its edge; one
            number is a flat spectrum.
    """

    edge: tuple[float, float, float] = (1.0, 1.0, 1.0)
    elliptical: tuple[int, ...] = ()
    window: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]] = (
        (1.0,),
        (1.0,),
        (1.0,),
    )

    def __post_init__(self) -> None:
        if len(self.edge) != 3 or len(self.window) != 3:
            raise ConfigError("a spectrum has an edge and a window for each of three axes")
        if not all(0 < e <= 1 for e in self.edge):
            raise ConfigError(f"the edge of a spectrum is {self.edge}; it lies in (0, 1]")
        if len(self.elliptical) == 1 or not set(self.elliptical) <= {0, 1, 2}:
            raise ConfigError(f"elliptical axes are {self.elliptical}; give none, two or all three")
        if not all(len(w) > 0 and min(w) >= 0 and max(w) > 0 for w in self.window):
            raise ConfigError("a window holds amplitudes of zero or more, one at least above it")

    @property
    def is_white(self) -> bool:
        """True if all frequencies have the same power."""
        flat = all(min(w) == max(w) for w in self.window)
        return flat and not self.elliptical and min(self.edge) >= 1

    def power(self, frequencies: Sequence[NDArray[np.floating]]) -> Image:
        """S on a grid, as it is: not normalised.

        Args:
            frequencies: For each axis, fractions of Nyquist, of either sign.
        """
        out: NDArray[Any] = np.ones((1, 1, 1), np.float32)
        radius: NDArray[Any] = np.zeros((1, 1, 1), np.float32)
        for axis, (f, edge, window) in enumerate(
            zip(frequencies, self.edge, self.window, strict=True)
        ):
            f = np.abs(np.asarray(f, np.float32)) / edge
            inside = f <= 1 + 1e-6
            knots = np.linspace(0, 1, len(window)) if len(window) > 1 else [0.0]
            amplitude = np.interp(f, knots, window)
            shape = [-1 if a == axis else 1 for a in range(3)]
            out = out * (inside * amplitude**2).astype(np.float32).reshape(shape)
            if axis in self.elliptical:
                radius = radius + (f**2).reshape(shape)
        return np.asarray(np.where(radius <= 1 + 1e-6, out, 0), np.float32)

    def field(self, shape: Sequence[int], rng: np.random.Generator) -> Image:
        """Gaussian noise of this colour and of standard deviation 1, periodic: (X, Y, Z)."""
        white = rng.standard_normal(tuple(shape), dtype=np.float32)
        if self.is_white:
            return white
        grid = [np.fft.fftfreq(n) * 2 for n in shape]
        amplitude = np.sqrt(self.power(grid))
        amplitude /= np.sqrt(np.mean(np.square(amplitude, dtype=np.float64)))
        half = fft.rfftn(white) * amplitude[..., : shape[-1] // 2 + 1].astype(np.float32)
        out: Image = fft.irfftn(half, s=tuple(shape)).astype(np.float32)
        return out

    def block_std(self, size: int = 4) -> NDArray[np.float32]:
        """Standard deviation of each DCT coefficient of a block, (size^3,), 1 if white.

        Noise of one unit a voxel has sum_f S(f) |Phi_k(f)|^2 / sum_f S(f) in coefficient k
        (Maggioni et al. 2013, eq. 6, with the spectrum of the block's basis functions).
        """
        return _block_std(self, size)

    def second_difference_std(self, axes: Sequence[int], distance: int) -> float:
        """What second differences over `axes` at a distance leave of this noise; 1 if white."""
        lines = [np.square(2 - 2 * np.cos(np.pi * distance * _FREQUENCIES)) / 6] * 3
        return float(np.sqrt(self._passed([lines[a] if a in axes else 1.0 for a in range(3)])))

    def smoothed_std(self, reach: Sequence[float]) -> float:
        """How much louder than white noise this is after a Gaussian of so many voxels an axis."""
        lines = [np.exp(-np.square(np.pi * r * _FREQUENCIES)) for r in reach]
        white = float(np.prod([line.mean() for line in lines]))
        return float(np.sqrt(self._passed(lines) / white))

    def neighbour_correlation(self, axis: int) -> float:
        """Correlation of neighbouring voxels along an axis; 0 if white."""
        line = np.cos(np.pi * _FREQUENCIES)
        return self._passed([line if a == axis else 1.0 for a in range(3)])

    def _passed(self, lines: Sequence[NDArray[np.float64] | float]) -> float:
        """Mean over the noise's spectrum of a product of one response an axis."""
        power = self.power([_FREQUENCIES] * 3).astype(np.float64)
        total = power.sum()
        for axis, line in enumerate(lines):
            power = power * np.reshape(line, [-1 if a == axis else 1 for a in range(3)])
        return float(power.sum() / total)

    def on_grid(self, ratio: Sequence[float]) -> Colour:
        """The colour on a grid with `ratio` times the voxels an axis, cropped in k-space."""
        edge = [min(1.0, e / r) for e, r in zip(self.edge, ratio, strict=True)]
        return replace(self, edge=(edge[0], edge[1], edge[2]))

    def moved(self, axes: Sequence[int]) -> Colour:
        """The colour of the image whose axis i is axis axes[i] of this one."""
        i, j, k = axes
        e, w = self.edge, self.window
        kept = tuple(n for n, a in enumerate(axes) if a in self.elliptical)
        return Colour((e[i], e[j], e[k]), kept, (w[i], w[j], w[k]))


WHITE = Colour()


@lru_cache(maxsize=64)
def _block_std(colour: Colour, size: int) -> NDArray[np.float32]:
    if colour.is_white:
        return np.ones(size**3, np.float32)
    f = _FREQUENCIES
    power = colour.power([f, f, f]).astype(np.float64)
    n, k = np.arange(size), np.arange(size)[:, None]
    basis = np.cos(np.pi / size * (n + 0.5) * k) * np.sqrt(2 / size)
    basis[0] /= np.sqrt(2)
    response = np.abs(basis @ np.exp(-1j * np.pi * n[:, None] * f)) ** 2
    mean = np.einsum("xyz,ax,by,cz->abc", power, response, response, response, optimize=True)
    std = np.sqrt(mean / power.sum()).ravel()
    std /= np.sqrt(np.mean(std**2))
    out: NDArray[np.float32] = np.maximum(std, _LEAST_STD).astype(np.float32)
    return out


def check_noise(kind: str, coils: int) -> None:
    """Raise ConfigError unless the kind is known and there is at least one coil."""
    if kind not in get_args(NoiseKind):
        known = ", ".join(get_args(NoiseKind))
        raise ConfigError(f"noise kind {kind!r} is unknown; choose one of {known}")
    if coils < 1:
        raise ConfigError(f"coils is {coils}; at least one coil is needed")


@dataclass(frozen=True)
class NoiseLaw:
    """The noise of one image: y = sqrt(sum_c |x_c + n_c|^2), n_c complex, Gaussian and coloured.

    Attributes:
        kind: "rician" is one coil, "ncchi" the root of the sum of squares of `coils`, and
            "gaussian" no magnitude at all.
        coils: Coils of "ncchi".
        sigma: Standard deviation of one real component: a number, or (X, Y, Z) where it varies.
        colour: Spectrum of each component.
    """

    kind: NoiseKind = "rician"
    coils: int = 1
    sigma: float | Image = 0.0
    colour: Colour = WHITE

    def __post_init__(self) -> None:
        check_noise(self.kind, self.coils)

    @property
    def num_coils(self) -> int:
        """Coils of the magnitude: 1 for Rician noise, 0 for Gaussian noise, no magnitude."""
        return {"gaussian": 0, "rician": 1, "ncchi": self.coils}[self.kind]

    @property
    def dof(self) -> int:
        """Real noise components 2 L in a magnitude; 0 stands for Gaussian noise."""
        return 2 * self.num_coils

    @property
    def is_magnitude(self) -> bool:
        """True unless the noise is Gaussian: a magnitude has no value below 0."""
        return self.kind != "gaussian"

    def level(self, mask: NDArray[np.bool_]) -> float:
        """Sigma as one number: where it varies, its median inside a mask."""
        return self.sigma if isinstance(self.sigma, float) else float(np.median(self.sigma[mask]))

    def added_to(self, signal: Image, rng: np.random.Generator) -> Image:
        """The signal (X, Y, Z) as a noisy scanner would have shown it, float32.

        The law depends on the signal through its magnitude alone, so all of it is put, without
        loss, into the real part of one coil.
        """
        sigma = np.asarray(self.sigma, np.float32)
        total = signal + sigma * self.colour.field(signal.shape, rng)
        if self.kind == "gaussian":
            return np.asarray(total, np.float32)
        power = np.square(total)
        for _ in range(self.dof - 1):
            power += np.square(sigma * self.colour.field(signal.shape, rng))
        return np.sqrt(power, dtype=np.float32)


RICIAN = NoiseLaw()
"""The magnitude of one coil. Where a level is sought, it is kind and coils of a law that count."""
