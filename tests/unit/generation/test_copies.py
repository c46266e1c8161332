"""What is called a copy."""

from __future__ import annotations

import torch

from medddpm.generation.copies import Likeness, embedding, nearest, threshold_of


def test_itself_is_nearest_and_scale_does_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(5, 3, 8, 8, 8, generator=generator)
    memory = embedding(known)
    assert torch.allclose(nearest(2 * known, memory), torch.ones(5), atol=1e-5)
    other = torch.randn(5, 3, 8, 8, 8, generator=generator)
    assert float(nearest(other, memory).max()) < 0.6


def test_threshold_leaves_the_share_below() -> None:
    held = torch.arange(101) / 100
    assert threshold_of(held) == float(torch.tensor(0.99))
    assert Likeness(0.995, 0.99).is_copy
    assert not Likeness(0.99, 0.99).is_copy
