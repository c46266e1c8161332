"""The shipped restorer as the prior of a reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from medddpm.preprocess.noise_law import WHITE, Colour, NoiseLaw
from medddpm.restoration.gaussian import denoise_gaussian
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restorer import Restorer

_THIN = 1 / 16
"""Of Nyquist: noise that is the same in all slices, as those of a repeated single slice."""


class Prior:
    """E[x | x + sigma n] of real images, by the networks.

    Args:
        restorer: Holds the networks.
        spacing: Voxel size of the images in mm.
        options: Tiles, memory and shifts.
    """

    def __init__(
        self,
        restorer: Restorer,
        spacing: Sequence[float],
        options: RestoreOptions | None = None,
    ) -> None:
        self.restorer, self.spacing = restorer, tuple(spacing)
        self.options = replace(options or RestoreOptions(), mode="mean", noise="gaussian", shifts=1)

    def drawing(self, seed: int, evaluations: int) -> Prior:
        """The same, but for one plausible clean image in place of the expected one.

        Args:
            seed: Of the noise fields.
            evaluations: Of the networks a draw.
        """
        other = Prior(self.restorer, self.spacing, self.options)
        other.options = replace(self.options, mode="sample", steps=evaluations, seed=seed)
        return other

    def __call__(self, images: Tensor, sigma: float, learned: bool = True) -> Tensor:
        """(B, X, Y, Z) denoised; slices (Z = 1) are seen together, as a stack along Z.

        Args:
            images: Of intensity scale 1.
            sigma: Of their noise.
            learned: By the networks, or by the shrinkage that they start from.
        """
        if images.shape[-1] > 1:
            return torch.stack([self._one(image, sigma, learned) for image in images])
        stack = self._one(images[..., 0].permute(1, 2, 0), sigma, learned)
        return stack.permute(2, 0, 1)[..., None]

    def _one(self, image: Tensor, sigma: float, learned: bool) -> Tensor:
        colour = Colour((1.0, 1.0, _THIN)) if image.shape[-1] == 1 else WHITE
        done = denoise_gaussian(
            self.restorer.model,
            np.ascontiguousarray(image.cpu().numpy(), np.float32),
            NoiseLaw("gaussian", 1, float(sigma), colour),
            self.spacing,
            options=self.options,
            device=self.restorer.device,
            learned=learned,
        )
        return torch.from_numpy(done).to(image.device)
