"""How much parallel imaging amplifies noise at each voxel: g-factor maps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medddpm.errors import ShapeError

_LEAST = 1e-6
"""Added to the diagonal of S^H S, whose entries are 1: g is at most a thousand."""


def sense_g_factor(maps: Tensor, factors: tuple[int, int, int]) -> Tensor:
    """(X, Y, Z), 1 or more, 0 where no coil sees anything (Pruessmann et al. 1999, eq. 25).

    g = sqrt([(S^H S)^-1]_ii [S^H S]_ii) over the voxels that fold onto each other where every
    `factors`-th line of whitened k-space is measured.

    Args:
        maps: (C, X, Y, Z).
        factors: R along X, Y and Z; each divides the number of voxels there.

    Raises:
        ShapeError: One does not.
    """
    coils, *shape = maps.shape
    if any(n % r for n, r in zip(shape, factors, strict=True)):
        raise ShapeError(f"{shape} voxels are no multiple of the acceleration {factors}")
    parts: list[int] = []
    for n, r in zip(shape, factors, strict=True):
        parts += [r, n // r]
    folded = maps.reshape(coils, *parts).permute(2, 4, 6, 1, 3, 5, 0).flatten(3, 5)
    power = folded.abs().square().sum(dim=-1)
    seen = (power > 0).to(folded.dtype)
    normal = folded.conj() @ folded.transpose(-1, -2)
    # voxels without signal fold onto nothing; those that no coil tells apart get a large g, no NaN
    normal = normal + torch.diag_embed(1 - seen + _LEAST)
    inverse = torch.linalg.inv(normal).diagonal(dim1=-2, dim2=-1).real
    g = (inverse * power).clamp_min(0).sqrt() * seen.real
    x, y, z = (n // r for n, r in zip(shape, factors, strict=True))
    g = g.reshape(x, y, z, *factors).permute(3, 0, 4, 1, 5, 2)
    whole: Tensor = g.reshape(shape)
    return whole


def replica_g_factor(
    reconstruct: Callable[[Tensor], Tensor],
    full: Callable[[Tensor], Tensor],
    kspace: Tensor,
    acceleration: float,
    *,
    replicas: int = 50,
    seed: int = 0,
) -> Tensor:
    """(B, X, Y, Z) g-factor of any reconstruction (Robson et al., Magn Reson Med 60:895, 2008).

    Args:
        reconstruct: Undersampled k-space (B, C, X, Y, Z) to images.
        full: The same from all samples.
        kspace: Whitened k-space to which noise of sigma 1 is added.
        acceleration: R, the samples of the grid over those that are measured.
        replicas: Copies with fresh noise.
        seed: Of that noise.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    sums = [_Spread(), _Spread()]
    for _ in range(replicas):
        noise = torch.randn(kspace.shape, generator=generator, dtype=kspace.dtype) * 2**0.5
        noise = noise.to(kspace.device)
        sums[0].add(reconstruct(kspace + noise))
        sums[1].add(full(noise))
    fast, slow = (s.std() for s in sums)
    return torch.where(slow > 0, fast / (slow.clamp_min(1e-30) * acceleration**0.5), 0)


class _Spread:
    """Running standard deviation of complex images."""

    def __init__(self) -> None:
        self.count, self.total, self.square = 0, torch.zeros(()), torch.zeros(())

    def add(self, image: Tensor) -> None:
        self.count += 1
        self.total = self.total + image
        self.square = self.square + image.abs().square()

    def std(self) -> Tensor:
        mean = self.total / self.count
        return (self.square / self.count - mean.abs().square()).clamp_min(0).sqrt()
