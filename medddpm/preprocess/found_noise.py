"""The noise of a scan, found from the scan alone: its level, its map and its colour."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.preprocess.intensity import Body, Mask, foreground_mask
from medddpm.preprocess.noise import (
    IN_NINE_OF_TEN,
    Level,
    Method,
    NoiseEstimate,
    air_level,
    body_level,
    check_noisy,
    estimate_noise,
    seen_axes,
)
from medddpm.preprocess.noise_blocks import BlockFit, Blocks, body_blocks, fit_blocks, flat_tissue
from medddpm.preprocess.noise_law import RICIAN, WHITE, Colour, NoiseLaw
from medddpm.preprocess.noise_map import noise_field
from medddpm.preprocess.noise_support import Hint, Support, crop_shape, find_support
from medddpm.preprocess.resample import resampled, zoomed

Triple = tuple[float, float, float]

_FLAT = 0.4
"""Windows whose log amplitude stays below this are those of white noise."""
_LEAST_SEEN = 0.25
"""Share of the noise that second differences must see, to tell its level."""
_BARELY_SEEN = 0.1
"""The same where blocks are doubted: of noise in an ellipse of k-space they see 0.19."""
_FEWEST_BLOCKS = 2000
"""For a slight colour to be believed where k-space shows no edge: fewer see too much anatomy."""
_DEEP, _CLEAR = 1.5, 16.0
"""The same as `_FLAT` for fewer blocks, absolute and in errors of the fit: in 64^3 voxels of 15
scans and white noise anatomy reached 1.2 and 12; filters from half of Hann on reach 1.2 and 20."""
_DOUBTFUL = 0.25
"""Relative error of sigma from which the lower end of its interval is taken."""
_FAINT = 0.02
"""Of the intensity scale: in noise below it, what varies may as well be anatomy."""
_SURE = 0.12
"""Relative error of sigma below which a map of it is asked for: where the level itself is partly
anatomy, so is what varies."""
_TAILS = (1.12, 1.22)
"""`BlockFit.tail` from where on, and from where on fully, it shows anatomy: in 30 simulated
acquisitions whose level was found within 20 % it is 1.0 to 1.13."""
_COARSE = (1.3, 2.5)
"""Acquired voxels in mm, the same: finer ones have flat tissue between their anatomy."""
_NEARLY_WHITE = 0.25
"""Log of the response of second differences: beyond this the noise is too far from white."""


_MOST_APART = 1.5
"""Ratio of the level of a map and that of flat tissue, at most."""
_AIR_ERROR = 0.06
"""Relative error of the level of the air where the noise is coloured: sigma may vary."""


@dataclass(frozen=True)
class FoundNoise:
    """The noise of one scan and how far to trust it.

    Attributes:
        law: Kind, coils, sigma (number or map) and colour, in scan units and on its grid.
        scale: Intensity scale that the scan would have without its noise.
        fraction: Sigma, or its median over the body, as a fraction of the scale.
        method: Where the level was measured: "air", "foreground", "given" by the user, or "none"
            where no noise is to be seen.
        error: Relative error of sigma that holds the truth in 9 of 10 scans.
        edge_error: Standard error of each edge, in fractions of Nyquist.
        num_voxels: Voxels that were used.
    """

    law: NoiseLaw
    scale: float
    fraction: float
    method: Method
    error: float
    edge_error: Triple
    num_voxels: int

    @property
    def evened(self) -> FoundNoise:
        """The same level everywhere."""
        return replace(self, law=replace(self.law, sigma=self.sigma))

    @property
    def estimate(self) -> NoiseEstimate:
        """The level as one number, with how far to trust it."""
        return NoiseEstimate(
            self.sigma, self.fraction, self.method, self.error, self.num_voxels, self.scale
        )

    @property
    def sigma(self) -> float:
        """The level as one number, in scan units."""
        sigma = self.law.sigma
        return sigma if isinstance(sigma, float) else self.fraction * self.scale


def find_noise(
    image: NDArray[Any],
    *,
    law: NoiseLaw = RICIAN,
    spacing: Triple = (1.0, 1.0, 1.0),
    colour: Colour | None = None,
    hint: Hint = (None, None, None),
    body: Body | None = None,
) -> FoundNoise:
    """The noise of one image.

    Args:
        image: (X, Y, Z) magnitudes in any unit.
        law: Kind and coils of the noise.
        spacing: Voxel edges in mm.
        colour: Of the noise on the grid of the image, where it is known; the level is found.
        hint: Where a header says that k-space ends along each axis, see `find_support`.
        body: Where the body is, if the image does not show it; that of the image if not given.
    """
    if colour is not None and colour.is_white:
        return white_noise(image, law=law, spacing=spacing, body=body)
    image = np.asarray(image, dtype=np.float32)
    known = body or Body.of(image)
    mask = known.mask
    check_noisy(image, mask)
    axes = seen_axes(spacing, image.shape)
    scale = known.scale()
    told = colour is not None
    if colour is None:
        support = find_support(image, mask, flat_tissue(image, mask, axes, scale), axes, hint)
    else:
        support = Support(colour.edge, colour.elliptical)
    whole = colour or support.colour()
    acquired = _acquired(image, body, mask, axes, scale, whole)
    on_grid = acquired.colour
    blocks = body_blocks(acquired.image, acquired.mask, axes, scale)
    dof = law.dof
    fit = None if blocks is None else fit_blocks(blocks, on_grid, dof, windows_known=told)
    if blocks is None or fit is None or (not told and support == Support() and _is_white(fit)):
        found = estimate_noise(image, law=law, spacing=spacing, body=known)
        white = _white(found, blocks, mask, law)
        return white if colour is None else _coloured(white, colour, axes)
    air = air_level(image, mask, axes, dof, support.edge)
    fit = _sharpened(fit, acquired, dof)
    if not told and (air is None or not _agree(air, fit)):
        size = float(np.prod(spacing) / np.prod(support.edge)) ** (1 / 3)
        fit = _doubted(fit, acquired, dof, size)
    method: Method = "foreground"
    num_voxels = 64 * fit.num_blocks
    if air is not None and _agree(air, fit):
        error = float(1 / np.hypot(1 / fit.error, 1 / air.error))
        fit = replace(fit, sigma=_together(air, fit), error=error)
        method, num_voxels = "air", air.num_voxels
    if fit.error > _DOUBTFUL:  # too much was anatomy: better some noise left than anatomy removed
        fit = replace(fit, sigma=fit.sigma * float(np.exp(-1.2 * fit.error)))
    if not told:
        windows = fit.windows
        if windows != on_grid.window:  # those that go with the level
            windows = fit_blocks(blocks, on_grid, dof, fit.sigma).windows
        whole, on_grid = replace(whole, window=windows), replace(on_grid, window=windows)
    law = replace(law, sigma=_level_or_map(fit, blocks, on_grid, mask, dof, scale), colour=whole)
    level = law.level(mask)
    clean = known.scale(level)
    error = IN_NINE_OF_TEN * fit.error
    if method == "air":
        error = float(np.hypot(_AIR_ERROR, error))
    return FoundNoise(law, clean, level / clean, method, error, support.error, num_voxels)


@dataclass(frozen=True)
class _Acquired:
    """A scan on the grid of its support.

    Attributes:
        image: (x, y, z).
        mask: Its body.
        axes: Those that second differences see.
        scale: Intensity scale.
        colour: Of white noise on the support, on this grid.
    """

    image: NDArray[np.float32]
    mask: Mask
    axes: tuple[int, ...]
    scale: float
    colour: Colour

    def difference_level(self, dof: int) -> Level | None:
        """What second differences see, as if the noise were white."""
        return body_level(self.image, self.mask, self.axes, dof, self.scale)


def _acquired(
    image: NDArray[np.float32],
    body: Body | None,
    mask: Mask,
    axes: tuple[int, ...],
    scale: float,
    colour: Colour,
) -> _Acquired:
    shape = crop_shape(image.shape, colour.edge)
    small = resampled(image, shape)
    ratio = [a / b for a, b in zip(shape, image.shape, strict=True)]
    small_mask = _mask_on(small, mask, is_known=body is not None)
    return _Acquired(small, small_mask, axes, scale, colour.on_grid(ratio))


def _level_or_map(
    fit: BlockFit, blocks: Blocks, colour: Colour, mask: Mask, dof: int, scale: float
) -> float | NDArray[np.float32]:
    """Sigma, as a map where it varies and is loud and sure enough to tell."""
    field = None
    if fit.sigma > _FAINT * scale and fit.error < _SURE:
        field = noise_field(blocks, colour, fit.sigma, dof)
    return fit.sigma if field is None else _bounded(field.sigma(mask.shape), mask, fit.sigma)


def _mask_on(small: NDArray[np.float32], mask: Mask, *, is_known: bool) -> Mask:
    """The body on the acquired grid: found there, but for one that the image does not show."""
    if small.shape == mask.shape:
        return mask
    return (
        zoomed(mask.astype(np.float32), small.shape) > 0.5 if is_known else foreground_mask(small)
    )


def known_noise(image: NDArray[Any], law: NoiseLaw, body: Body | None = None) -> FoundNoise:
    """Noise that is known.

    Args:
        image: (X, Y, Z) in any unit.
        law: In the same unit and on its grid.
        body: As in `find_noise`.
    """
    known = body or Body.of(np.asarray(image, dtype=np.float32))
    level = law.level(known.mask)
    scale = known.scale(level)
    return FoundNoise(law, scale, level / scale, "given", 0.0, (0.0,) * 3, 0)


def white_noise(
    image: NDArray[Any],
    *,
    law: NoiseLaw = RICIAN,
    spacing: Triple = (1.0, 1.0, 1.0),
    body: Body | None = None,
) -> FoundNoise:
    """The level of noise that is taken for white; arguments as in `find_noise`."""
    image = np.asarray(image, dtype=np.float32)
    known = body or Body.of(image)
    blocks = body_blocks(image, known.mask, seen_axes(spacing, image.shape), known.scale())
    found = estimate_noise(image, law=law, spacing=spacing, body=known)
    return _white(found, blocks, known.mask, law)


def _bounded(sigma: NDArray[np.float32], mask: Mask, level: float) -> NDArray[np.float32]:
    """A map as the blocks show it; far from the body its cosines say nothing.

    The level was found in flat tissue, and tissue looks flattest where there is least noise; that
    of the map itself counts busier tissue too. Both count alike, within half of the first.
    """
    low, high = np.percentile(sigma[mask], [1, 99])
    own = float(np.median(sigma[mask]))
    factor = np.sqrt(np.clip(own / level, 1 / _MOST_APART, _MOST_APART)) * level / own
    return np.asarray(factor * np.clip(sigma, low, high), np.float32)


def _sharpened(fit: BlockFit, scan: _Acquired, dof: int) -> BlockFit:
    """The level from second differences, which see less anatomy than blocks do.

    Where the noise is nearly white they decide. Elsewhere they count by their accuracy if they
    read less: anatomy that blocks took for noise only ever adds.
    """
    colour = replace(scan.colour, window=fit.windows)
    passed = [colour.second_difference_std(scan.axes, distance) for distance in (1, 2)]
    if passed[0] < _LEAST_SEEN:
        return fit
    level = scan.difference_level(dof)
    if level is None:
        return fit
    sigma, error = level.sigma / passed[0], float(np.hypot(level.error, 0.03))
    if all(abs(np.log(p)) < _NEARLY_WHITE for p in passed):
        return replace(fit, sigma=sigma, error=error)
    if sigma >= fit.sigma:
        return fit
    share = error**-2 / (error**-2 + fit.error**-2)
    apart = share * float(np.log(fit.sigma / max(sigma, 1e-30)))
    both = (error**-2 + fit.error**-2) ** -0.5
    return replace(
        fit, sigma=fit.sigma * float(np.exp(-apart)), error=float(np.hypot(both, 0.3 * apart))
    )


def _doubted(fit: BlockFit, scan: _Acquired, dof: int, size: float) -> BlockFit:
    """The fit, or what second differences see, where coarse voxels hold anatomy in every block.

    In blocks of 16 mm the spectrum of anatomy is that of filtered noise. What tells is that the
    coefficients are heavy-tailed; second differences then see least of it.

    Args:
        fit: Of the blocks.
        scan: On its acquired grid.
        dof: Real components 2 L of the magnitude.
        size: Edge of an acquired voxel in mm, the mean over the axes.
    """
    doubt = _share(fit.tail, *_TAILS) * _share(float(np.log(size)), *np.log(_COARSE))
    level = None if doubt == 0 else scan.difference_level(dof)
    seen = scan.colour.second_difference_std(scan.axes, 1)
    if level is None or seen < _BARELY_SEEN or level.sigma / seen >= fit.sigma:
        return fit
    apart = doubt * float(np.log(fit.sigma * seen / max(level.sigma, 1e-30)))
    windows = scan.colour.window if doubt > 0.5 else fit.windows
    error = float(np.hypot(fit.error, 0.5 * apart))
    return replace(fit, sigma=fit.sigma * float(np.exp(-apart)), error=error, windows=windows)


def _share(value: float, low: float, high: float) -> float:
    return float(np.clip((value - low) / (high - low), 0, 1))


def _coloured(found: FoundNoise, colour: Colour, axes: tuple[int, ...]) -> FoundNoise:
    """A level that was measured as if the noise were white, for the colour that it has."""
    seen = 1.0 if found.method == "air" else colour.second_difference_std(axes, 1)
    sigma = found.sigma / max(seen, _LEAST_SEEN)
    law = replace(found.law, sigma=sigma, colour=colour)
    return replace(found, law=law, fraction=sigma / found.scale)


def _agree(air: Level, body: BlockFit) -> bool:
    """True unless the air was silenced, or is dark tissue, or has another level than the body."""
    apart = abs(float(np.log(body.sigma / max(air.sigma, 1e-30))))
    return apart < 2.5 * float(np.hypot(air.error, body.error))


def _together(air: Level, body: BlockFit) -> float:
    """The level on which both witnesses agree, each weighted by its accuracy."""
    weights = np.array([air.error, body.error]) ** -2
    logs = np.log([air.sigma, body.sigma])
    return float(np.exp(np.sum(weights * logs) / np.sum(weights)))


def _is_white(fit: BlockFit) -> bool:
    """True if the windows are those of white noise, or not far enough from it for so few blocks."""
    depth = max(abs(np.log(max(v, 1e-6))) for window in fit.windows for v in window)
    if fit.num_blocks >= _FEWEST_BLOCKS:
        return bool(depth < _FLAT)
    return bool(depth < min(_DEEP, _CLEAR * fit.error)) or fit.error > _DOUBTFUL


def _white(
    found: NoiseEstimate,
    blocks: Blocks | None,
    mask: Mask,
    law: NoiseLaw,
) -> FoundNoise:
    dof = law.dof
    field = None
    if blocks is not None and found.fraction > _FAINT:
        field = noise_field(blocks, WHITE, found.sigma, dof)
    sigma = found.sigma if field is None else _bounded(field.sigma(mask.shape), mask, found.sigma)
    law = replace(law, sigma=sigma, colour=WHITE)
    fraction = law.level(mask) / found.scale
    return FoundNoise(
        law, found.scale, fraction, found.method, found.error, (0.0,) * 3, found.num_voxels
    )
