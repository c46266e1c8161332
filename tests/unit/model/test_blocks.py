from __future__ import annotations

import pytest
import torch

from medddpm.model.blocks import (
    ConditionEmbedding,
    NormedUNet,
    ResBlock,
    RowLinear,
    UNet,
    depth_to_space,
    log_spacing,
    scaled_log_sigma,
    space_to_depth,
)


@pytest.mark.parametrize("factor", [2, 4])
def test_depth_to_space_undoes_space_to_depth(factor: int) -> None:
    x = torch.randn(2, 3, 8, 16, 8)
    packed = space_to_depth(x, factor)
    assert packed.shape == (2, 3 * factor**3, 8 // factor, 16 // factor, 8 // factor)
    torch.testing.assert_close(depth_to_space(packed, factor), x)


def test_a_block_of_voxels_lands_in_one_place() -> None:
    x = torch.zeros(1, 1, 8, 8, 8)
    x[0, 0, 2:4, 4:6, 6:8] = 1
    packed = space_to_depth(x, 2)
    assert packed[0, :, 1, 2, 3].sum() == 8
    assert packed.sum() == 8


def test_the_condition_reaches_the_output() -> None:
    torch.manual_seed(0)
    net = UNet(2, 3, (8, 12), 1, 16)
    embed = ConditionEmbedding(2, 16)
    x = torch.randn(1, 2, 8, 8, 8)
    a = net(x, embed(torch.tensor([[0.1, 0.2]])))
    b = net(x, embed(torch.tensor([[0.9, 0.2]])))
    assert a.shape == (1, 3, 8, 8, 8)
    assert (a - b).abs().max() > 1e-5


def test_injected_features_reach_the_output() -> None:
    torch.manual_seed(0)
    net = NormedUNet(2, (8, 12), 1, 16, injected=(1, 5))
    x, e = torch.randn(1, 2, 8, 8, 8), torch.randn(1, 16)
    a = net(x, e, torch.zeros(1, 5, 4, 4, 4))
    b = net(x, e, torch.ones(1, 5, 4, 4, 4))
    assert (a - b).abs().max() > 1e-5


def test_a_row_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    layer = RowLinear(128, 96)
    rows = torch.randn(8, 128)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        together = layer(rows)
        assert all(torch.equal(layer(rows[i : i + 1])[0], together[i]) for i in range(8))


def test_a_voxel_far_away_does_not_matter() -> None:
    """No normalisation: a result does not depend on what else the tile holds."""
    torch.manual_seed(0)
    block = ResBlock(4)
    x = torch.randn(1, 4, 16, 8, 8)
    y = x.clone()
    y[:, :, 12:] = 50
    torch.testing.assert_close(block(x)[:, :, :8], block(y)[:, :, :8])


def test_conditions_are_scaled_to_about_one() -> None:
    assert log_spacing(torch.tensor([[0.5, 1.0, 6.0]])).tolist()[0] == pytest.approx(
        [-0.385, 0.0, 0.995], abs=0.01
    )
    assert scaled_log_sigma(torch.tensor([0.005, 0.25])).abs().max() < 1.01
