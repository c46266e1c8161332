"""The GAN: its losses in closed form, whose gradients do not mix, and its critic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from medddpm.comparison.gan import Gan, GanStage, apart, critic_loss, generator_loss
from medddpm.comparison.scene import Scene
from medddpm.training.batches import Share


def test_losses_in_closed_form() -> None:
    real, drawn = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, -0.5, 1.0])
    # max(0, 1 - real) = 0, 0.5, 2; max(0, 1 + drawn) = 0, 0.5, 2
    assert float(critic_loss(real, drawn)) == pytest.approx(2.5 / 3 + 2.5 / 3)
    assert float(generator_loss(drawn)) == pytest.approx(2.5 / 3)


def test_their_sum_is_1_or_more_for_any_scores() -> None:
    scores = 10 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    each = [float(critic_loss(r, d) + generator_loss(d)) for r, d in zip(*scores, strict=True)]
    assert min(each) > 1 - 1e-5


@pytest.fixture
def stage(scene: Callable[[int], Scene]) -> GanStage:
    task = scene(2)
    heads, gan = task.halves, Gan(task.network())
    return GanStage(gan, heads.train, heads.held, task.prior)


def _gradients(network: nn.Module) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    network.zero_grad(set_to_none=True)
    return found


def test_gradients_of_the_two_do_not_mix(stage: GanStage) -> None:
    """The one sum moves each as its own loss alone would."""
    gan = stage.gan.eval()  # the power iteration of the spectral norm rests
    share = Share(7, 0, 2, 2)
    x = stage.draw(share)
    u, eps = stage.standardised(x), share.normal((8, 16, 16, 16), torch.device("cpu"))
    stage.loss(x, share).backward()
    both = _gradients(gan.critic), _gradients(gan.prior)
    critic_loss(gan.score(u), gan.score(gan.generate(eps).detach())).backward()
    alone = _gradients(gan.critic)
    generator_loss(gan.score(gan.generate(eps))).backward()
    gan.critic.zero_grad()
    assert torch.allclose(both[0], alone, atol=1e-6)
    assert torch.allclose(both[1], _gradients(gan.prior), atol=1e-6)
    assert float(both[0].abs().max()) > 1e-4
    assert float(both[1].abs().max()) > 1e-4


def test_filters_of_the_critic_have_spectral_norm_1(stage: GanStage) -> None:
    critic = stage.gan.critic.train()
    told = torch.randn(1, 8 + 3 + 8, 16, 16, 16)
    for _ in range(30):  # the norm is found by power iteration, one step a call
        critic(told)
    filters = [m.weight for m in critic.eval().modules() if isinstance(m, nn.Conv3d)]
    assert len(filters) == 7  # in, two blocks of two, one that halves, out
    for weight in filters:
        norm = torch.linalg.matrix_norm(weight.detach().flatten(1), 2)
        assert float(norm) == pytest.approx(1, abs=0.05)


def test_each_sample_is_a_head_of_its_own(stage: GanStage) -> None:
    whole = stage.draw(Share(7, 0, 2, 2))
    assert whole.shape == (2, 1, 32, 32, 32)
    assert not torch.allclose(whole[0], whole[1])
    assert torch.equal(whole[1:], stage.draw(Share(7, 1, 1, 2)))


def test_heads_that_are_one_do_not_lie_apart() -> None:
    head = torch.randn(1, 4, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    assert apart(head.expand(3, -1, -1, -1, -1)) == pytest.approx(0, abs=1e-6)
    assert apart(torch.cat([head, -head])) == pytest.approx(float(head.square().mean().sqrt()))
