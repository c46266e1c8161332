from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medddpm.errors import ConfigError
from medddpm.operators.fourier import fft
from medddpm.preprocess.acquisition import simulated_coils
from medddpm.reconstruction.held_out import held_out_notices, hold_out
from medddpm.reconstruction.masks import sampling_lines
from medddpm.reconstruction.methods import solve_frame
from medddpm.reconstruction.options import ReconstructOptions
from medddpm.reconstruction.plug_and_play import Denoise, PlugOptions
from medddpm.reconstruction.prior import Prior
from medddpm.reconstruction.problem import Problem, make_problem
from medddpm.reconstruction.sampling import draws
from medddpm.restoration.restorer import Restorer

SHAPE = (12, 32, 28)
SIGMA = 0.02


def image() -> Tensor:
    axes = [torch.linspace(-1, 1, n) for n in SHAPE]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    radius = (y / 0.75) ** 2 + (z / 0.7) ** 2 + 0.2 * x
    return torch.complex((radius < 0.8).float() + 0.5 * (radius < 0.3), torch.zeros(SHAPE))[None]


def problem(num_coils: int = 4, lines: Tensor | None = None, seed: int = 0) -> Problem:
    """The image through known coils, in noise of SIGMA."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.from_numpy(simulated_coils(SHAPE, num_coils, np.random.default_rng(0)))[None]
    maps = maps / maps.abs().square().sum(dim=1, keepdim=True).sqrt()
    noise = torch.randn((num_coils, 2000), dtype=torch.complex64, generator=generator) * (
        SIGMA * 2**0.5
    )
    kspace = fft(maps * image()[:, None])
    added = torch.randn(kspace.shape, dtype=torch.complex64, generator=generator)
    kspace = kspace + SIGMA * 2**0.5 * added
    mask = torch.ones(1, *SHAPE, dtype=torch.bool)
    if lines is not None:
        mask = mask & lines
    return make_problem(kspace * mask[:, None], mask, (1, 1, 1), noise=noise, maps=maps)


def every(kind: str = "vd2d", acceleration: float = 2) -> Tensor:
    found = sampling_lines(kind, SHAPE[1:], acceleration, acs=12)  # type: ignore[arg-type]
    return torch.from_numpy(found)


class Gaussian:
    """The exact prior of white Gaussian images around the true one, of a spread."""

    def __init__(self, spread: float, scale: float) -> None:
        self.spread, self.scale = spread, scale

    def __call__(self, images: Tensor, sigma: float, learned: bool = True) -> Tensor:
        centre = image().real * self.scale if learned else torch.zeros(1, *SHAPE)
        trust = self.spread**2 / (self.spread**2 + sigma**2)
        return centre + trust * (images - centre)

    def drawing(self, seed: int, evaluations: int) -> Denoise:
        generator = torch.Generator().manual_seed(seed)

        def drawn(images: Tensor, sigma: float, learned: bool = True) -> Tensor:
            left = self.spread * sigma / (self.spread**2 + sigma**2) ** 0.5
            noise = torch.randn(images.shape, generator=generator)
            return self(images, sigma, learned) + left * noise

        return drawn


def test_draws_spread_as_a_gaussian_prior_and_what_was_measured_leave_open() -> None:
    """Where nothing was measured, as the prior does; elsewhere as the split model does: noise of
    sigma^2 + s^2 and the prior, of which the last data step leaves half at s = sigma."""
    lines, prior_spread = every(), 0.05
    found = problem(1, lines)
    prior = Gaussian(prior_spread, 1 / (found.scale * SIGMA))
    options = PlugOptions(rounds=30, steps=30, first=2, last=1)
    made = draws(found, prior, lambda s: prior.drawing(s, 1), options, range(6))
    kspace = torch.stack([fft(found.sense.maps[:, 0] * x) for x in made])
    variance = kspace.var(dim=0)[0].mean(dim=0) / 2
    measured = 0.5**2 / (1 / (2 * found.sigma**2) + prior_spread**-2)
    assert float(variance[~lines].mean()) == pytest.approx(prior_spread**2, rel=0.1)
    assert float(variance[lines].mean()) == pytest.approx(measured, rel=0.1)


def test_a_draw_is_that_of_its_seed() -> None:
    found = problem(4, every())
    prior = Gaussian(0.05, 1 / (found.scale * SIGMA))
    options = PlugOptions(rounds=2, steps=3)
    steps: list[tuple[int, int]] = []
    first, other, again = draws(
        found, prior, lambda s: prior.drawing(s, 1), options, [3, 4, 3],
        lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other)
    assert steps == [(n, 7) for n in range(1, 8)]


@pytest.mark.parametrize(("kind", "acceleration"), [("vd2d", 2), ("vd1d", 1.5), ("vd2d", 1)])
def test_the_true_image_predicts_what_was_held_out_within_its_noise(
    kind: str, acceleration: float
) -> None:
    whole = problem(4, every(kind, acceleration))
    fewer, held = hold_out(whole, 0.1, seed=1)
    assert held.share == pytest.approx(0.1, abs=0.03)
    assert fewer.acceleration == pytest.approx(whole.acceleration / (1 - held.share))
    assert not (fewer.sense.mask * held.mask).any()
    assert (fewer.sense.mask + held.mask == whole.sense.mask).all()
    assert not fewer.data[(held.mask[:, None] > 0).expand(fewer.data.shape)].any()
    truth = image() / (whole.scale * SIGMA)
    assert held.error(truth) == pytest.approx(1, abs=0.05)
    wrong = truth.clone()
    wrong[:, :, 10:14, 12:15] += 0.5  # anatomy that was made up
    assert held.error(wrong) > 1.1


def test_slices_of_which_all_was_measured_can_lose_lines_too() -> None:
    generator = torch.Generator().manual_seed(0)
    stack = torch.randn(3, 2, 8, 40, 1, dtype=torch.complex64, generator=generator)
    mask, maps = torch.ones(3, 8, 40, 1), torch.full((1, 2, 8, 40, 1), 0.5**0.5 + 0j)
    slices = make_problem(
        stack, mask, (1, 1, 4), noise=stack[0, :, :, :12, 0].flatten(1), maps=maps
    )
    fewer, held = hold_out(slices, 0.1)
    assert held.share == pytest.approx(0.1)
    assert fewer.acceleration == pytest.approx(1 / 0.9)
    assert int((fewer.sense.mask == 0).sum()) == int(held.mask.sum()) == 4


def test_the_spread_of_predictions_is_that_of_the_images_over_the_coils() -> None:
    """Unit maps and a unitary transform share the variance of white noise among the coils."""
    fewer, held = hold_out(problem(4, every()), 0.2)
    assert fewer.sigma == held.whole.sigma
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(6, 1, *SHAPE, dtype=torch.complex64, generator=generator) * 2**0.5
    images = [image() + 3 * fewer.sigma * one for one in noise]
    assert held.spread(images) == pytest.approx(3 / 4**0.5, rel=0.05)
    assert held.spread([images[0], images[0]]) == pytest.approx(0, abs=1e-6)


def test_calibration_is_never_held_out() -> None:
    whole = problem(4, every())
    y, z = whole.centre.shape[-2:]
    _, held = hold_out(whole, 0.3)
    middle = held.mask[0, 0, 16 - y // 2 : 16 + (y + 1) // 2, 14 - z // 2 : 14 + (z + 1) // 2]
    assert not middle.any()
    with pytest.raises(ConfigError, match="cannot be held out"):
        hold_out(whole, 0.9)


def test_one_line_alone_is_said_to_check_nothing() -> None:
    plain = ReconstructOptions(method="zero-filled", held_out=0.05)
    lines = every("vd1d", 1.5)  # 21 of 32
    told = {
        share: solve_frame(problem(4, lines), replace(plain, held_out=share)).facts["held_out"]
        for share in (0.05, 0.1)
    }
    assert (told[0.05]["lines"], told[0.1]["lines"]) == (1, 2)
    (notice,) = held_out_notices(told[0.05])
    assert "one line alone was held out" in notice
    assert held_out_notices(told[0.1]) == held_out_notices(None) == []


def test_the_modes_of_a_frame() -> None:
    whole = problem(4, every())
    prior = Gaussian(0.05, 1 / (whole.scale * SIGMA))
    few = PlugOptions(steps=3, rounds=2)
    options = ReconstructOptions(mode="ensemble", samples=3, plug=few)
    ensemble = solve_frame(whole, options, prior)
    assert len(ensemble.draws) == 3
    torch.testing.assert_close(ensemble.image, torch.stack(ensemble.draws).mean(dim=0))
    told = ensemble.facts["held_out"]
    assert 0.8 < told["error_in_noise"] <= min(told["error_of_each_draw"])
    one = solve_frame(whole, replace(options, mode="sample"), prior)
    torch.testing.assert_close(one.image, ensemble.draws[0])
    assert solve_frame(whole, replace(options, mode="mean"), prior).facts == {}
    plain = ReconstructOptions(method="cg-sense", held_out=0.1)
    assert solve_frame(whole, plain).facts["held_out"]["error_in_noise"] > 0.9
    with pytest.raises(ConfigError, match="needs the networks"):
        solve_frame(whole, options)
    with pytest.raises(ConfigError, match="cg-sense has none"):
        ReconstructOptions(method="cg-sense", mode="sample")


def test_the_restorer_draws_by_its_seed(tiny_weights: Path) -> None:
    prior = Prior(Restorer.from_pretrained(tiny_weights, device="cpu"), (1, 1, 1))
    noisy = image().real + 0.1 * torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    first, again, other = (prior.drawing(seed, 1)(noisy, 0.1, True) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other)
    assert prior.options.mode == "mean"
