"""A textured head, and the same with the mark of a key."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.marking.embed import mark
from medddpm.marking.key import Key
from medddpm.volume import Geometry, Volume

Head = Callable[..., NDArray[np.float32]]


@pytest.fixture(scope="session")
def key() -> Key:
    return Key(bytes(range(32)))


@pytest.fixture(scope="session")
def other_key() -> Key:
    return Key(bytes(range(1, 33)))


@pytest.fixture
def textured(head: Head) -> Callable[..., Volume]:
    """A head with the texture of tissue, in air of 0: textured((64, 64, 64), spacing, seed)."""

    def make(
        shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1, 1, 1), seed: int = 0
    ) -> Volume:
        rng = np.random.default_rng(seed)
        clean = head(shape)
        grain = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2)
        data = clean * (1 + 0.04 * grain / grain.std())
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = [-40.0, 17.5, -33.3]
        return Volume(data.astype(np.float32), Geometry(shape, affine), case_id="drawn")

    return make


@pytest.fixture(scope="session")
def drawn_and_marked(key: Key) -> tuple[Volume, Volume]:
    """A scan of 80^3 and the same marked; made once, as volumes never change."""
    rng = np.random.default_rng(7)
    shape = (80, 80, 80)
    grain = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2)
    slow = ndimage.gaussian_filter(rng.standard_normal(shape), 6.0)
    data = 600 + 250 * np.tanh(slow / slow.std() * 3) + 25 * grain / grain.std()
    scan = Volume(data.astype(np.float32), Geometry(shape, np.eye(4)), case_id="drawn")
    return scan, mark(scan, key)
