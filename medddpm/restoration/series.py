"""The frames of a 4D scan together: what they share is signal, what none shares is noise.

In a patch of N voxels, M frames are an N x M matrix: few components of signal, and noise whose
eigenvalues have a known distribution (Marchenko and Pastur 1967). The components within it are
left out (MPPCA: Veraart et al., NeuroImage 142:394, 2016); DIPY does that. It keeps the mean of
a magnitude, so the bias of the noise stays; the law of the noise, which is known from each frame
as it was, takes it off afterwards (Koay and Basser, J Magn Reson 179:317, 2006).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import ConfigError, MissingExtraError, ValuesWarning, missing_extra
from medddpm.io.gradients import read_gradients
from medddpm.io.sidecar import SeriesFacts
from medddpm.preprocess.found_noise import FoundNoise, white_noise
from medddpm.preprocess.frame import Frame
from medddpm.preprocess.intensity import Body
from medddpm.preprocess.noise import expected_signal
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.preprocess.simulated_scan import law_times
from medddpm.preprocess.values import Looked
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.seen_frame import frame_of, noise_of
from medddpm.restoration.told import Told
from medddpm.volume import Volume

Image = NDArray[np.float32]
OnSlab = Callable[[int, int], None]
Patch = tuple[int, int, int]

LEAST_FRAMES = 8
"""With noise: below it there are too few eigenvalues to tell noise from signal by."""
_LEAST_REACH = 2
_MOST_REACH = 10
_WORKING_BYTES = 1e9
_BYTES_A_VALUE = 12
"""Of a slab: the values, and the two sums of DIPY."""
_UNEVEN = 2.0
"""Ratio of the noise of two frames beyond which they are of different kinds."""
_NOTHING = 1e-6
"""Of the intensity scale: less noise is the rounding of float32."""


@dataclass(frozen=True)
class Series:
    """All frames of a scan, before and after what they share was told from their noise.

    Attributes:
        frames: As they were, with their noise, on one acquired grid.
        cleaned: By number, those that took part: `y` without what MPPCA takes for noise and
            without the bias of the noise, and the Gaussian noise that is left in it as the law;
            of sigma 0 where none is to be seen.
        facts: For the sidecar.
    """

    frames: list[Frame]
    cleaned: dict[int, Frame]
    facts: SeriesFacts

    def left(self, index: int) -> float | None:
        """Sigma that was left in a frame, in scan units; None if it took no part."""
        frame = self.cleaned.get(index)
        return None if frame is None else frame.scale * frame.law.level(frame.mask)


def check_series(volume: Volume) -> None:
    """Raise before any work what keeps the frames from being restored together.

    Raises:
        ConfigError: The scan has too few frames.
        MissingExtraError: DIPY is not installed.
    """
    if volume.num_frames < LEAST_FRAMES:
        raise _too_few(volume, f"has {_counted(volume.num_frames)}")
    _genpca()


def restore_series(
    volume: Volume,
    seen: Sequence[Looked],
    options: RestoreOptions,
    told: Sequence[Told],
    on_slab: OnSlab | None = None,
) -> Series:
    """The frames of a scan, each without what none of the others shares.

    Frames were acquired alike: the colour of their noise, and with it the acquired grid, is that of
    the first with noise, its level the median over all where it was found. Frames without noise,
    such as maps or blank ones, take no part.

    Args:
        volume: 4D.
        seen: Its frames.
        options: How it is restored.
        told: What is known of the noise of each.
        on_slab: Called as (slabs done, slabs in all).

    Raises:
        ConfigError: Too few frames have noise, or the scan is too small for a patch.
        MissingExtraError: DIPY is not installed.
    """
    _warn_of_time_courses(volume)
    noises = _noise_of_all(volume, seen, options, told)
    noisy = [index for index, noise in enumerate(noises) if noise.method != "none"]
    if len(noisy) < LEAST_FRAMES:
        raise _too_few(volume, f"has {_counted(len(noisy))} with noise")
    frames = [frame_of(look, volume, noise) for look, noise in zip(seen, noises, strict=True)]
    taken = [frames[index] for index in noisy]
    patch = patch_of(taken[0].y.shape, len(taken))
    images = mppca([frame.y * np.float32(frame.scale) for frame in taken], patch, on_slab)
    signals = [
        expected_signal(image / np.float32(frame.scale), frame.law.sigma, frame.law.dof)
        for frame, image in zip(taken, images, strict=True)
    ]
    laws = _noise_left(taken, signals, options)
    cleaned = {
        index: replace(frame, y=signal, law=law)
        for index, frame, signal, law in zip(noisy, taken, signals, laws, strict=True)
    }
    library = f"dipy {version('dipy')}"
    facts = SeriesFacts(method="mppca", library=library, frames=tuple(noisy), patch=patch)
    return Series(frames, cleaned, facts)


def patch_of(shape: Sequence[int], num_frames: int) -> Patch:
    """Voxels of a patch along each axis: 5, or more until there are more voxels than frames.

    Raises:
        ConfigError: The grid has too few voxels for so many frames.
    """
    for reach in range(_LEAST_REACH, _MOST_REACH + 1):
        x, y, z = (2 * min(reach, (n - 1) // 2) + 1 for n in shape)
        if x * y * z > num_frames:
            return x, y, z
    raise ConfigError(
        f"restore.frames=mppca compares {num_frames} frames in patches of more voxels, and a grid "
        f"of {' x '.join(map(str, shape))} voxels has no such patch; use restore.frames=each"
    )


def mppca(images: Sequence[Image], patch: Patch, on_slab: OnSlab | None = None) -> list[Image]:
    """Each image without the components that the images share no more than noise does.

    Done in slabs, which overlap as far as patches reach: the values are those of the whole scan
    at once, and memory beyond in and out stays near a gigabyte.

    Args:
        images: (X, Y, Z) each, in one unit; their noise has one level at each place.
        patch: Odd numbers of voxels.
        on_slab: Called as (slabs done, slabs in all).

    Raises:
        MissingExtraError: DIPY is not installed.
    """
    genpca = _genpca()
    radius = np.array([n // 2 for n in patch])
    reach, depth = 2 * int(radius[2]), images[0].shape[2]
    a_slice = images[0][:, :, 0].size * len(images) * _BYTES_A_VALUE
    thickness = max(2 * reach, int(_WORKING_BYTES / a_slice) - 2 * reach, 1)
    starts = range(0, depth, thickness)
    out = [np.empty_like(image) for image in images]
    for number, start in enumerate(starts, 1):
        stop = min(start + thickness, depth)
        low, high = max(start - reach, 0), min(stop + reach, depth)
        slab = np.stack([image[:, :, low:high] for image in images], axis=-1)
        found = genpca(slab, patch_radius=radius, pca_method="eig", suppress_warning=True)
        for index, image in enumerate(out):
            image[:, :, start:stop] = found[:, :, start - low : stop - low, index]
        if on_slab:
            on_slab(number, len(starts))
    return out


def _noise_left(
    frames: Sequence[Frame], signals: Sequence[Image], options: RestoreOptions
) -> list[NoiseLaw]:
    """The Gaussian noise that is left in each frame, on its intensity scale; 0 if none shows it.

    It is taken for white, since what is left is too weak to tell its colour, and never for more
    than there was. A frame that is too dark or too small has the median level of the others.

    Args:
        frames: As they were.
        signals: Without what MPPCA takes for noise, on the scale of each.
        options: Whether sigma may vary.
    """
    none = NoiseLaw("gaussian", sigma=0.0)
    laws: list[NoiseLaw | None] = []
    for frame, signal in zip(frames, signals, strict=True):
        body = Body(signal, frame.mask)
        try:
            found = white_noise(signal, law=none, spacing=frame.spacing, body=body)
        except ConfigError:
            laws.append(None)
            continue
        law = found.evened.law if options.noise_map == "off" else found.law
        level, before = law.level(frame.mask), frame.law.level(frame.mask)
        if level > before:  # anatomy was taken for noise
            law = law_times(law, before / level)
        laws.append(law if level > _NOTHING else none)
    told = [(frame, law) for frame, law in zip(frames, laws, strict=True) if law is not None]
    levels = [frame.scale * law.level(frame.mask) for frame, law in told]
    level = float(np.median(levels)) if levels else 0.0
    return [
        replace(none, sigma=level / frame.scale) if law is None else law
        for frame, law in zip(frames, laws, strict=True)
    ]


def _noise_of_all(
    volume: Volume, seen: Sequence[Looked], options: RestoreOptions, told: Sequence[Told]
) -> list[FoundNoise]:
    """The noise of each frame, of one colour and of one level.

    Raises:
        ConfigError: No frame shows how loud it is.
    """
    found: list[FoundNoise | None] = []
    first: FoundNoise | None = None
    for look, known in zip(seen, told, strict=True):
        try:
            noise = noise_of(look, volume, options, known)
        except ConfigError:  # too dark or too small to tell; the others do
            found.append(None)
            continue
        if first is None and noise.method != "none":
            first, options = noise, replace(options, colour=noise.law.colour)
        found.append(noise)
    if first is None:
        raise ConfigError(f"no frame of {volume.case_id} shows the level of its noise; give sigma")
    levels = {i: n.sigma for i, n in enumerate(found) if n is not None and n.method != "none"}
    _warn_of_kinds(volume, levels)
    level = float(np.median(list(levels.values())))
    return [_levelled(n or first, level, look) for n, look in zip(found, seen, strict=True)]


def _levelled(noise: FoundNoise, level: float, seen: Looked) -> FoundNoise:
    """The noise at another level, where it was found; its map keeps its form."""
    if noise.method in ("none", "given"):
        return noise
    law = law_times(noise.law, level / noise.sigma)
    scale = Body.of(seen.image).scale(level)
    return replace(noise, law=law, scale=scale, fraction=level / scale)


def _warn_of_time_courses(volume: Volume) -> None:
    """Say what is lost where the frames may be a time series: a NIfTI file without b-values."""
    if volume.format == "nifti" and read_gradients(volume) is None:
        warnings.warn(
            f"{volume.case_id} has no .bval file beside it: if it is a time series, MPPCA removes "
            "small activation, up to three quarters of its amplitude (docs/frames.md); "
            "restore.frames=each keeps it",
            ValuesWarning,
            stacklevel=4,
        )


def _warn_of_kinds(volume: Volume, levels: Mapping[int, float]) -> None:
    low, high = (pick(levels, key=levels.__getitem__) for pick in (min, max))
    if levels[high] > _UNEVEN * levels[low]:
        warnings.warn(
            f"{volume.case_id}: the noise of frame {high} ({levels[high]:.4g}) is "
            f"{levels[high] / levels[low]:.1f} times that of frame {low} ({levels[low]:.4g}), and "
            "MPPCA takes that of all frames for one: take frames of another kind out of the scan, "
            "or use restore.frames=each",
            ValuesWarning,
            stacklevel=5,
        )


def _too_few(volume: Volume, has: str) -> ConfigError:
    return ConfigError(
        f"{volume.case_id} {has}, and restore.frames=mppca needs {LEAST_FRAMES} or more, as noise "
        "is what frames do not share; use restore.frames=each"
    )


def _counted(number: int) -> str:
    return f"{number} frame{'' if number == 1 else 's'}"


def _genpca() -> Any:
    try:
        return import_module("dipy.denoise.localpca").genpca
    except ImportError as error:
        what = "dipy, which restore.frames=mppca needs,"
        raise MissingExtraError(missing_extra(what, "frames")) from error
