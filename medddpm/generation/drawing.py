"""Draws: a whole head from the prior, a variant of a scan, and the same on a finer grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from numpy.typing import NDArray
from torch import Tensor

from medddpm.diffusion.schedule import CLEAN, NoiseLevel
from medddpm.errors import ConfigError
from medddpm.generation.copies import Resemblance
from medddpm.generation.heads import Head, placed
from medddpm.generation.prior import SAMPLER, SCHEDULE
from medddpm.generation.prior_file import TrainedPrior
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.preprocess.resample import resampled, resampled_affine
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Geometry, Volume

SCALE = 1000.0
"""Intensity of bright tissue in what is written."""
_FINEST = 2
"""How many times finer than the prior's a grid may be: more would be interpolation alone."""
_CONDITION_NOISE = 0.04
"""Added to the coarse head before it conditions the fine one, as a fraction of the scale."""


@dataclass(frozen=True)
class DrawOptions:
    """How heads are drawn.

    Attributes:
        steps: Evaluations of the prior for one head.
        spacing: Edge of a voxel in mm; that of the prior if not given, or down to half of it.
        change: Of a variant: 0 is the scan itself, 1 another head.
        seed: Of the first head; the next ones have the next numbers.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    steps: Annotated[int, Ge(1)] = 32
    spacing: Annotated[float, Gt(0)] | None = None
    change: Annotated[float, Interval(ge=0, le=1)] = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Draw:
    """One synthetic head.

    Attributes:
        volume: In RAS, bright tissue at 1000.
        resemblance: To the training scan that is most like it.
        seed: That makes it again.
    """

    volume: Volume
    resemblance: Resemblance
    seed: int


class Artist:
    """Draws heads with a prior.

    Args:
        trained: The prior.
        restorer: Draws what a finer grid holds more; its device is that of the prior too.
        options: How.

    Raises:
        ConfigError: The spacing is none that was trained.
    """

    def __init__(self, trained: TrainedPrior, restorer: Restorer, options: DrawOptions) -> None:
        own = trained.prior.spec.spacing
        self.spacing = own if options.spacing is None else options.spacing
        if not own / _FINEST <= self.spacing <= own:
            raise ConfigError(
                f"a spacing of {self.spacing:g} mm was not trained: this prior draws "
                f"{own / _FINEST:g} to {own:g} mm"
            )
        self.trained, self.restorer, self.options = trained, restorer, options
        self.prior = trained.prior.to(restorer.device)
        self.mean = self.prior.mean_image().cpu()

    @property
    def weights_digest(self) -> str | None:
        """SHA-256 of the weights that draw the finer grid; None where there is none."""
        finer = self.spacing != self.trained.prior.spec.spacing
        return self.restorer.model.digest if finer else None

    def draw(self, number: int, name: str, like: Head | None = None) -> Draw:
        """One head; the same seed and number give the same voxels.

        Args:
            number: Added to the seed.
            name: Of the scan that is written.
            like: A scan to change in part; its place in space is kept.
        """
        seed = self.options.seed + number
        with torch.inference_mode():
            image = self._image(seed, like).cpu()
        similarity = float(self.trained.memory.nearest(image, self.mean)[0])
        shape = self.prior.spec.shape
        affine = (
            centred(self.prior.spec.spacing, shape)
            if like is None
            else like.on_grid(self.prior.spec.spacing, shape)
        )
        volume = _volume(image[0, 0].numpy(), affine, name)
        resemblance = Resemblance(similarity, self.trained.card.threshold)
        return Draw(self._finer(volume, seed), resemblance, seed)

    def _image(self, seed: int, like: Head | None) -> Tensor:
        """(1, 1, *shape) on the intensity scale."""
        distilled = self.trained.card.distilled
        sampler = SAMPLER if distilled is None else distilled.sampler
        if like is None:
            return self.prior.draw(seed, self.options.steps, sampler=sampler)
        x = placed(like, self.prior.spec).to(self.restorer.device)
        level = _level(self.options.change)
        return self.prior.draw(seed, self.options.steps, sampler=sampler, like=x, level=level)

    def _finer(self, volume: Volume, seed: int) -> Volume:
        """The head on a finer grid: interpolated, with what the conditional network draws into it.

        A cascade with noise on the condition (Ho et al. 2022, "Cascaded diffusion models", section
        4.2): the second network is the one that restores scans.
        """
        own = self.prior.spec.spacing
        if self.spacing == own:
            return volume
        x, y, z = (round(n * own / self.spacing) for n in volume.geometry.shape)
        shape = x, y, z
        coarse = volume.frame(0)
        fine = resampled(coarse, shape)
        rng = np.random.default_rng([seed, 1])
        level = _CONDITION_NOISE * SCALE
        noisy = fine + rng.normal(0, level, shape).astype(np.float32)
        affine = resampled_affine(volume.affine, coarse.shape, shape)
        options = RestoreOptions(mode="sample", noise="gaussian", colour="white", seed=seed)
        scan = Volume(noisy, Geometry(shape, affine), case_id=volume.case_id)
        law = NoiseLaw("gaussian", sigma=level)
        done = self.restorer.restore(scan, options=options, law=law).volume
        return done.with_data(np.maximum(done.data, 0))


def centred(spacing: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """RAS affine of a grid whose middle is the origin."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * spacing for n in shape]
    return affine


def _volume(image: NDArray[np.float32], affine: NDArray[np.float64], name: str) -> Volume:
    shape = image.shape[0], image.shape[1], image.shape[2]
    return Volume(image * np.float32(SCALE), Geometry(shape, affine), case_id=name)


def _level(change: float) -> NoiseLevel:
    """How noisy a variant starts: `change` is the share of the noise angle."""
    if change in (0, 1):
        return SCHEDULE.terminal if change else CLEAN
    return SCHEDULE.nearest(math.tan(change * math.pi / 2))
