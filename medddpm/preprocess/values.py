"""What the values of a scan are: looked at before anything is done to it, and only here.

The law of a magnitude knows no negative value, so one that has them is no magnitude: it was
standardised, shifted or corrected, or it is a phase. A few small ones are left by interpolation.
Spikes, a grey background and a scan without any noise are found here too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import ConfigError, NoNoiseError, ValuesWarning, VolumeReadError
from medddpm.preprocess.found_noise import FoundNoise, find_noise, known_noise
from medddpm.preprocess.intensity import (
    MASKED_FRACTION,
    SCALE_PERCENTILE,
    Body,
    Mask,
    above_floor,
    foreground_mask,
    is_blank,
    zero_background,
)
from medddpm.preprocess.noise_law import RICIAN, WHITE, Colour, NoiseKind, NoiseLaw
from medddpm.preprocess.noise_support import Hint
from medddpm.preprocess.spikes import find_spikes, without_spikes, words_of_spikes
from medddpm.volume import Volume

Image = NDArray[np.float32]

_SMALL = 0.01
"""Of the intensity scale: negative values below it are ringing, however many there are."""
_MOST_NEGATIVE = 0.1
"""Share of the voxels that are not 0: spline and sinc interpolation of extracted brains, the worst
there is, makes 0.06 of them negative by more than `_SMALL`; half of a standardised scan is."""
_MOST_NEGATIVE_POWER = 0.05
"""Root of the share of their squares in all: 0.03 for interpolated brains, 0.5 if shifted."""
_QUIET = 0.6
"""Share of neighbours that are equal: 0.2 in scans of 8 bits, 0.4 where noise of a fifth of a grey
value was rounded, 0.7 and more in label maps."""
_TINY, _HUGE = 1e-15, 1e15
"""Squares of smaller and larger values leave the range of float32."""
_LEAST_FRACTION = 1e-6
"""Of the intensity scale: noise below it is that of rounding in float32."""
_FEW = 1000


@dataclass(frozen=True)
class Looked:
    """One frame as estimator and networks are to see it, and how to undo that.

    Attributes:
        image: (X, Y, Z) float32; air is at 0 or above it.
        original: (X, Y, Z) float32, as it was.
        floor: What was taken off; 0 for a magnitude.
        kept: Voxels that get back what they were, or None.
        quiet: There is no noise to be seen.
        facts: JSON-able: what was found.
        notices: The same in words, where a person should know.
        noise: (X, Y, Z) that holds the noise of the image and nothing else, where there is one.
        known_body: Where the body is and how bright, if the image does not show it.
        edges: Where k-space ends along each axis, if that was seen.
    """

    image: Image
    original: Image
    floor: float
    kept: Mask | None
    quiet: bool
    facts: dict[str, Any]
    notices: tuple[str, ...]
    noise: Image | None = None
    known_body: Body | None = None
    edges: Hint = (None, None, None)

    def restored(self, mean: Image) -> Image:
        """The restored image in the values of the original."""
        out: Image = mean + np.float32(self.floor) if self.floor else mean
        if self.kept is not None:
            out[self.kept] = self.original[self.kept]
        return out

    def spread(self, width: Image | None) -> Image | None:
        """How uncertain the restored image is: not at all where the original is kept."""
        if width is not None and self.kept is not None:
            width[self.kept] = 0
        return width

    @property
    def summary(self) -> dict[str, Any]:
        """What the report says of it."""
        return {**self.facts, "notices": list(self.notices)}

    @property
    def is_blank(self) -> bool:
        """True if there is one value only, and so no scale."""
        return is_blank(self.image)

    @property
    def mask(self) -> Mask:
        """The body; nothing of a blank frame."""
        if self.is_blank:
            return np.zeros(self.image.shape, bool)
        return foreground_mask(self.image) if self.known_body is None else self.known_body.mask

    @property
    def witness(self) -> Image:
        """What to estimate noise from: the air of a shifted scan follows no known law."""
        if self.noise is not None:
            return self.noise
        if not self.floor:
            return self.image
        return np.where(foreground_mask(self.image), self.image, np.float32(0))


def look(image: NDArray[Any], kind: NoiseKind) -> Looked:
    """What is known of the values of one frame.

    Args:
        image: (X, Y, Z), finite.
        kind: Law of the noise.

    Raises:
        VolumeReadError: It has values that a magnitude cannot have, and the law is that of one.
    """
    return _look(np.asarray(image, dtype=np.float32), kind, is_signed=False)


def look_at_parts(
    volume: Volume, index: int, real: Image, imaginary: Image, edges: Hint = (None, None, None)
) -> Looked:
    """`look` at one complex frame whose phase was taken off: the object is in its real part.

    Its noise is looked for in the imaginary part, where there is no anatomy, its body in the
    magnitude: a real part is around 0 in air, and below it where the phase is wrong.

    Args:
        volume: The magnitude of the scan.
        index: The frame.
        real: (X, Y, Z), finite.
        imaginary: The same.
        edges: Where its k-space ends, see `filled_edges`.
    """
    with _naming(volume, index):
        seen = _look(real, "gaussian", is_signed=True)
    _warn_of(seen, volume, index)
    if seen.quiet:
        return seen
    magnitude = np.hypot(seen.image, imaginary)
    body = Body(np.maximum(seen.image, 0), foreground_mask(magnitude))
    return replace(seen, noise=imaginary, known_body=body, edges=edges)


def _look(original: Image, kind: NoiseKind, *, is_signed: bool) -> Looked:
    """What is known of the values; 0 is air if they have a sign of their own."""
    spikes = find_spikes(original)
    values = original if spikes is None else without_spikes(original, spikes)
    facts: dict[str, Any] = {"negative_share": require_sign(values, kind)}
    notices: list[str] = []
    if spikes is not None:
        facts["spikes"] = int(spikes.sum())
        notices.append(words_of_spikes(spikes))
    background = _even_background(values)
    if _is_quiet(values, background):
        if not is_blank(original):  # a frame that holds nothing is named with the result
            notices.append(_words_of_quiet(original))
        return Looked(values, original, 0.0, spikes, True, facts, tuple(notices))
    if background is not None:
        facts["background"] = float(values[background][0])
        notices.append(
            f"{100 * background.mean():.0f} % of the voxels are exactly {facts['background']:g}: "
            "taken for background, and kept as they are"
        )
        values = np.where(background, np.float32(0), values)
    shown, floor = (values, 0.0) if is_signed else _from_zero(values, kind)
    if floor:
        facts["floor"] = floor
        background = zero_background(values)
    kept = _either(spikes, background)
    return Looked(shown, original, floor, kept, False, facts, tuple(notices))


def look_at(volume: Volume, index: int, kind: NoiseKind) -> Looked:
    """`look` at one frame of a scan; what it says, as a warning or an error, names the scan."""
    with _naming(volume, index):
        seen = look(volume.frame(index), kind)
    _warn_of(seen, volume, index)
    return seen


def _warn_of(seen: Looked, volume: Volume, index: int) -> None:
    for notice in seen.notices:
        warnings.warn(f"{volume.frame_name(index)}: {notice}", ValuesWarning, stacklevel=4)


def require_signs(volume: Volume, kind: NoiseKind) -> None:
    """`require_sign` of every frame of a scan, with its name in the error."""
    for index in range(volume.num_frames):
        with _naming(volume, index):
            require_sign(volume.frame(index), kind)


@contextmanager
def _naming(volume: Volume, index: int) -> Iterator[None]:
    try:
        yield
    except VolumeReadError as error:
        raise VolumeReadError(f"{volume.frame_name(index)}: {error}") from None


def _from_zero(values: Image, kind: NoiseKind) -> tuple[Image, float]:
    """The values with air at 0, and what was taken off; a magnitude has no value below."""
    if kind == "gaussian":
        return above_floor(values)
    return (values if values.min() >= 0 else np.maximum(values, 0)), 0.0


def require_sign(image: Image, kind: NoiseKind) -> float:
    """The share of negative voxels of a frame whose values the law of its noise can have.

    Raises:
        VolumeReadError: They are too many, or too large, for a magnitude; or no value is of a size
            that can be computed with.
    """
    top = float(np.abs(image).max())
    if top and not _TINY < top < _HUGE:
        raise VolumeReadError(
            f"the largest value is {top:.3g}, and squares of such numbers cannot be computed with; "
            f"{'divide' if top > 1 else 'multiply'} the scan by a constant first"
        )
    if image.min() >= 0:
        return 0.0
    share = float((image < 0).mean())
    if kind == "gaussian" or _is_ringing(image):
        return share
    raise VolumeReadError(
        f"{_percent(share)} of the voxels are negative (down to {image.min():.4g}), which no "
        "magnitude image is: they would be cut off. If the scan was standardised, shifted or "
        "corrected, take its noise for gaussian: --noise gaussian, in cohorts, BIDS and Python "
        "restore.noise=gaussian. A phase or a field map is not for restoration; negative padding "
        "is to be set to 0 first"
    )


def _is_ringing(image: Image) -> bool:
    """True if the negative values are few or small, as interpolation of a magnitude leaves them."""
    magnitudes = np.abs(image[image != 0])
    small = _SMALL * float(np.percentile(magnitudes, SCALE_PERCENTILE))
    if float((image < -small).sum()) > _MOST_NEGATIVE * magnitudes.size:
        return False
    top = magnitudes.max()  # squares of large numbers have no place in float32
    power = np.sum(np.square(np.minimum(image, 0) / top), dtype=np.float64)
    whole = np.sum(np.square(magnitudes / top), dtype=np.float64)
    return float(power) <= _MOST_NEGATIVE_POWER**2 * float(whole)


def measure_noise(
    seen: Looked,
    told: float | Image | NoiseLaw | None = None,
    *,
    law: NoiseLaw = RICIAN,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    colour: Colour | None = None,
    hint: Hint = (None, None, None),
) -> FoundNoise:
    """The noise of a frame; of the method "none" and 0 where there is none to be seen.

    Args:
        seen: The frame.
        told: What is known of it, in scan units: the level, or sigma at each voxel (X, Y, Z), and
            the colour is found; or all.
        law: As in `find_noise`.
        spacing: As in `find_noise`.
        colour: Its colour, where that is known.
        hint: As in `find_noise`.
    """
    if told is not None and not seen.is_blank:
        body = seen.known_body
        if isinstance(told, NoiseLaw):
            return known_noise(seen.image, told, body)
        if isinstance(told, np.ndarray) and not told.any():
            return no_noise(seen)
        sigma = told if isinstance(told, np.ndarray) else float(told)  # numpy has floats of its own
        given = replace(law, sigma=sigma, colour=colour or WHITE)
        if colour is None and not seen.quiet:
            with suppress(ConfigError):  # too small to tell its colour
                found = find_noise(seen.witness, law=law, spacing=spacing, hint=hint, body=body)
                given = replace(given, colour=found.law.colour)
        return known_noise(seen.image, given, body)
    if seen.quiet:
        return no_noise(seen)
    try:
        found = find_noise(
            seen.witness, law=law, spacing=spacing, colour=colour, hint=hint, body=seen.known_body
        )
    except NoNoiseError:
        return no_noise(seen)
    return found if found.fraction > _LEAST_FRACTION else no_noise(seen)


def no_noise(seen: Looked) -> FoundNoise:
    """The level of a frame in which no noise is to be seen: 0."""
    scale = 1.0 if seen.is_blank else (seen.known_body or Body.of(seen.image)).scale()
    return FoundNoise(NoiseLaw(), scale, 0.0, "none", 0.0, (0.0,) * 3, 0)


def _alike(image: Image) -> Mask:
    """Voxels that equal the next one along the first two axes."""
    alike = np.zeros(image.shape, dtype=bool)
    here = image[:-1, :-1]
    alike[:-1, :-1] = (here == image[1:, :-1]) & (here == image[:-1, 1:])
    return alike


def _even_background(image: Image) -> Mask | None:
    """Voxels of one value other than 0 that fill a large and solid part of the scan, or None."""
    alike = _alike(image) & (image != 0)
    if alike.mean() < 0.5 * MASKED_FRACTION:
        return None
    values, counts = np.unique(image[alike], return_counts=True)
    fill = values[np.argmax(counts)]
    found: Mask = image == fill
    is_solid = counts.max() > 0.5 * found.sum()  # noise of a few grey values is everywhere
    return found if is_solid and found.mean() > MASKED_FRACTION else None


def _is_quiet(image: Image, background: Mask | None) -> bool:
    """True if most neighbours in what is no background are equal."""
    body = image != 0
    if background is not None:
        body &= ~background
    pairs = equal = 0
    for axis in range(3):
        first, second = (
            tuple(part if a == axis else slice(None) for a in range(3))
            for part in (slice(1, None), slice(None, -1))
        )
        both = body[first] & body[second]
        pairs += int(both.sum())
        equal += int((both & (image[first] == image[second])).sum())
    return equal > _QUIET * pairs or not pairs


def _either(first: Mask | None, second: Mask | None) -> Mask | None:
    if first is None or second is None:
        return second if first is None else first
    return first | second


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share > 0.1 else f"{100 * share:.2g} %"


def _words_of_quiet(image: Image) -> str:
    values = np.unique(image)
    few = f"only {values.size} different values" if values.size <= _FEW else "neighbours are equal"
    return f"no noise to be seen in this scan ({few}): there is nothing to remove"
