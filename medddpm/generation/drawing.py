"""Draws: a whole head from the prior, a variant of a scan, and the same on a finer grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from numpy.typing import NDArray
from torch import Tensor

from medddpm.diffusion.schedule import CLEAN, NoiseLevel
from medddpm.errors import ConfigError
from medddpm.generation.align import straightened
from medddpm.generation.cascade import SAMPLER
from medddpm.generation.copies import Resemblance
from medddpm.generation.heads import Head, head_of, placed
from medddpm.generation.options import PriorSpec
from medddpm.generation.prior import SCHEDULE, blurred
from medddpm.generation.prior_file import TrainedPrior
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.preprocess.resample import resampled, resampled_affine
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restorer import Restorer
from medddpm.restoration.tile import has_bf16
from medddpm.volume import Geometry, Volume

SCALE = 1000.0
"""Intensity of bright tissue in what is written."""
_FINEST = 2
"""How many times finer than the prior's a grid may be: more would be interpolation alone."""
_BODY = 0.2
"""Of the scale: brighter voxels are in the body, where patches are cut."""
_CONDITION_NOISE = 0.04
"""Added to the coarse head before it conditions the fine one, as a fraction of the scale."""


@dataclass(frozen=True)
class DrawOptions:
    """How heads are drawn.

    Attributes:
        steps: Evaluations of each network of the prior for one head.
        spacing: Edge of a voxel in mm; that of the prior if not given, or finer.
        patch: Voxels along each edge of a block out of the body; whole heads if not given.
        change: Of a variant: 0 is the scan itself, 1 another head.
        seed: Of the first head; the next ones have the next numbers.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    steps: Annotated[int, Ge(1)] = 128
    spacing: Annotated[float, Gt(0)] | None = None
    patch: Annotated[int, Interval(ge=16, le=512)] | None = None
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

    The networks run in bfloat16 where the processor has it, 2.4 times as fast: the same draw to
    0.2 % of its contrast.

    Args:
        trained: The prior.
        restorer: Draws what a finer grid holds more; its device is that of the prior too.
        options: How.

    Raises:
        ConfigError: The spacing is none that was trained.
    """

    def __init__(self, trained: TrainedPrior, restorer: Restorer, options: DrawOptions) -> None:
        own, finest = trained.prior.spec, trained.prior.finest
        self.spacing = own.spacing if options.spacing is None else options.spacing
        if not finest.spacing / _FINEST <= self.spacing <= own.spacing:
            raise ConfigError(
                f"a spacing of {self.spacing:g} mm was not trained: this prior draws "
                f"{finest.spacing / _FINEST:g} to {own.spacing:g} mm"
            )
        self.spec = own if self.spacing == own.spacing else finest
        shape = _shape_at(self.spacing, self.spec)
        if options.patch is not None and options.patch > min(shape):
            raise ConfigError(
                f"a patch of {options.patch} voxels of {self.spacing:g} mm does not fit into a "
                f"head of {' x '.join(map(str, shape))}; take a smaller one or a finer spacing"
            )
        self.trained, self.restorer, self.options = trained, restorer, options
        self.prior = trained.prior.to(restorer.device)
        self.mean = self.prior.mean_image().cpu()
        self.bf16 = has_bf16(restorer.device)

    @property
    def weights_digest(self) -> str | None:
        """SHA-256 of the weights that draw a finer grid than the prior's; None if they do not."""
        return self.restorer.model.digest if self.spacing < self.spec.spacing else None

    def straight(self, scan: Volume) -> Head:
        """A scan in the pose of the heads that are drawn; its place in space is not lost."""
        pose = straightened([head_of(scan, self.prior.spec.spacing)], self.prior.spec, self.mean)[0]
        return replace(head_of(scan, self.spec.spacing), turn=pose.turn, shift=pose.shift)

    def draw(self, number: int, name: str, like: Head | None = None) -> Draw:
        """One head; the same seed and number give the same voxels.

        Args:
            number: Added to the seed.
            name: Of the scan that is written.
            like: A scan to change in part, straight; its place in space is kept.
        """
        seed = self.options.seed + number
        kind = self.restorer.device.type
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=self.bf16):
            image = self._image(seed, like).cpu()
        known = image if self.spec == self.prior.spec else blurred(image)
        similarity = float(self.trained.memory.nearest(known, self.mean)[0])
        spacing, shape = self.spec.spacing, self.spec.shape
        affine = centred(spacing, shape) if like is None else like.on_grid(spacing, shape)
        volume = _volume(image[0, 0].numpy(), affine, name)
        resemblance = Resemblance(similarity, self.trained.card.threshold)
        patch = self.options.patch
        if patch is None:
            return Draw(self._resampled(volume, seed), resemblance, seed)
        drawn = self._resampled(self._patch(volume, seed, patch), seed)
        block = drawn.frame(0)[:patch, :patch, :patch]
        geometry = Geometry((patch,) * 3, drawn.affine)
        return Draw(Volume(block, geometry, case_id=name), resemblance, seed)

    def _image(self, seed: int, like: Head | None) -> Tensor:
        """(1, 1, *shape) on the intensity scale."""
        distilled = self.trained.card.distilled
        how: dict[str, Any] = {
            "spec": self.spec,
            "sampler": SAMPLER if distilled is None else distilled.sampler,
        }
        if like is not None:
            how["like"] = placed(like, self.spec).to(self.restorer.device)
            how["level"] = _level(self.options.change)
        return self.prior.draw(seed, self.options.steps, **how)

    def _patch(self, volume: Volume, seed: int, patch: int) -> Volume:
        """A block out of a head, its middle in the body, with its place in space."""
        size = math.ceil(patch * self.spacing / self.spec.spacing)
        image = volume.frame(0)
        inside = np.argwhere(image > _BODY * SCALE)
        middle = np.random.default_rng([seed, 2]).choice(inside) if len(inside) else [0, 0, 0]
        corner = [
            int(np.clip(m - size // 2, 0, n - size))
            for m, n in zip(middle, image.shape, strict=True)
        ]
        x, y, z = (slice(c, c + size) for c in corner)
        affine = volume.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ corner
        return Volume(image[x, y, z], Geometry((size,) * 3, affine), case_id=volume.case_id)

    def _resampled(self, volume: Volume, seed: int) -> Volume:
        """The head at the spacing that was asked for.

        A coarser grid is resampled. A finer one is interpolated, and the network that restores
        scans draws into it: a cascade with noise on the condition (Ho et al. 2022, "Cascaded
        diffusion models", section 4.2).
        """
        own = self.spec.spacing
        if self.spacing == own:
            return volume
        shape = _shape_at(self.spacing, replace(self.spec, shape=volume.geometry.shape))
        coarse = volume.frame(0)
        fine = resampled(coarse, shape)
        affine = resampled_affine(volume.affine, coarse.shape, shape)
        if self.spacing > own:
            return Volume(np.maximum(fine, 0), Geometry(shape, affine), case_id=volume.case_id)
        rng = np.random.default_rng([seed, 1])
        level = _CONDITION_NOISE * SCALE
        noisy = fine + rng.normal(0, level, shape).astype(np.float32)
        options = RestoreOptions(mode="sample", noise="gaussian", colour="white", seed=seed)
        scan = Volume(noisy, Geometry(shape, affine), case_id=volume.case_id)
        law = NoiseLaw("gaussian", sigma=level)
        done = self.restorer.restore(scan, options=options, law=law).volume
        return done.with_data(np.maximum(done.data, 0))


def _shape_at(spacing: float, spec: PriorSpec) -> tuple[int, int, int]:
    """Voxels along each axis of the field of view of a grid, at another spacing."""
    x, y, z = (round(n * spec.spacing / spacing) for n in spec.shape)
    return x, y, z


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
