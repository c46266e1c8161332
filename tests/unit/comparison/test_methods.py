"""Every method trains and draws, and goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medddpm.comparison.gaussian import collected_heads, drawn_of_sample
from medddpm.comparison.methods import METHODS, Trained, method_of
from medddpm.comparison.options import ALL_METHODS
from medddpm.comparison.scene import Scene, folder_of
from medddpm.errors import CheckpointError, ConfigError
from medddpm.generation.prior import STATISTICS


@pytest.mark.parametrize("name", ALL_METHODS)
def test_two_steps_and_a_draw(name: str, scene: Callable[[int], Scene], tmp_path: Path) -> None:
    trained = method_of(name)(scene(2), tmp_path, None)
    first, again, other = (trained.draw(seed) for seed in (3, 3, 4))
    assert first.shape == (1, 1, 32, 32, 32)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.isfinite(first).all()
    assert 0.05 < float(first.std()) < 2
    assert trained.steps == (0 if name == "vae" else 2)
    assert trained.minutes > 0
    assert trained.calls == {"vae": 0, "vae-pca": 0, "gan": 1}.get(name, 2)
    assert trained.weights > 0
    assert (trained.restore is None) is (name == "gan")


def test_networks_know_the_statistics_of_the_heads(scene: Callable[[int], Scene]) -> None:
    made = scene(1)
    network = made.network()
    for name in STATISTICS:
        assert torch.equal(getattr(network, name), getattr(made.measured, name))
    assert float(network.spread.std()) > 0.01


def test_networks_that_are_drawn_from_are_of_one_size(
    scene: Callable[[int], Scene], tmp_path: Path
) -> None:
    names = ("gan", "flow", "diffusion-linear")
    sizes = {METHODS[n](scene(1), tmp_path / n, None).weights for n in names}
    assert len(sizes) == 1


@pytest.mark.parametrize("name", ["gan", "flow", "diffusion-sigmoid", "vae-pca"])
def test_resumed_equals_uninterrupted(
    name: str, scene: Callable[[int], Scene], tmp_path: Path
) -> None:
    def run(steps: int, folder: str) -> Trained:
        made = scene(steps)
        made = replace(made, train=replace(made.train, schedule="constant"))
        return METHODS[name](made, tmp_path / folder, None)

    whole = run(4, "whole")
    run(2, "parts")
    parts = run(4, "parts")
    assert whole.steps == parts.steps == 4
    assert torch.equal(whole.draw(1), parts.draw(1))


def test_minutes_are_all_calls_together(scene: Callable[[int], Scene], tmp_path: Path) -> None:
    """A second call with no more minutes trains nothing; with more it goes on."""

    def run(minutes: float) -> Trained:
        made = scene(6)
        train = replace(made.train, schedule="constant", minutes=minutes)
        return METHODS["flow"](replace(made, train=train), tmp_path, None)

    first, same, more = run(1e-6), run(1e-6), run(60.0)
    assert first.steps == same.steps == 1
    assert first.minutes == same.minutes > 1e-6
    assert more.steps == 6
    assert more.minutes > first.minutes


def test_gaussian_of_a_sample_has_its_mean_and_covariance() -> None:
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(3, 2, 2, 1, 1, generator=generator)
    draws = torch.cat([drawn_of_sample(heads, seed) for seed in range(6000)]).flatten(1)
    flat = heads.flatten(1)
    assert torch.allclose(draws.mean(0), flat.mean(0), atol=0.06)
    assert torch.allclose(torch.cov(draws.T), torch.cov(flat.T, correction=0), atol=0.12)


def test_heads_that_were_kept_and_damaged(scene: Callable[[int], Scene], tmp_path: Path) -> None:
    collected_heads(scene(2), tmp_path, None)
    kept = tmp_path / "heads.safetensors"
    kept.write_bytes(kept.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="delete it to begin again"):
        collected_heads(scene(4), tmp_path, None)


def test_method_by_its_import_path(tmp_path: Path) -> None:
    found = method_of("unit.comparison.conftest:one_head")
    assert found.__name__ == "one_head"
    with pytest.raises(ConfigError, match="method 'vqgan' is unknown; choose from vae, vae-pca"):
        method_of("vqgan")
    folder = folder_of(tmp_path, "some.module:function")
    assert folder == tmp_path / "methods" / "some.module-function"
