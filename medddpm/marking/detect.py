"""Whether an image carries the mark of a key, moved or turned as it may be, and how sure that is.

Let U be the Fourier transform of the evened image folded onto the lattice, F the spectrum of the
key and S the mean of |U|^2 around each wave. The score of a shift s is the matched filter of a mark
in a host of power S, in units of its deviation,

    z(s) = sum_k a_k cos(arg U_k - arg F_k + k s) / sqrt(sum_k a_k^2 / 2),
    a_k = |U_k| |F_k| / S_k.

The phases of F are independent and even on the circle, by the key alone. So for any image that was
not made with this key z is a sum of independent terms of mean 0, of variance 1 together. Since
E exp(l a cos(theta)) = I0(l a) <= exp(l^2 a^2 / 4), it is large no more often than

    P(z >= t) <= exp(-t^2 / 2)    (Chernoff),

whatever the image, its histogram or its spectrum. All places that are ever tried are counted, so
that the false-alarm rate given is a bound over the whole search. It is a probability over keys: of
a million keys one may find itself in a given image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product
from math import exp, log, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from medddpm.marking.key import Key
from medddpm.marking.pattern import PERIOD, PITCH_MM, Band, Spectrum, carried, spectrum
from medddpm.marking.residual import evened
from medddpm.volume import Volume

FALSE_ALARM = 1e-6
"""Of the whole search over one image."""
Way = Literal["in place", "moved", "mirrored", "turned", ""]
OnProgress = Callable[[str, int, int], None]

_TURNS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
"""Degrees about each axis."""
_SCALES = (0.97, 1.0, 1.03)
_FINER = ((1.0, 0.01), (0.5, 0.005))
"""Steps around the best poses: degrees, and part of the scale."""
_KEPT = 3
"""Poses that are looked at more closely."""
_TURNS_IN_REACH = 31
"""About each axis: every half degree up to 7.5."""
_SCALES_IN_REACH = 27
PLACES = (_TURNS_IN_REACH**3 * _SCALES_IN_REACH + 48) * PERIOD**3
"""That a search can come to, whatever it finds on its way."""
THRESHOLD = sqrt(2 * log(PLACES / FALSE_ALARM))
_COARSE = 2
"""Lattice points a step of the coarse search, which sees waves of over 4.5 mm only."""
_COARSE_HIGH = 0.22
_BLOCK_MM = (32, 40)
"""Half the edge of the cube that is turned, in the coarse and in the fine search."""
_AROUND = 7
"""Waves along each axis over which the power of the host is averaged."""

Lattice = NDArray[np.float32]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What a search for the mark of a key came to.

    Attributes:
        z: The highest score, in deviations of what an unmarked image has.
        false_alarm: At most so probable in an unmarked image, over all places that are tried.
        marked: Whether that is below 1e-6.
        way: Where: "in place" as the header says, "moved" by some shift, "mirrored" or with axes
            swapped, "turned"; "" where nothing was found.
        degrees: Turn about R, A and S.
        scale: Of the image to what was marked.
    """

    z: float
    false_alarm: float
    marked: bool
    way: Way = ""
    degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0


@dataclass(frozen=True)
class _Pose:
    """How the lattice lies in the world: turned about R, A and S by degrees, and stretched."""

    degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0

    @property
    def matrix(self) -> Matrix:
        turn: Matrix = Rotation.from_euler("xyz", self.degrees, degrees=True).as_matrix()
        return turn * self.scale

    def around(self, degrees: float, part: float) -> list[_Pose]:
        """The poses one step away in one parameter."""
        found = []
        for sign in (-1, 1):
            for axis in range(3):
                turned = [d + sign * degrees * (i == axis) for i, d in enumerate(self.degrees)]
                found.append(_Pose((turned[0], turned[1], turned[2]), self.scale))
            found.append(_Pose(self.degrees, self.scale + sign * part))
        return found


def detect(volume: Volume, key: Key, *, on_progress: OnProgress | None = None) -> Found:
    """Search the first frame for the mark: in place, moved, mirrored, then turned.

    Args:
        volume: Any image; its affine is taken for the one that it was marked with until that fails.
        key: Whose mark.
        on_progress: Called with what is done.
    """
    report = on_progress or (lambda task, done, total: None)
    search = _Search(volume, key)
    found = search.upright()
    if not found.marked:
        found = max(found, search.mirrored(), key=_score)
    if not found.marked:
        found = max(found, search.turned(report), key=_score)
    return found


def detect_in_place(volume: Volume, key: Key) -> Found:
    """The same where nothing was moved, without a search."""
    return _Search(volume, key).upright()


def false_alarm(z: float) -> float:
    """Bound on the probability that any place of an unmarked image has this score."""
    return min(1.0, PLACES * exp(-(max(z, 0.0) ** 2) / 2))


def scores(folded: Lattice, pattern: Spectrum) -> Lattice:
    """(P, P, P) z of every shift of the pattern.

    Args:
        folded: (N, N, N) evened image on the lattice, or on every second point of it.
        pattern: (N, N, N/2 + 1) of the key, 0 where no wave is carried.
    """
    image = fft.rfftn(folded)
    power = ndimage.uniform_filter(
        np.square(np.abs(image)), _AROUND, mode=("wrap", "wrap", "nearest")
    )
    matched = image * np.conj(pattern) / np.maximum(power, np.finfo(np.float32).tiny)
    deviation = sqrt(2 * float(np.sum(np.square(np.abs(matched), dtype=np.float64))))
    if deviation == 0:
        return np.zeros((PERIOD,) * 3, dtype=np.float32)
    full = _padded(matched.astype(np.complex64) / np.float32(deviation))
    z: Lattice = fft.irfftn(full, s=(PERIOD,) * 3, norm="forward").astype(np.float32)
    return z


def _padded(half: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """A spectrum of few waves as one of the whole lattice."""
    full = np.zeros((PERIOD, PERIOD, PERIOD // 2 + 1), dtype=np.complex64)
    full[_low(len(half))] = half
    return full


def _low(num: int) -> tuple[NDArray[np.intp], ...]:
    """Where the waves of a lattice of `num` points lie among those of the whole one."""
    axis = np.fft.fftfreq(num, 1 / num).astype(int) % PERIOD
    return np.ix_(axis, axis, np.arange(num // 2 + 1))


class _Search:
    """One image and one key."""

    def __init__(self, volume: Volume, key: Key) -> None:
        self.affine = np.array(volume.affine)
        self.even = evened(volume.frame(0), volume.spacing)
        self.pattern = spectrum(key)
        strength = np.abs(self.even)
        middle = ndimage.center_of_mass(strength) if strength.any() else (0.0, 0.0, 0.0)
        self.middle = self.affine[:3, :3] @ np.array(middle) + self.affine[:3, 3]
        self.folded = self._fold(np.eye(3), 1, None)

    def upright(self) -> Found:
        """As the header says, with every shift."""
        z = scores(self.folded, self._carried(self.affine[:3, :3]))
        best = float(z.max())
        return _found(best, "in place" if float(z[0, 0, 0]) == best else "moved")

    def mirrored(self) -> Found:
        """Axes swapped and flipped in all ways, as where a header is lost."""
        best = -np.inf
        for axes, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
            flips = tuple(axis for axis, sign in enumerate(signs) if sign < 0)
            lattice = np.flip(self.folded.transpose(axes), flips)
            matrix = self.affine[list(axes), :3] * np.array(signs)[:, None]
            best = max(best, float(scores(lattice, self._carried(matrix)).max()))
        return _found(best, "mirrored")

    def turned(self, report: OnProgress) -> Found:
        """Small turns and scales: coarse over all of them, then finer around the best."""
        grid = [
            _Pose((x, y, z), scale) for scale, x, y, z in product(_SCALES, _TURNS, _TURNS, _TURNS)
        ]
        coarse = []
        for number, pose in enumerate(grid):
            coarse.append(self._score(pose, _COARSE, _BLOCK_MM[0]))
            report("turning", number + 1, len(grid))
        best = [grid[i] for i in np.argsort(coarse)[::-1][:_KEPT]]
        z, pose = max((self._climb(pose) for pose in best), key=lambda pair: pair[0])
        return _found(z, "turned", pose)

    def _climb(self, pose: _Pose) -> tuple[float, _Pose]:
        """The best pose near one, and its score."""
        z = self._score(pose, 1, _BLOCK_MM[1])
        for degrees, part in _FINER:
            steps = [(self._score(p, 1, _BLOCK_MM[1]), p) for p in pose.around(degrees, part)]
            z, pose = max([(z, pose), *steps], key=lambda pair: pair[0])
        return z, pose

    def _score(self, pose: _Pose, step: int, half: int) -> float:
        matrix = pose.matrix
        pattern = self._carried(np.linalg.inv(matrix) @ self.affine[:3, :3], step)
        return float(scores(self._fold(matrix, step, half), pattern).max())

    def _carried(self, matrix: Matrix, step: int = 1) -> Spectrum:
        """The key's waves that the image carries, and a lattice of every `step`-th point too."""
        waves_kept: Band = carried(matrix)
        pattern = np.where(waves_kept, self.pattern, 0)
        if step == 1:
            return pattern
        low: Spectrum = pattern[_low(PERIOD // step)] * _low_band(PERIOD // step)
        return low

    def _fold(self, matrix: Matrix, step: int, half: int | None) -> Lattice:
        """The evened image on the lattice, its periods summed.

        Args:
            matrix: (3, 3), lattice to world.
            step: Take every so manieth point.
            half: Half the edge of the cube that is taken, in lattice points; None takes all.
        """
        to_lattice = np.linalg.inv(matrix) / (PITCH_MM * step)
        corners = np.array(list(product(*((0, n - 1) for n in self.even.shape))))
        places = (corners @ self.affine[:3, :3].T + self.affine[:3, 3]) @ to_lattice.T
        low, high = np.floor(places.min(axis=0)), np.ceil(places.max(axis=0))
        if half is not None:
            middle = np.round(to_lattice @ self.middle)
            low = np.maximum(low, middle - half // step)
            high = np.minimum(high, middle + half // step - 1)
        shape = tuple(int(n) for n in high - low + 1)
        to_voxel = np.linalg.inv(self.affine[:3, :3]) @ np.linalg.inv(to_lattice)
        start = np.linalg.inv(self.affine)[:3, 3] + to_voxel @ low
        taken = ndimage.affine_transform(
            self.even, to_voxel, start, output_shape=shape, order=1, mode="constant"
        )
        return _summed(taken, PERIOD // step, low)


def _summed(taken: Lattice, period: int, low: NDArray[np.float64]) -> Lattice:
    """(N, N, N): points one period apart added up; `low` is the place of the first one."""
    whole = [-(-n // period) for n in taken.shape]
    padded = np.pad(taken, [(0, w * period - n) for w, n in zip(whole, taken.shape, strict=True)])
    blocks = padded.reshape(whole[0], period, whole[1], period, whole[2], period)
    return np.roll(blocks.sum(axis=(0, 2, 4)), tuple(low.astype(int) % period), axis=(0, 1, 2))


def _low_band(num: int) -> Band:
    """(N, N, N/2 + 1): waves that the coarse search sees."""
    full = np.fft.fftfreq(num, PITCH_MM * PERIOD / num)
    half = np.fft.rfftfreq(num, PITCH_MM * PERIOD / num)
    grid = np.meshgrid(full, full, half, indexing="ij")
    band: Band = np.linalg.norm(grid, axis=0) <= _COARSE_HIGH
    return band


def _found(z: float, way: Way, pose: _Pose | None = None) -> Found:
    chance = false_alarm(z)
    if chance > FALSE_ALARM:
        return Found(z, chance, False)
    pose = pose or _Pose()
    return Found(z, chance, True, way, pose.degrees, pose.scale)


def _score(found: Found) -> float:
    return found.z
