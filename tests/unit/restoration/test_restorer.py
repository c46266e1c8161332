from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medddpm.errors import (
    ConfigError,
    MemoryBudgetError,
    OptionWarning,
    SamplingDivergedError,
    VolumeReadError,
)
from medddpm.preprocess.tiles import plan_tiles
from medddpm.restoration import memory
from medddpm.restoration.memory import tile_batch
from medddpm.restoration.options import _ONLY_IN
from medddpm.restoration.restorer import RestoreOptions, Restorer
from medddpm.volume import Geometry, Volume

SMALL = {"tile": 32, "overlap": 16}
FEW: dict[str, dict[str, Any]] = {
    "mean": {"mode": "mean"},
    "sample": {"mode": "sample", "steps": 2},
    "ensemble": {"mode": "ensemble", "steps": 2, "samples": 2},
}


@pytest.fixture(scope="module")
def restorer(tiny_weights: Path) -> Restorer:
    return Restorer.from_pretrained(tiny_weights, device="cpu")


@pytest.mark.parametrize("mode", ["mean", "sample", "ensemble"])
def test_the_result_lies_where_the_scan_lies(
    restorer: Restorer, noisy_phantom: Volume, mode: Any
) -> None:
    result = restorer.restore(noisy_phantom, **FEW[mode], **SMALL)
    np.testing.assert_array_equal(result.volume.affine, noisy_phantom.affine)
    assert result.volume.data.shape == noisy_phantom.data.shape
    assert np.isfinite(result.volume.data).all()
    assert (result.std is not None) == (mode == "ensemble")


@pytest.mark.parametrize("mode", ["mean", "ensemble"])
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_blank_frame_passes_through(
    restorer: Restorer, noisy_phantom: Volume, mode: Any, value: float
) -> None:
    options: dict[str, Any] = {**FEW[mode], **SMALL}
    blank = np.full_like(noisy_phantom.data, value)
    film = noisy_phantom.with_data(np.stack([blank, noisy_phantom.data, blank], -1))
    result = restorer.restore(film, **options)
    np.testing.assert_array_equal(result.volume.frame(0), blank)
    np.testing.assert_array_equal(result.volume.frame(2), blank)
    assert result.facts.blank_frames == [0, 2]
    assert result.facts.shown_frame == 1
    assert result.facts.frames[1].sigma.sigma > 0
    assert not result.facts.frames[1].blank
    if result.std is not None:
        assert result.std.frame(0).max() == 0
    with pytest.raises(VolumeReadError, match="is blank"):
        restorer.restore(noisy_phantom.with_data(np.stack([blank, blank + 1], -1)), **options)


@pytest.mark.parametrize("mode", ["mean", "sample"])
def test_the_bytes_do_not_depend_on_memory_nor_the_result_on_batch(
    restorer: Restorer, noisy_phantom: Volume, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU takes one tile at a time, whatever its memory; eight at once may round differently."""
    options: dict[str, Any] = {**FEW[mode], **SMALL}

    def restored(gb: float | None) -> np.ndarray[Any, Any]:
        return restorer.restore(noisy_phantom, memory_gb=gb, **options).volume.data

    alone = restored(None)
    assert restored(1.5).tobytes() == alone.tobytes()
    monkeypatch.setitem(memory._MOST_TILES, "cpu", 8)
    for gb in (1.5, 3.0, 8.0):
        np.testing.assert_allclose(restored(gb), alone, rtol=0, atol=1e-4 * float(alone.max()))


def test_a_width_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="give_back"):
        RestoreOptions(give_back=-1.0)


def test_the_budget_changes_the_batch_of_a_gpu_and_a_cpu_takes_one(restorer: Restorer) -> None:
    plan = plan_tiles((96, 96, 96), 32, 16, 16)
    budgets = (0.955, 8.0)
    model = restorer.model
    assert len({tile_batch(plan, gb, torch.device("cuda"), model) for gb in budgets}) == 2
    assert {tile_batch(plan, gb, torch.device("cpu"), model) for gb in budgets} == {1}


def test_seed_and_case_name_the_noise(restorer: Restorer, noisy_phantom: Volume) -> None:
    def sample(seed: int, volume: Volume) -> np.ndarray[Any, Any]:
        return restorer.restore(volume, mode="sample", steps=2, seed=seed, **SMALL).volume.data

    first = sample(0, noisy_phantom)
    np.testing.assert_array_equal(first, sample(0, noisy_phantom))
    assert not np.array_equal(first, sample(1, noisy_phantom))
    other = Volume(noisy_phantom.data, noisy_phantom.geometry, case_id="someone else")
    assert not np.array_equal(first, sample(0, other))


def test_as_sigma_goes_to_zero_the_scan_stays(restorer: Restorer, phantom: Volume) -> None:
    result = restorer.restore(phantom, sigma=1e-3, **SMALL)
    assert np.abs(result.volume.data - phantom.data).max() < 0.05
    assert result.facts.frames[0].sigma.method == "given"


def test_fidelity_moves_between_latent_and_scan(restorer: Restorer, noisy_phantom: Volume) -> None:
    linear = SMALL | {"noise": "gaussian", "give_back": 0.0, "shifts": 1}
    low, half, full = (
        restorer.restore(noisy_phantom, fidelity=f, **linear).volume.data for f in (0.0, 0.5, 1.0)
    )
    assert np.abs(low - full).max() > 1
    np.testing.assert_allclose(half, (low + full) / 2, rtol=1e-3, atol=1.0)


def test_each_frame_of_a_series_is_restored_as_if_alone(
    restorer: Restorer, noisy_phantom: Volume
) -> None:
    data = np.stack([noisy_phantom.data, 2 * noisy_phantom.data], axis=-1)
    series = Volume(data, noisy_phantom.geometry, case_id=noisy_phantom.case_id)
    result = restorer.restore(series, **SMALL)
    alone = restorer.restore(noisy_phantom, **SMALL)
    assert result.volume.data.shape == data.shape
    np.testing.assert_array_equal(result.volume.data[..., 0], alone.volume.data)
    assert len(result.facts.frames) == 2


@pytest.mark.parametrize("shape", [(20, 21, 5), (33, 17, 49), (7, 40, 40)])
def test_any_size_works(restorer: Restorer, shape: tuple[int, int, int], head: Any) -> None:
    rng = np.random.default_rng(0)
    data = np.hypot(head(shape) + rng.normal(0, 40, shape), rng.normal(0, 40, shape))
    volume = Volume(data, Geometry(shape, np.diag([1.0, 1, 5, 1])))
    assert restorer.restore(volume, sigma=40.0, **SMALL).volume.data.shape == shape


def test_a_masked_background_stays_zero(restorer: Restorer, noisy_phantom: Volume) -> None:
    masked = noisy_phantom.with_data(np.where(noisy_phantom.data > 200, noisy_phantom.data, 0))
    result = restorer.restore(masked, **SMALL)
    assert (result.volume.data[masked.data == 0] == 0).all()


def test_the_result_scales_with_the_scan(restorer: Restorer, noisy_phantom: Volume) -> None:
    once = restorer.restore(noisy_phantom, **SMALL).volume.data
    scaled = noisy_phantom.with_data(noisy_phantom.data * 4)
    np.testing.assert_allclose(
        restorer.restore(scaled, **SMALL).volume.data, 4 * once, rtol=2e-2, atol=20
    )


def test_the_ensemble_has_an_ordered_interval(restorer: Restorer, noisy_phantom: Volume) -> None:
    result = restorer.restore(noisy_phantom, mode="ensemble", samples=3, steps=2, **SMALL)
    assert result.std is not None
    assert result.lower is not None
    assert result.upper is not None
    assert (result.lower.data <= result.volume.data + 1e-3).all()
    assert (result.volume.data <= result.upper.data + 1e-3).all()
    assert result.std.data.max() > 0


def test_texture_widens_the_ensemble_and_leaves_its_mean(
    restorer: Restorer, noisy_phantom: Volume
) -> None:
    smooth, whole = (
        restorer.restore(
            noisy_phantom, mode="ensemble", samples=2, steps=2, texture=texture, **SMALL
        )
        for texture in (0.0, 1.0)
    )
    assert smooth.std is not None
    assert whole.std is not None
    body = noisy_phantom.data > 200
    spread = float(whole.std.data[body].mean())
    assert spread > 1.2 * float(smooth.std.data[body].mean())
    moved = np.abs(whole.volume.data - smooth.volume.data)[body].mean()
    assert moved < 0.1 * spread


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_scale": 0.5},
        {"cfg_weight": 2.0},
        {"sampler": "heun"},
        {"sampler": "ddpm"},
        {"start": 6.0},
        {"texture": 0.5},
    ],
)
def test_each_knob_turns_something(
    restorer: Restorer, noisy_phantom: Volume, changes: dict[str, Any]
) -> None:
    plain = restorer.restore(noisy_phantom, mode="sample", steps=2, **SMALL).volume.data
    turned = restorer.restore(noisy_phantom, mode="sample", steps=2, **SMALL, **changes)
    assert np.isfinite(turned.volume.data).all()
    assert not np.array_equal(plain, turned.volume.data)


def test_shifts_are_averaged_in_their_place(restorer: Restorer, noisy_phantom: Volume) -> None:
    one, two, four = (
        restorer.restore(noisy_phantom, shifts=n, **SMALL).volume.data for n in (1, 2, 4)
    )
    clean = noisy_phantom.data  # a shift by a voxel would lose far more than averaging changes
    away = float(np.abs(clean[1:] - clean[:-1]).mean())
    for other in (two, four):
        assert not np.array_equal(one, other)
        assert float(np.abs(one - other).mean()) < 0.3 * away


def test_progress_ends_at_its_total(restorer: Restorer, noisy_phantom: Volume) -> None:
    seen: list[tuple[int, int]] = []
    restorer.restore(noisy_phantom, on_progress=lambda i, n: seen.append((i, n)), **SMALL)
    assert seen[-1][0] == seen[-1][1] == len(seen)


def test_a_budget_too_small_says_what_is_needed(restorer: Restorer, noisy_phantom: Volume) -> None:
    with pytest.raises(MemoryBudgetError, match=r"needs \d+\.\d GB"):
        restorer.restore(noisy_phantom, memory_gb=0.2)


@pytest.mark.parametrize(
    "changes",
    [{"sigma": -1.0}, {"mode": "best"}, {"fidelity": 2.0}, {"tile": 40}, {"nonsense": 1}],
)
def test_a_wrong_option_is_refused(
    restorer: Restorer, noisy_phantom: Volume, changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        restorer.restore(noisy_phantom, **changes)


def test_nan_weights_are_noticed(tiny_weights: Path, noisy_phantom: Volume) -> None:
    broken = Restorer.from_pretrained(tiny_weights, device="cpu")
    with torch.no_grad():
        broken.model.fidelity.pixels_scale.fill_(float("nan"))
    with pytest.raises(SamplingDivergedError):
        broken.restore(noisy_phantom, **SMALL)


def test_options_are_reported(restorer: Restorer, noisy_phantom: Volume) -> None:
    facts = restorer.restore(noisy_phantom, options=RestoreOptions(seed=5), **SMALL).facts
    assert facts.options["seed"] == 5
    assert facts.weights.sha256 == restorer.model.digest
    assert len(facts.weights.sha256) == 64
    assert facts.frames[0].vae_ceiling_db < 60


def test_uneven_noise_is_seen_and_used(
    restorer: Restorer, head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times the noise in one half: the sidecar says so, and the result differs."""
    x = head((64, 48, 48))
    sigma = np.where(np.arange(64) < 32, 30.0, 90.0)[:, None, None]
    real, imaginary = np.random.default_rng(0).normal(0, 1, (2, *x.shape)) * sigma
    y = np.hypot(x + real, imaginary).astype(np.float32)
    scan = Volume(y, Geometry(y.shape, np.eye(4)), case_id="uneven")
    few = SMALL | {"overlap": 8, "shifts": 1}
    mapped, even = (restorer.restore(scan, noise_map=m, **few) for m in ("auto", "off"))
    found = mapped.facts.frames[0].sigma_map
    assert found is not None
    assert found.p95 > 1.8 * found.p5
    assert even.facts.frames[0].sigma_map is None
    assert not np.array_equal(mapped.volume.data, even.volume.data)
    given = restorer.restore(scan, sigma=60.0, **few)
    assert given.facts.frames[0].sigma_map is None
    monkeypatch.setitem(memory._MOST_TILES, "cpu", 8)
    # Each tile takes its own part of the map. A convolution of eight tiles may round differently.
    together = restorer.restore(scan, memory_gb=3.0, **few).volume.data
    np.testing.assert_allclose(together, mapped.volume.data, rtol=0, atol=1e-3 * 30)


OTHERS = {
    "samples": 3,
    "steps": 3,
    "sampler": "heun",
    "start": 6.0,
    "texture": 0.5,
    "shifts": 1,
    "give_back": 0.0,
}


@pytest.mark.parametrize("mode", ["mean", "sample", "ensemble"])
def test_an_option_works_in_its_modes_and_is_said_to_do_nothing_in_others(
    restorer: Restorer, head: Any, mode: Any
) -> None:
    noisy = head((32, 32, 32)) + np.random.default_rng(0).normal(0, 50, (32, 32, 32))
    scan = Volume(np.abs(noisy).astype(np.float32), Geometry((32, 32, 32), np.eye(4)))
    assert set(OTHERS) == set(_ONLY_IN)
    plain = restorer.restore(scan, **FEW[mode], **SMALL).volume.data
    for name, value in OTHERS.items():
        options = {**FEW[mode], **SMALL, name: value}
        if mode in _ONLY_IN[name]:
            assert not np.array_equal(restorer.restore(scan, **options).volume.data, plain), name
            continue
        with pytest.warns(OptionWarning, match=f"restore.{name} does nothing in mode {mode}"):
            turned = restorer.restore(scan, **options).volume.data
        np.testing.assert_array_equal(turned, plain, err_msg=name)


def test_options_that_do_nothing_beside_others(restorer: Restorer, noisy_phantom: Volume) -> None:
    assert not RestoreOptions().idle()
    assert RestoreOptions(noise="ncchi", coils=4).idle() == {}
    assert list(RestoreOptions(coils=4).idle()) == ["coils"]
    assert list(RestoreOptions(sigma=3.0, noise_map="off").idle()) == ["noise_map"]
    assert list(RestoreOptions(mode="sample", fidelity=0.0, texture=0.5).idle()) == ["texture"]
    assert RestoreOptions().idle(["sampler", "tile"]) == {
        "sampler": "restore.sampler does nothing in mode mean; it belongs to sample and ensemble"
    }
    for given in ({"coils": 4}, {"sigma": 40.0, "noise_map": "off"}):
        plain = restorer.restore(noisy_phantom, **SMALL, **{"sigma": given.get("sigma")})
        with pytest.warns(OptionWarning, match="does nothing"):
            turned = restorer.restore(noisy_phantom, **SMALL, **given)
        np.testing.assert_array_equal(turned.volume.data, plain.volume.data)
