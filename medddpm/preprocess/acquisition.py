"""A scan as a scanner would have acquired it: what it makes of the object, and its noise.

The noise of a scanner is white and complex in k-space, on the matrix that was acquired. What the
scanner does then is linear but for the magnitude at the end, so each real component of the image
gets Gaussian noise with the spectrum of the sampling and the filter, and a level that parallel
imaging multiplies by the square root of R and by the g-factor (Pruessmann et al., Magn Reson Med
42:952, 1999, eq. 23). The clean image passes the same chain: the aim of a restoration is the scan
without noise, not a sharper one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Interval
from numpy.typing import NDArray
from scipy import fft, ndimage

from medddpm.errors import ConfigError
from medddpm.preprocess.noise_law import Colour, Image, NoiseKind, NoiseLaw
from medddpm.preprocess.rotation import rotated, spline_power

Filter = Literal["none", "tukey", "hann", "hamming", "fermi", "kaiser"]
Triple = tuple[float, float, float]
Axis = Annotated[int, Interval(ge=0, le=2)]
Degrees = Annotated[float, Interval(ge=-180, le=180)]

_KNOTS = 17
"""Of the window of a colour along an axis."""
_COARSE = 24
"""Voxels an axis of the grid on which the coils are simulated."""


@dataclass(frozen=True)
class Acquisition:
    """How a scan is acquired, reconstructed and handled; a sidecar can hold it.

    Attributes:
        sigma: Noise of one real component where nothing amplifies it, on the intensity scale,
            in the image before it is normalised or resampled.
        kind: "rician" for coils that are combined adaptively, "ncchi" for the sum of squares.
        coils: Of the receiver; with "ncchi" the law's, and with acceleration the g-factor's.
        matrix: Acquired over reconstructed matrix along each axis, in (0, 1]: zero-filling.
        elliptical: Axes over which the corners of k-space are not measured.
        filter: Of k-space, along the axes of `filtered`.
        filter_strength: 0 leaves k-space as it is, 1 is the strongest of its kind.
        filtered: Axes that the filter acts along.
        partial_fourier: Share of the lines that are measured along `partial_axis`.
        partial_axis: Phase encoding, where there is partial Fourier.
        homodyne: The missing lines are filled by symmetry (Noll et al., IEEE TMI 10:154, 1991);
            otherwise by zeros.
        acceleration: R of parallel imaging along `partial_axis`; 1 is none.
        normalised: Strength of a prescan normalisation, which multiplies signal and noise by a
            smooth field; 0 is none.
        blur: Standard deviation of a Gaussian smoothing in voxels; below 0 sharpens by as much.
        rotation: Degrees about each axis of a rigid resampling; all 0 is none.
        interpolation: Order of its spline: 1 or 3.
        bits: Grey levels 2^bits that the image is rounded to; 0 is none.
        masked: The background is set to zero, as by brain extraction or defacing.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    sigma: float
    kind: NoiseKind = "rician"
    coils: Annotated[int, Ge(1)] = 1
    matrix: Triple = (1.0, 1.0, 1.0)
    elliptical: tuple[Axis, ...] = ()
    filter: Filter = "none"
    filter_strength: Annotated[float, Interval(ge=0, le=1)] = 0.0
    filtered: tuple[Axis, ...] = (0, 1, 2)
    partial_fourier: float = 1.0
    partial_axis: Axis = 1
    homodyne: bool = False
    acceleration: int = 1
    normalised: Annotated[float, Interval(ge=0, le=2)] = 0.0
    blur: Annotated[float, Interval(ge=-2, le=8)] = 0.0
    rotation: tuple[Degrees, Degrees, Degrees] = (0.0, 0.0, 0.0)
    interpolation: Literal[1, 3] = 1
    bits: Annotated[int, Interval(ge=0, le=24)] = 0
    masked: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.sigma) and self.sigma >= 0):
            raise ConfigError(f"sigma is {self.sigma}; give a finite fraction, zero or more")
        if not 0.5 < self.partial_fourier <= 1:
            raise ConfigError(f"partial Fourier is {self.partial_fourier}; it lies in (0.5, 1]")
        if not 1 <= self.acceleration <= 8:
            raise ConfigError(f"the acceleration is {self.acceleration}; it lies between 1 and 8")
        self.colour()  # raises where the matrix or the ellipse is none

    @property
    def is_uneven(self) -> bool:
        """True if sigma varies over the image."""
        return self.acceleration > 1 or self.normalised > 0

    def colour(self) -> Colour:
        """Spectrum of the noise of each real component, before any resampling."""
        windows = [self._window(axis, _noise_share) for axis in range(3)]
        return Colour(self.matrix, self.elliptical, (windows[0], windows[1], windows[2]))

    def _signal(self) -> Colour:
        windows = [self._window(axis, _signal_share) for axis in range(3)]
        return Colour(self.matrix, self.elliptical, (windows[0], windows[1], windows[2]))

    def _window(self, axis: int, share: _Share) -> tuple[float, ...]:
        """Amplitudes from the centre of k-space to the edge of what was measured."""
        f = np.linspace(0, 1, _KNOTS)
        amplitude = np.ones(_KNOTS)
        if self.filter != "none" and axis in self.filtered:
            amplitude *= filter_window(self.filter, self.filter_strength, f)
        if axis == self.partial_axis and self.partial_fourier < 1:
            alone = f > 2 * self.partial_fourier - 1
            amplitude *= np.where(alone, share(homodyne=self.homodyne), 1.0)
        amplitude *= _smoothing(self.blur, f * self.matrix[axis])
        flat = float(np.ptp(amplitude)) == 0
        return (float(amplitude[0]),) if flat else tuple(float(a) for a in amplitude)


def draw_acquisition(
    sigma: float, spacing: Triple, rng: np.random.Generator, *, on_own_grid: bool = False
) -> Acquisition:
    """A random acquisition of the kinds that are met: 2D or 3D, filled with zeros, filtered.

    Args:
        sigma: As in `Acquisition`.
        spacing: Voxel edges in mm: thick slices are 2D and keep their matrix.
        rng: Source of randomness.
        on_own_grid: The grid is that of the acquired matrix, up to a tenth.
    """
    thick = [s > 1.5 * min(spacing) for s in spacing]
    fine = [a for a in range(3) if not thick[a]]
    low = 0.88 if on_own_grid else 0.5
    both = float(rng.uniform(low, 1)) if rng.random() < 0.7 else 1.0
    alone = float(rng.uniform(low, 1)) if rng.random() < 0.5 else both
    slice_axis = int(rng.choice(fine))
    matrix = [1.0 if thick[a] else (alone if a == slice_axis else both) for a in range(3)]
    shape = rng.random()
    elliptical = tuple(fine) if shape < 0.25 else tuple(a for a in fine if a != slice_axis)
    kinds: list[Filter] = ["tukey", "hann", "hamming", "fermi", "kaiser"]
    magnitude = rng.random()
    parallel = rng.random() < 0.3
    turned = rng.random() < 0.15
    return Acquisition(
        sigma,
        kind="rician" if magnitude < 0.85 else "ncchi" if magnitude < 0.93 else "gaussian",
        coils=int(rng.choice([16, 24, 32])) if parallel else int(rng.integers(2, 9)),
        matrix=(matrix[0], matrix[1], matrix[2]),
        elliptical=elliptical if shape < 0.6 and len(elliptical) > 1 else (),
        filter=str(rng.choice(kinds)) if rng.random() < 0.5 else "none",  # type: ignore[arg-type]
        filter_strength=float(rng.uniform(0.2, 1)),
        filtered=tuple(fine),
        partial_fourier=float(rng.choice([5 / 8, 6 / 8, 7 / 8])) if rng.random() < 0.2 else 1.0,
        partial_axis=int(rng.choice(fine)),
        homodyne=bool(rng.random() < 0.6),
        acceleration=int(rng.choice([2, 3])) if parallel and magnitude < 0.85 else 1,
        normalised=float(rng.uniform(0.1, 0.5)) if rng.random() < 0.3 else 0.0,
        blur=float(rng.uniform(-0.4, 0.7)) if rng.random() < 0.25 else 0.0,
        rotation=tuple(float(v) for v in rng.uniform(-8, 8, 3)) if turned else (0.0, 0.0, 0.0),  # type: ignore[arg-type]
        interpolation=1 if rng.random() < 0.5 else 3,
        bits=int(rng.choice([8, 12])) if rng.random() < 0.25 else 0,
        masked=bool(rng.random() < 0.4),
    )


class _Share:
    """Amplitude of a frequency of which one side alone was measured, in the real part."""

    def __init__(self, filled: float, zeros: float) -> None:
        self.filled, self.zeros = filled, zeros

    def __call__(self, *, homodyne: bool) -> float:
        return self.filled if homodyne else self.zeros


_signal_share = _Share(1.0, 0.5)
_noise_share = _Share(float(np.sqrt(2)), float(np.sqrt(0.5)))


@dataclass(frozen=True)
class Acquired:
    """A simulated scan.

    Attributes:
        noisy: (X, Y, Z) float32.
        clean: The same chain without noise.
        law: Its noise: sigma at each voxel, and the colour.
        acquisition: What was simulated.
    """

    noisy: Image
    clean: Image
    law: NoiseLaw
    acquisition: Acquisition = field(repr=False)


def acquire(
    image: Image,
    acquisition: Acquisition,
    rng: np.random.Generator,
    *,
    fields: np.random.Generator | None = None,
) -> Acquired:
    """The image as acquired, with and without noise.

    Args:
        image: (X, Y, Z), clean, on the intensity scale.
        acquisition: What to simulate.
        rng: Source of the noise.
        fields: Source of the coils and of the normalisation; `rng` if not given.
    """
    a, fields = acquisition, fields or rng
    clean = np.abs(filtered(image, a._signal()))
    sigma: float | Image = a.sigma
    if a.acceleration > 1:
        gain = g_factor(image.shape, a.coils, a.acceleration, a.partial_axis, fields)
        sigma = (a.sigma * np.sqrt(a.acceleration) * gain).astype(np.float32)
    law = NoiseLaw(a.kind, a.coils if a.kind == "ncchi" else 1, sigma, a.colour())
    noisy = law.added_to(clean, rng)
    if a.normalised:
        bias = smooth_field(image.shape, a.normalised, fields)
        noisy, clean, sigma = noisy * bias, clean * bias, np.asarray(sigma, np.float32) * bias
        law = replace(law, sigma=sigma)
    if any(a.rotation):
        noisy, clean, law = _resampled(noisy, clean, law, a)
    if a.masked:
        outside = clean < 0.03
        noisy = np.where(outside, np.float32(0), noisy)
        clean = np.where(outside, np.float32(0), clean)
    if a.bits:
        noisy = _rounded(noisy, a.bits)
    return Acquired(noisy.astype(np.float32), clean.astype(np.float32), law, a)


def filtered(image: Image, colour: Colour) -> Image:
    """The image with its spectrum times the square root of a colour's power.

    In the cosine basis, which continues an image by its mirror image: a crop, or a slab that ends
    inside the body, has no jump at its edges and does not ring.
    """
    if colour.is_white:
        return np.array(image, np.float32)
    power = colour.power([np.arange(n) / n for n in image.shape])
    out: Image = fft.idctn(fft.dctn(image, norm="ortho") * np.sqrt(power), norm="ortho")
    return out.astype(np.float32)


def filter_window(kind: Filter, strength: float, f: NDArray[np.float64]) -> NDArray[np.float64]:
    """Amplitude of a k-space filter at fractions f of the edge; 1 where strength is 0."""
    if kind == "tukey":  # flat, then a cosine over the outer `strength`
        start = 1 - strength
        out = np.where(f <= start, 1, 0.5 + 0.5 * np.cos(np.pi * (f - start) / max(strength, 1e-6)))
    elif kind in ("hann", "hamming"):
        low = 0.0 if kind == "hann" else 0.08
        full = low + (1 - low) * (0.5 + 0.5 * np.cos(np.pi * f))
        out = 1 - strength * (1 - full)
    elif kind == "fermi":
        out = 1 / (1 + np.exp((f - (1.1 - 0.3 * strength)) / (0.02 + 0.08 * strength)))
        out = out / out[0]
    elif kind == "kaiser":
        beta = 6 * strength
        out = np.i0(beta * np.sqrt(np.clip(1 - f**2, 0, 1))) / np.i0(beta)
    else:
        out = np.ones_like(f)
    return np.asarray(out, np.float64)


def _smoothing(blur: float, f: NDArray[np.float64]) -> NDArray[np.float64]:
    """Transfer of a Gaussian of so many voxels, or of its unsharp mask, at fractions of Nyquist."""
    gauss = np.exp(-0.5 * (np.pi * f * abs(blur)) ** 2)
    return gauss if blur >= 0 else 2 - gauss


def g_factor(
    shape: tuple[int, ...], coils: int, acceleration: int, axis: int, rng: np.random.Generator
) -> Image:
    """Noise amplification of SENSE at each voxel, 1 or more: (X, Y, Z).

    g = sqrt([(S^H S)^-1]_ii [S^H S]_ii) over the voxels that fold onto each other (Pruessmann et
    al. 1999, eq. 25), from `simulated_coils` on a coarse grid.
    """
    if coils < acceleration:
        raise ConfigError(f"{coils} coils cannot be accelerated {acceleration} times")
    n = _COARSE // acceleration * acceleration
    maps = np.moveaxis(simulated_coils((n, n, n), coils, rng), axis + 1, 1)
    folded = maps.reshape(coils, acceleration, n // acceleration, n, n)
    s = np.moveaxis(folded, (0, 1), (-2, -1))
    normal = np.conj(np.swapaxes(s, -1, -2)) @ s
    normal += (
        1e-3 * np.trace(normal, axis1=-2, axis2=-1).real[..., None, None] * np.eye(acceleration)
    )
    inverse = np.linalg.inv(normal)
    g2 = np.einsum("...ii->...i", inverse).real * np.einsum("...ii->...i", normal).real
    g = np.sqrt(np.maximum(np.moveaxis(g2, -1, 0).reshape(n, n, n), 1.0))
    g = np.moveaxis(g, 0, axis)
    factors = [m / n for m in shape]
    full = ndimage.zoom(g, factors, order=1, mode="nearest", grid_mode=True)
    return np.asarray(full, np.float32)


def simulated_coils(
    shape: tuple[int, int, int], coils: int, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Smooth complex sensitivities (coils, X, Y, Z) of elements around the body.

    Each falls off with the distance from a place on a sphere, and its phase turns slowly; their
    sum of squares is 1.
    """
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    # A spiral spreads them evenly; a random rotation of it is a random set of coils.
    height = 1 - 2 * (np.arange(coils) + 0.5) / coils
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(coils)
    across = np.sqrt(1 - height**2)
    places = np.stack([across * np.cos(turn), across * np.sin(turn), height])
    places = 1.4 * np.linalg.qr(rng.normal(size=(3, 3)))[0] @ places
    offset = grid[:, None] - places[:, :, None, None, None]
    distance = np.square(offset).sum(axis=0)
    reach = rng.uniform(0.3, 0.6)
    slope = rng.normal(0, 0.7, (coils, 3))
    phase = (
        np.einsum("ca,axyz->cxyz", slope, grid)
        + rng.uniform(0, 2 * np.pi, coils)[:, None, None, None]
    )
    maps = (reach**2 + distance) ** -1.5 * np.exp(1j * phase)
    maps /= np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    return np.asarray(maps, np.complex64)


def smooth_field(shape: tuple[int, ...], strength: float, rng: np.random.Generator) -> Image:
    """A slowly varying positive field of mean about 1: exp(strength * smooth noise)."""
    coarse = rng.standard_normal((4, 4, 4))
    factors = [n / 4 for n in shape]
    smooth = ndimage.zoom(coarse, factors, order=1, mode="nearest", grid_mode=True)
    out = np.exp(strength * smooth)
    return np.asarray(out / out.mean(), np.float32)


def _resampled(
    noisy: Image, clean: Image, law: NoiseLaw, a: Acquisition
) -> tuple[Image, Image, NoiseLaw]:
    """A rigid rotation about the centre; the noise passes the spline's own low-pass.

    Averaged over the places between the voxels, linear interpolation has the power
    (2 + cos(pi f)) / 3 at frequency f of Nyquist along each axis, a cubic spline that of its
    cardinal spline.
    """
    windows, mean = [], 1.0
    for axis in range(3):
        f = np.linspace(0, law.colour.edge[axis], _KNOTS)
        power = spline_power(a.interpolation, f)
        known = np.asarray(law.colour.window[axis])
        knots = np.linspace(0, 1, len(known)) if len(known) > 1 else [0.0]
        before = np.interp(np.linspace(0, 1, _KNOTS), knots, known) ** 2
        mean *= float(np.sum(before * power) / np.sum(before))
        windows.append(tuple(float(v) for v in np.sqrt(before * power)))
    colour = replace(law.colour, window=(windows[0], windows[1], windows[2]))
    sigma = law.sigma if isinstance(law.sigma, float) else rotated(law.sigma, a.rotation, 1)
    sigma = sigma * np.sqrt(mean) if isinstance(sigma, float) else sigma * np.float32(np.sqrt(mean))
    law = replace(law, sigma=sigma, colour=colour)
    turned = [rotated(v, a.rotation, a.interpolation) for v in (noisy, clean)]
    noisy, clean = (np.maximum(v, 0) for v in turned)
    return noisy, clean, law


def _rounded(image: Image, bits: int) -> Image:
    step = max(float(image.max()), 1e-6) / (2**bits - 1)
    return np.asarray(np.rint(image / step) * step, np.float32)
