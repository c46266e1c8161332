"""Coil sensitivities, Cartesian sampling, and SENSE, their composition with the transform.

Every operator has `forward` and `adjoint`, with <A x, y> = <x, A^H y>, and `normal`, A^H A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from medddpm.errors import ShapeError
from medddpm.operators.fourier import SPATIAL, fft, ifft


class Linear(Protocol):
    """A linear map between two spaces of tensors whose first axis is the batch."""

    def forward(self, x: Tensor) -> Tensor:
        """A x."""

    def adjoint(self, y: Tensor) -> Tensor:
        """A^H y."""

    def normal(self, x: Tensor) -> Tensor:
        """A^H A x."""


@dataclass(frozen=True)
class Fourier:
    """The centred, unitary transform along some axes."""

    axes: tuple[int, ...] = SPATIAL

    def forward(self, x: Tensor) -> Tensor:
        """Image to k-space."""
        return fft(x, self.axes)

    def adjoint(self, y: Tensor) -> Tensor:
        """K-space to image."""
        return ifft(y, self.axes)

    def normal(self, x: Tensor) -> Tensor:
        """The image itself."""
        return x


@dataclass(frozen=True)
class Coils:
    """What each coil sees of an image: x times its sensitivity.

    Attributes:
        maps: (B or 1, C, X, Y, Z).
    """

    maps: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, X, Y, Z) to (B, C, X, Y, Z)."""
        return self.maps * x[:, None]

    def adjoint(self, y: Tensor) -> Tensor:
        """(B, C, X, Y, Z) to (B, X, Y, Z)."""
        return (self.maps.conj() * y).sum(dim=1)

    def normal(self, x: Tensor) -> Tensor:
        """The image times the sum of squares of the sensitivities."""
        return x * self.maps.abs().square().sum(dim=1)


@dataclass(frozen=True)
class Sampling:
    """Which samples of k-space were measured.

    Attributes:
        mask: (B or 1, X, Y, Z), real or boolean; axes of length 1 are broadcast.
    """

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """K-space (B, C, X, Y, Z) with zeros where nothing was measured."""
        return x * self.mask[:, None]

    def adjoint(self, y: Tensor) -> Tensor:
        """The same: the operator is real and diagonal."""
        return self.forward(y)

    def normal(self, x: Tensor) -> Tensor:
        """Twice the same."""
        return self.forward(self.forward(x))


@dataclass(frozen=True)
class Composed:
    """The operators one after the other, the first of the list acting first."""

    parts: Sequence[Linear]

    def forward(self, x: Tensor) -> Tensor:
        """A_n ... A_1 x."""
        for part in self.parts:
            x = part.forward(x)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """A_1^H ... A_n^H y."""
        for part in reversed(self.parts):
            y = part.adjoint(y)
        return y

    def normal(self, x: Tensor) -> Tensor:
        """A^H A x."""
        return self.adjoint(self.forward(x))


@dataclass(frozen=True)
class Sense:
    """A = M F S (Pruessmann et al., Magn Reson Med 46:638, 2001), one coil at a time.

    The transform runs along `axes` alone: along an axis on which all was measured, k-space is
    given, once and for all, as the image ("hybrid space").

    Attributes:
        maps: (B or 1, C, X, Y, Z) sensitivities.
        mask: (B or 1, X, Y, Z), 0 and 1; axes of length 1 are broadcast.
        axes: Axes that are transformed, counted from the end.
    """

    maps: Tensor
    mask: Tensor
    axes: tuple[int, ...] = SPATIAL

    def __post_init__(self) -> None:
        if self.maps.ndim != 5 or self.mask.ndim != 4:
            raise ShapeError(
                f"maps are (B, C, X, Y, Z) and a mask is (B, X, Y, Z), got "
                f"{tuple(self.maps.shape)} and {tuple(self.mask.shape)}"
            )
        object.__setattr__(self, "mask", self.mask.to(torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(B, X, Y, Z) to k-space (B, C, X, Y, Z), zero where nothing was measured."""
        coils = [self.mask * fft(self.maps[:, c] * x, self.axes) for c in self._coils]
        return torch.stack(coils, dim=1)

    def adjoint(self, y: Tensor) -> Tensor:
        """K-space (B, C, X, Y, Z) to (B, X, Y, Z)."""
        out = torch.zeros_like(y[:, 0])
        for c in self._coils:
            out += self.maps[:, c].conj() * ifft(self.mask * y[:, c], self.axes)
        return out

    def normal(self, x: Tensor) -> Tensor:
        """A^H A x; the shifts of the centred transform cancel but for that of the mask."""
        square = torch.fft.ifftshift(self.mask.square(), dim=self.axes)
        out = torch.zeros_like(x)
        for c in self._coils:
            seen = torch.fft.fftn(self.maps[:, c] * x, dim=self.axes)
            seen *= square
            out += self.maps[:, c].conj() * torch.fft.ifftn(seen, dim=self.axes)
        return out

    def masked(self, mask: Tensor) -> Sense:
        """The same with another mask, such as some of the lines alone."""
        return replace(self, mask=mask)

    @property
    def _coils(self) -> range:
        return range(self.maps.shape[1])


def hybrid(kspace: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """K-space as `Sense` takes it with the fewest transforms: data, mask and axes.

    Args:
        kspace: (B, C, X, Y, Z).
        mask: (B or 1, X, Y, Z).

    Returns:
        K-space transformed to the image along the axes on which the mask is constant, the mask
        with length 1 there, and the axes that are left; at least one.
    """
    left = tuple(axis for axis in SPATIAL if varies(mask, axis)) or (-1,)
    done = tuple(axis for axis in SPATIAL if axis not in left and kspace.shape[axis] > 1)
    for axis in set(SPATIAL) - set(left):
        mask = mask.narrow(axis, 0, 1)
    return (ifft(kspace, done) if done else kspace), mask, left


def varies(mask: Tensor, axis: int) -> bool:
    """Whether a mask is another one somewhere along an axis."""
    first = mask.narrow(axis, 0, 1)
    return not torch.equal(first.expand_as(mask), mask)
