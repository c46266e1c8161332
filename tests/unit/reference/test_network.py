"""The reference network: `mean` until something is learned, blind to contrast, and local."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from medddpm.reference.network import ReferenceNetwork, ReferenceSpec, guided

SPEC = ReferenceSpec((8, 8))


@pytest.fixture
def network() -> ReferenceNetwork:
    torch.manual_seed(0)
    made = ReferenceNetwork(SPEC).eval()
    torch.nn.init.normal_(made.gates.weight)
    return made


def given(count: int = 2, sigma: float = 0.05) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    images = [torch.rand(count, 1, 12, 14, 16, generator=draw) for _ in range(3)]
    return [*images, torch.full_like(images[0], sigma), torch.ones(count, 3)]


def test_nothing_is_changed_before_anything_is_learned() -> None:
    fresh = ReferenceNetwork(SPEC)
    out = fresh(*given())
    assert not out.any()
    (out - 1).square().mean().backward()
    assert fresh.gates.weight.grad is not None
    assert fresh.gates.weight.grad.abs().max() > 0


def test_the_contrast_of_the_reference_does_not_matter(network: ReferenceNetwork) -> None:
    y, mean, reference, sigma, spacing = given()
    with torch.no_grad():
        out = network(y, mean, reference, sigma, spacing)
        inverted = network(y, mean, 1 - reference, sigma, spacing)
        other = network(y, mean, reference.flip(2), sigma, spacing)
    torch.testing.assert_close(out, inverted, rtol=0, atol=1e-3)
    assert (out - other).abs().max() > 0.1


def test_without_a_border_nothing_is_given_back(network: ReferenceNetwork) -> None:
    y, mean, _, sigma, spacing = given()
    with torch.no_grad():
        out = network(y, mean, torch.full_like(y, 0.5), sigma, spacing)
    assert out.abs().max() < 1e-3


def test_a_lost_border_is_found_and_noise_is_not() -> None:
    """A step of one sigma that both images have, and one that the reference alone has."""
    step = torch.zeros(1, 1, 32, 32, 32)
    step[:, :, 16:] = 1.0
    noise = torch.randn(step.shape, generator=torch.Generator().manual_seed(0))
    shared, _ = guided(step - 0.5 + noise, 0.3 + 0.2 * step)
    alone, doubts = guided(noise, 0.3 + 0.2 * step)
    near = (slice(None), slice(None), slice(15, 17), slice(5, -5), slice(5, -5))
    wide = 4, 5  # the estimates of the widest window
    for index in wide:
        found = shared[near][:, index]
        assert 0.6 < float(found[:, 1].mean() - found[:, 0].mean()) < 1.2
        assert alone[near][:, index].abs().mean() < 0.15
    assert doubts[:, 0].mean() < 1


def test_a_tile_does_not_depend_on_its_batch(network: ReferenceNetwork) -> None:
    whole = given()
    with torch.no_grad():
        together = network(*whole)
        alone = network(*(value[:1] for value in whole))
        thinned = network(*whole, every=2)
    torch.testing.assert_close(together[:1], alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together[..., ::2, ::2, ::2], thinned, rtol=1e-5, atol=1e-6)


def test_it_sees_as_far_as_tiles_overlap(network: ReferenceNetwork) -> None:
    whole = given(1)
    parts = [F.pad(value, (0, 0, 0, 0, 8, 8)) if value.ndim == 5 else value for value in whole]
    moved = [value.clone() for value in parts]
    moved[2][:, :, 0] += 1.0  # eight voxels and more away
    with torch.no_grad():
        before, after = network(*parts), network(*moved)
    assert (before - after)[:, :, 9:].abs().max() < 1e-4
