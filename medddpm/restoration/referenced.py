"""`mean` with a reference: a scan of another contrast of the same person."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medddpm.errors import CheckpointError, ConfigError, GeometryError, VolumeReadError
from medddpm.guard import GuardReport
from medddpm.guard.checks import MOST_WORDS, judge
from medddpm.guard.residual import Finding
from medddpm.io.files import check_intensities
from medddpm.preprocess.frame import Frame
from medddpm.preprocess.intensity import above_floor, foreground_mask, intensity_scale
from medddpm.preprocess.tiles import Triple, batches, blended, pad_mirrored, plan_tiles
from medddpm.reference.fit import MOST_MISFIT, misfit_of
from medddpm.reference.grid import on_grid, share_inside
from medddpm.reference.weights import (
    SHIPPED,
    TrainedReference,
    find_reference_weights,
    load_reference,
)
from medddpm.restoration.options import RestoreOptions
from medddpm.volume import Volume

Array = NDArray[np.float32]
_MULTIPLE = 4
"""Of voxels, that a tile measures along each axis."""
_LEAST_SHARE = 0.2
"""Of the scan's body that a reference must cover."""


@dataclass(frozen=True)
class Reference:
    """A scan of another contrast, and the network that uses it.

    Attributes:
        volume: The scan, as it was read.
        scaled: (X, Y, Z), its values at intensity scale 1.
        trained: The network.
        notices: What a person should know of it.
    """

    volume: Volume
    scaled: Array
    trained: TrainedReference
    notices: tuple[str, ...] = ()

    @classmethod
    def of(cls, volume: Volume, weights: str | Path = SHIPPED) -> Reference:
        """A scan as a reference.

        Args:
            volume: 3D, of any contrast.
            weights: "reference", which is shipped, or a file of `medddpm train reference`.

        Raises:
            VolumeReadError: It is 4D, blank, or holds NaN.
            CheckpointError: There are no such weights, or they are damaged.
        """
        what = f"the reference {volume.case_id}"
        if volume.data.ndim != 3:
            raise VolumeReadError(
                f"{what} is 4D, with {volume.num_frames} volumes; give one volume of it"
            )
        check_intensities(volume.data, what)
        image, _ = above_floor(volume.data)
        scaled = image / np.float32(intensity_scale(image, foreground_mask(image)))
        trained = load_reference(find_reference_weights(weights))
        return cls(volume, np.clip(scaled, 0, 8).astype(np.float32), trained)

    def check(self, options: RestoreOptions, digest: str) -> None:
        """Refuse a restoration that this network was not trained to help.

        Args:
            options: Of the restoration.
            digest: SHA-256 of the networks that restore, `Model.networks_digest`.

        Raises:
            ConfigError: It is no plain `mean`.
            CheckpointError: The network was trained beside other weights.
        """
        if not options.is_one_graph:
            raise ConfigError(
                f"a reference helps mode mean with fidelity 1 and without guidance, and this is "
                f"mode {options.mode} with fidelity {options.fidelity:g}; leave one of them out"
            )
        if options.frames != "each":
            raise ConfigError(
                f"a reference helps each frame by itself; leave out restore.frames={options.frames}"
                " or the reference"
            )
        if self.trained.card.model != digest:
            raise CheckpointError(
                "the reference network was trained beside other weights than these; use the "
                "default ones, or train one with `medddpm train reference --from`"
            )

    def on(self, frame: Frame) -> Placed:
        """The reference on the grid of a frame.

        Raises:
            GeometryError: They hardly share any place.
        """
        there = self.volume.affine
        share = share_inside(there, self.scaled.shape, frame.affine, frame.mask)
        if share < _LEAST_SHARE:
            raise GeometryError(
                f"the reference covers {share:.0%} of the scan by their affines; give a scan of "
                "the same session, or align it first"
            )
        return Placed(self, frame, on_grid(self.scaled, there, frame.affine, frame.y.shape))


@dataclass(frozen=True)
class Placed:
    """A reference on the grid of a frame.

    Attributes:
        reference: What it is.
        frame: The frame.
        image: (X, Y, Z) on the grid of `frame.y`; 0 where there is none.
    """

    reference: Reference
    frame: Frame
    image: Array

    def helps(self, mean: Array, device: torch.device, *, bf16: bool) -> tuple[Array, float]:
        """A restoration with what the reference adds, and its misfit, see `misfit_of`.

        What does not fit is not used: the restoration then stays as it is.

        Args:
            mean: (X, Y, Z), the restored frame on the grid of `frame.y`.
            device: Where the network runs.
            bf16: Whether in bfloat16.
        """
        frame = self.frame
        misfit = misfit_of(mean, self.image, frame.mask, frame.spacing)
        if misfit > MOST_MISFIT:
            return mean, misfit
        network = self.reference.trained.network.to(device)
        x, y, z = mean.shape
        plan = plan_tiles((x, y, z), 96, 16, _MULTIPLE)
        sigma = np.broadcast_to(np.asarray(frame.law.sigma, np.float32), mean.shape)
        images = (frame.y, mean, self.image, np.ascontiguousarray(sigma))
        padded = [pad_mirrored(image, plan.padded) for image in images]
        spacing = torch.tensor([frame.spacing], dtype=torch.float32, device=device)

        def corrected(tiles: Array, starts: list[Triple]) -> Array:
            stacks = [np.stack([p[plan.slices(s)] for s in starts])[:, None] for p in padded]
            given = [torch.from_numpy(stack).to(device) for stack in stacks]
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                error = network(*given, spacing.expand(len(starts), 3))
            out: Array = (given[1] + given[3] * error.float())[:, 0].cpu().numpy()
            return out

        with torch.inference_mode():
            groups = list(batches(plan, 1, padded[0] == 0))
            return blended(plan, padded[1], groups, corrected), misfit

    def judged(self, guard: GuardReport, misfit: float) -> GuardReport:
        """The verdict of the guard, with that on the reference."""
        own = judge({"reference": Finding(misfit)}, {"reference": (None, MOST_MISFIT)})
        notices = (*own.notices, *self.reference.notices, *guard.notices)[:MOST_WORDS]
        return replace(guard, checks=(*guard.checks, *own.checks), notices=notices)
