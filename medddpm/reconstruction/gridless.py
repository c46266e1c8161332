"""A problem whose samples lie on no grid: radial, spiral and others."""

from __future__ import annotations

import torch
from torch import Tensor

from medddpm.errors import ShapeError
from medddpm.operators.compression import compression_matrix
from medddpm.operators.fourier import cropped, fft
from medddpm.operators.nufft import NufftSense, density_weights
from medddpm.operators.solve import conjugate_gradients, largest_eigenvalue
from medddpm.operators.whitening import mixed
from medddpm.reconstruction.problem import (
    Problem,
    brightness,
    centre_shape,
    sensitivities,
    whitener,
)

_OUTER = 0.06
"""Share of the samples, the farthest from the middle, that tell the noise if nothing else does."""
_CENTRE_STEPS = 20


def make_gridless_problem(
    samples: Tensor,
    mask: Tensor,
    places: Tensor,
    matrix: tuple[int, int, int],
    spacing: tuple[float, float, float],
    *,
    noise: Tensor | None = None,
    coils: int | None = None,
    maps: Tensor | None = None,
) -> Problem:
    """Whiten, compress, weight by density, find the sensitivities and the scale.

    The samples are weighted by the square roots of their density weights w, so that all methods see
    what they see on a grid. Their noise then counts as white with a variance of sum w^2 / sum w
    of that of a sample, which is that of a fully measured image.

    Args:
        samples: (B, C, n, m, 1).
        mask: (B, n, m, 1), what was measured.
        places: (B or 1, n, m, 1, 3), see `nufft`.
        matrix: Voxels of the image.
        spacing: Their size in mm.
        noise: (C, N) samples without signal; the outermost samples if not given.
        coils: Compress to so many.
        maps: (B or 1, C, X, Y, Z) known sensitivities of the whitened coils.

    Raises:
        ShapeError: The middle of k-space is not fully measured, and maps are not given.
        MissingExtraError: finufft is not installed.
    """
    if bool((mask == mask[:1]).all()):
        mask = mask[:1]
    kept = mask.bool().any(dim=(0, 1, 3))
    samples, mask, places = samples[:, :, :, kept], mask[:, :, kept], places[:, :, kept]
    told = _outer_samples(samples, mask, places) if noise is None else noise
    turned = whitener(told, samples.shape[1])
    weights = _weights(places, mask, matrix)
    sizes = _centre_sizes(places, mask, matrix, needed=maps is None and samples.shape[1] > 1)
    centre = _centre(samples, weights, places, sizes, matrix)
    if coils is not None and coils < samples.shape[1]:
        turned = compression_matrix(mixed(centre, turned), coils) @ turned
    samples, centre = mixed(samples, turned), mixed(centre, turned)
    maps = sensitivities(centre, matrix) if maps is None else maps
    sense = NufftSense(maps, weights.sqrt(), places)
    sigma = float((weights.square().sum() / weights.sum()).sqrt())
    scale = brightness(centre, maps) / sigma
    voxels = float(torch.tensor(matrix).prod()) * len(weights)
    return Problem(
        sense,
        samples * sense.mask[:, None] / (scale * sigma),
        1 / scale,
        scale,
        centre / (scale * sigma),
        spacing,
        voxels / float(weights.sum()),
        norm=_norm(sense),
        sample_noise=1 / sigma,
    )


def _weights(places: Tensor, mask: Tensor, matrix: tuple[int, int, int]) -> Tensor:
    """(B or 1, n, m, 1) density weights, each slice its own where slices differ."""
    count = max(len(places), len(mask))
    pairs = zip(
        places.expand(count, *places.shape[1:]), mask.expand(count, *mask.shape[1:]), strict=True
    )
    each = [density_weights(k.reshape(-1, 3), m.flatten(), matrix) for k, m in pairs]
    return torch.stack(each).reshape(count, *mask.shape[1:])


def _centre_sizes(
    places: Tensor, mask: Tensor, matrix: tuple[int, int, int], *, needed: bool
) -> tuple[int, ...]:
    """The largest box in the middle of k-space with a sample in each of its cells."""
    hit = torch.zeros(matrix, dtype=torch.bool)
    there = places[0][mask.bool().all(dim=0)]
    halves = torch.tensor([n // 2 for n in matrix])
    cells = (there.round().long() + halves).unbind(dim=1)
    inside = torch.ones(len(there), dtype=torch.bool)
    for cell, length in zip(cells, matrix, strict=True):
        inside &= (cell >= 0) & (cell < length)
    hit[tuple(cell[inside] for cell in cells)] = True
    try:
        return centre_shape(hit[None])
    except ShapeError:
        if needed:
            raise
        return tuple(min(n, 12) for n in matrix)


def _centre(
    samples: Tensor,
    weights: Tensor,
    places: Tensor,
    sizes: tuple[int, ...],
    matrix: tuple[int, int, int],
) -> Tensor:
    """(B, C, x, y, z) k-space on the grid, from coil images of low resolution."""
    low = [min(2 * n, length) for n, length in zip(sizes, matrix, strict=True)]
    edge = torch.tensor(low) / 2
    near = (places.abs() <= edge).all(dim=-1)
    used = (near * weights).sqrt()
    batch, coils = samples.shape[:2]
    ones = torch.ones(1, 1, *low, dtype=samples.dtype)
    each = []
    for one in range(batch):
        part = used[min(one, len(used) - 1)][None], places[min(one, len(places) - 1)][None]
        sense = NufftSense(ones, *part)
        right = sense.adjoint((samples[one] * part[0])[:, None])
        normal = sense.normal
        image = conjugate_gradients(
            lambda x, normal=normal: normal(x) + 1e-3 * x,  # type: ignore[misc]
            right,
            iterations=_CENTRE_STEPS,
            tolerance=1e-3,
        )
        each.append(cropped(fft(image), sizes))
    return torch.stack(each).reshape(batch, coils, *sizes)


def _outer_samples(samples: Tensor, mask: Tensor, places: Tensor) -> Tensor:
    """(C, N) samples farthest from the middle, where there is nearly no signal."""
    there = mask.bool().all(dim=0)
    radius = torch.where(there, places[0].square().sum(dim=-1), -1)
    count = max(1, int(_OUTER * int(there.sum())))
    far = radius.flatten().topk(count).indices
    return samples.flatten(2)[:, :, far].movedim(1, 0).flatten(1)


def _norm(sense: NufftSense) -> float:
    """An upper bound of the norm of A^H A: that of one coil that sees what all see together."""
    seen = (sense.maps.abs().sum(dim=(0, 1)) > 0).to(sense.maps.dtype)
    one = NufftSense(seen[None, None], sense.mask, sense.places)
    like = torch.zeros(max(len(sense.mask), len(sense.places)), *seen.shape, dtype=seen.dtype)
    # power iteration comes from below: 30 steps end within 3 % of it
    return 1.05 * max(1.0, largest_eigenvalue(one.normal, like, 30))
