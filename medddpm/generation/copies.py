"""Is a draw a copy of a training scan? Asked of every draw before it is written.

A copy may lie in another pose, since training moves and bends its heads: all heads are brought to
the pose of the mean head first. What is compared then is their fine structure, evened out by its
local strength, so that a bias field or another intensity curve does not count. The threshold is
what held-out heads reach, as in Dar et al. 2023, "Investigating data memorization in 3D latent
diffusion models for medical image synthesis".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from medddpm.generation.align import aligned

Image = NDArray[np.float32]

_LARGEST = 2.0
"""Width in voxels of the Gaussian that what is coarser is taken off by."""
_BODY = 0.3
"""Of the brightest of the mean head: where structure is compared."""
_NUMBERS = 2048
"""That are kept of a head."""
_LEAST = 1e-4


@dataclass(frozen=True)
class Resemblance:
    """How near a draw comes to the training scan that is most like it.

    Attributes:
        similarity: Correlation of fine structure, the mean of all heads taken off; 1 for the same.
        threshold: What held-out heads reach against the training scans; more is a copy.
    """

    similarity: float
    threshold: float

    @property
    def is_copy(self) -> bool:
        """True if it is more like a training scan than another person's scan is."""
        return self.similarity > self.threshold


@dataclass(frozen=True)
class Memory:
    """What is kept of the training scans.

    Attributes:
        rows: (N, D) of unit length, one a head and mirror image.
        centre: (D,), the mean of all heads, which was taken off.
    """

    rows: Tensor
    centre: Tensor

    def nearest(self, images: Tensor, mean: Tensor) -> Tensor:
        """(B,) highest correlation of each image with a training scan; arguments of `structure`."""
        found = F.normalize(structure(images, mean) - self.centre.float(), dim=1)
        return (found @ self.rows.float().T).amax(1)


def memory_of(images: Tensor, mean: Tensor) -> Memory:
    """The memory of training heads; arguments of `structure`."""
    found = structure(images, mean)
    centre = found.mean(0)
    return Memory(F.normalize(found - centre, dim=1).half(), centre)


def structure(images: Tensor, mean: Tensor) -> Tensor:
    """(B, D) random projections of the fine structure of heads in one pose.

    Projections keep correlations to about 1 / sqrt(D) (Johnson and Lindenstrauss 1984; these are
    those of Ailon and Chazelle 2009, with a Fourier transform), and the file of a prior that holds
    them holds no picture of anybody.

    Args:
        images: (B, 1, X, Y, Z) on the intensity scale.
        mean: (1, 1, X, Y, Z), the mean head.
    """
    shape = mean[0, 0].cpu().numpy()
    body = ndimage.binary_erosion(shape > _BODY * shape.max())
    if not body.any():  # a mean without a shape: of a codec that learned nothing
        body = np.ones_like(body)
    rows = [_evened(image[0].numpy()) * body for image in aligned(images, mean)]
    flat = torch.from_numpy(np.stack(rows)).flatten(1).float()
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, flat.shape[1:], generator=generator) * 2 - 1
    waves = torch.fft.rfft(flat * signs)
    picked = torch.randperm(waves.shape[1], generator=generator)[: _NUMBERS // 2]
    found: Tensor = torch.view_as_real(waves[:, picked]).flatten(1) / flat.shape[1] ** 0.5
    return found


def _evened(image: Image) -> Image:
    """Without what is coarse, and over its own local strength."""
    fine = image - ndimage.gaussian_filter(image, _LARGEST)
    return np.asarray(fine / np.sqrt(ndimage.gaussian_filter(fine**2, _LARGEST) + _LEAST))


def threshold_of(held: Tensor, share: float = 0.99) -> float:
    """The similarity that so large a share of held-out heads (N,) stays below."""
    return float(torch.quantile(held, share))
