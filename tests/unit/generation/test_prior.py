"""The prior's network, its file, and its training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from unit.generation.conftest import SETTINGS, ellipsoid

from medddpm.config import load_config
from medddpm.data.manifest import ScanRow, Split, write_manifest
from medddpm.diffusion.samplers import dpm_solver_pp_2m
from medddpm.diffusion.schedule import CLEAN, NoiseLevel
from medddpm.errors import CheckpointError, ConfigError, OutputError
from medddpm.generation.cascade import Cascade
from medddpm.generation.heads import head_of, placed
from medddpm.generation.options import PriorSpec
from medddpm.generation.prior import (
    SCHEDULE,
    HeadPrior,
    Sharpening,
    blurred,
    cut,
    halved,
)
from medddpm.generation.prior_file import find_prior, load_prior
from medddpm.volume import Geometry, Volume
from medddpm.workflows import train

TINY = PriorSpec(shape=(32, 32, 32), channels=(8, 8), coarse_channels=(8, 8), embedding_width=16)


def test_standardised_heads_are_of_variance_1_and_come_back() -> None:
    prior = HeadPrior(TINY)
    x = torch.rand(6, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1)) + 1
    prior.set_statistics(x, x)
    u = prior.standardised(x)
    assert torch.allclose(u.mean(0), torch.zeros(8, 16, 16, 16), atol=1e-4)
    assert float(u.square().mean()) == pytest.approx(1, abs=1e-4)
    assert torch.allclose(prior.image(u), x, atol=1e-5)


def test_white_noise_on_a_head_is_white_noise_on_what_is_drawn() -> None:
    prior = HeadPrior(TINY)
    n = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    u = prior.standardised(n)
    assert torch.allclose(u.square().mean((0, 2, 3, 4)), torch.ones(8), atol=0.1)
    assert float(u.square().sum()) == pytest.approx(float(n.square().sum()), rel=1e-4)


def test_fine_structure_is_drawn_onto_the_coarse_head() -> None:
    torch.manual_seed(0)
    prior = Cascade(TINY)
    x = torch.rand(4, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1)) + 1
    prior.coarse.set_statistics(halved(x), halved(x))
    prior.fine.set_statistics(x, x)
    coarse = halved(x)
    u = prior.fine.standardised(x, coarse)
    assert u.shape == (4, 7, 16, 16, 16)
    assert torch.allclose(prior.fine.image(u, coarse), x, atol=1e-5)
    assert torch.allclose(halved(prior.fine.image(torch.randn_like(u) / 100, coarse)), coarse)
    assert torch.allclose(prior.mean_image(), x.mean(0), atol=1e-5)


def test_finer_grid_is_drawn_onto_a_sharpened_copy() -> None:
    """A filter that is fitted to the heads takes most of the blur away; the rest is drawn."""
    torch.manual_seed(0)
    prior, generator = Sharpening(TINY), torch.Generator().manual_seed(1)
    x = torch.nn.functional.avg_pool3d(
        torch.rand(4, 1, 36, 36, 36, generator=generator), 5, stride=1
    )
    x = 10 * (x - x.mean()) + 3
    coarse = prior.with_noise(blurred(x), torch.randn(4, 1, 16, 16, 16, generator=generator))
    noise = coarse[:, :1] / 2 - blurred(x)
    assert float(noise.std()) == pytest.approx(prior.level, rel=0.05)
    prior.set_statistics(x, x, (coarse, coarse))
    u = prior.standardised(x, coarse)
    assert u.shape == (4, 8, 16, 16, 16)
    assert torch.allclose(prior.image(u, coarse), x, atol=1e-5)
    interpolated = torch.nn.functional.interpolate(blurred(x), scale_factor=2, mode="trilinear")
    sharpened = prior.image(torch.zeros_like(u), coarse)
    left = [
        float((y - x)[..., 4:-4, 4:-4, 4:-4].square().mean()) for y in (sharpened, interpolated)
    ]
    assert left[0] < 0.7 * left[1]


def test_blurred_heads_are_those_of_the_coarser_grid() -> None:
    """What the finer grid is told in training is what the scale before draws."""
    texture = ndimage.gaussian_filter(np.random.default_rng(1).normal(0, 1, (72, 88, 72)), 1.5)
    data = (np.kron(ellipsoid(1), np.ones((2, 2, 2))) * np.exp(3 * texture)).astype(np.float32)
    volume = Volume(data, Geometry(data.shape, np.eye(4)), case_id="a")
    x = placed(head_of(volume, 2.0), PriorSpec(shape=(40, 48, 40), spacing=2.0))
    wanted = placed(head_of(volume, 4.0), PriorSpec(shape=(20, 24, 20), spacing=4.0))
    off = [float((y - wanted).square().mean().sqrt()) for y in (blurred(x), halved(x))]
    assert off[0] < 0.01
    assert off[0] < 0.6 * off[1]


def test_a_window_is_answered_like_the_whole_head() -> None:
    """Away from its edges, where the network sees what it sees in the whole head."""
    torch.manual_seed(0)
    prior = HeadPrior(replace(TINY, channels=(8,)))
    generator = torch.Generator().manual_seed(1)
    prior.spread.copy_(torch.rand(prior.spread.shape, generator=generator) + 0.5)
    u, angle = torch.randn(1, 8, 16, 16, 16, generator=generator), torch.ones(1)
    window = slice(2, 14), slice(2, 14), slice(4, 16)
    with torch.no_grad():
        whole, part = prior(u, angle), prior(cut(u, window), angle, window=window)
    inner = (..., slice(5, -5), slice(5, -5), slice(5, -5))
    assert torch.allclose(cut(whole, window)[inner], part[inner], atol=1e-5)
    total = prior.spread * angle.cos() ** 2 + angle.sin() ** 2
    expected = cut(prior.spread / total, window).mean()
    assert float(prior.left_open(angle, window)) == pytest.approx(float(expected))


def test_the_same_seed_draws_the_same_head() -> None:
    torch.manual_seed(0)
    prior = Cascade(replace(TINY, finer=True)).eval()
    with torch.no_grad():
        one, again, other = (prior.draw(seed, 2) for seed in (3, 3, 4))
        like = prior.draw(5, 2, like=one, level=SCHEDULE.nearest(0.01))
        fine = prior.draw(3, 2, spec=prior.finest)
        same = prior.draw(5, 2, spec=prior.finest, like=fine, level=CLEAN)
    assert one.shape == (1, 1, 32, 32, 32)
    assert fine.shape == (1, 1, 64, 64, 64)
    assert torch.allclose(same, fine, atol=1e-5)
    assert torch.equal(one, again)
    assert float((one - other).abs().mean()) > 0.01
    assert float((like - one).abs().mean()) < 0.01


def test_denoiser_knows_where_it_is() -> None:
    """Two places of equal noise get two answers: the network is told the place."""
    torch.manual_seed(0)
    prior = HeadPrior(TINY)
    v = prior(torch.zeros(1, 8, 16, 16, 16), torch.ones(1)).detach()
    assert float((v[..., 2, 2, 2] - v[..., 5, 5, 5]).abs().max()) > 1e-4


def test_run_holds_what_it_should(prior_run: Path) -> None:
    trained = load_prior(prior_run / "prior.safetensors")
    card = trained.card
    assert card.scans == tuple(f"sub-0{n}_T1w" for n in (1, 2, 3, 4))
    assert card.held == ("sub-05_T1w", "sub-06_T1w")
    assert card.steps == {"prior": 4, "detail": 2, "finer": 2}
    assert set(card.explained) == {"prior", "detail", "finer"}
    assert 0 < card.hours < 0.1
    assert trained.memory.rows.shape[0] == 8  # each of the four, and its mirror image
    assert -1 < card.threshold < 1
    assert 0 <= card.recognised <= 1
    assert (prior_run / "prior" / "previews").is_dir()
    for scale in ("prior", "detail", "finer"):
        seen = json.loads((prior_run / scale / "run.json").read_text())["subjects"]
        assert seen == {f"sub-0{n}": [f"sub-0{n}_T1w"] for n in (1, 2, 3, 4)}  # for a withdrawal


def test_training_moves_the_network(prior_run: Path) -> None:
    trained = load_prior(prior_run / "prior.safetensors")
    torch.manual_seed(0)
    fresh = Cascade(trained.prior.spec).state_dict()
    now = trained.prior.state_dict()
    for scale in ("coarse.unet", "fine.unet", "finer.unet"):
        names = [k for k in fresh if scale in k]
        assert any(not torch.allclose(now[k], fresh[k], atol=1e-2) for k in names)


def test_second_run_into_the_folder_needs_resume(heads_folder: Path, prior_run: Path) -> None:
    with pytest.raises(OutputError, match="--resume"):
        train("prior", data=heads_folder, out=prior_run, config=load_config(None, SETTINGS))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("prior.contrast=T2w", "there are"),
        ("data.holdout=[]", "0 held out"),
        ("data.holdout=['*']", "0 scans to train on"),
    ],
)
def test_folder_that_cannot_be_learned(
    heads_folder: Path, tmp_path: Path, change: str, said: str
) -> None:
    config = load_config(None, [*SETTINGS, change])
    with pytest.raises(ConfigError, match=said):
        train("prior", data=heads_folder, out=tmp_path, config=config)


def test_consent_and_split_of_a_manifest_decide(heads_folder: Path, tmp_path: Path) -> None:
    """Who said no to synthetic scans is not learned; the test scans are left alone."""
    data = tmp_path / "data"
    shutil.copytree(heads_folder, data)
    told: dict[int, tuple[str, Split]] = {n: ("yes", "train") for n in (1, 3, 4)}
    told |= {2: ("no", "train"), 5: ("yes", "test"), 6: ("yes", "val")}
    rows = [
        ScanRow(
            *(f"sub-0{number}_T1w", f"pseudonym-{number}"),
            contrast="T1w",
            file=f"sub-0{number}_T1w.nii.gz",
            consent="yes",
            synthetic=synthetic,
            split=split,
        )
        for number, (synthetic, split) in told.items()
    ]
    write_manifest(data / "manifest.csv", rows)
    config = load_config(None, [*SETTINGS, "data.holdout=[]"])
    out = tmp_path / "run"
    train("prior", data=data, out=out, config=config)
    card = load_prior(out / "prior.safetensors").card
    assert card.scans == ("sub-01_T1w", "sub-03_T1w", "sub-04_T1w")
    assert card.held == ("sub-06_T1w",)
    assert card.consent == {"yes": 3}
    seen = json.loads((out / "prior" / "run.json").read_text())["subjects"]
    assert set(seen) == {"pseudonym-1", "pseudonym-3", "pseudonym-4"}


def test_a_prior_goes_on_from_another_one(
    heads_folder: Path, prior_run: Path, tmp_path: Path
) -> None:
    first = prior_run / "prior.safetensors"
    out = train(
        "prior", data=heads_folder, out=tmp_path, config=load_config(None, SETTINGS), start=first
    )
    assert load_prior(out).card.steps == {"prior": 8, "detail": 4, "finer": 4}
    assert load_prior(out).card.hours > load_prior(first).card.hours
    other = load_config(None, [*SETTINGS, "prior.channels=[8]"])
    with pytest.raises(ConfigError, match="has the network and grid"):
        train("prior", data=heads_folder, out=tmp_path / "a", config=other, start=first)
    fewer = load_config(None, [*SETTINGS, "data.holdout=[sub-04*,sub-05*,sub-06*]"])
    with pytest.raises(ConfigError, match="learned sub-04_T1w"):
        train("prior", data=heads_folder, out=tmp_path / "b", config=fewer, start=first)
    with pytest.raises(ConfigError, match=r"no prior is called 'T3w'; shipped: \['T1w'\]"):
        train("prior", data=heads_folder, out=tmp_path / "c", config=fewer, start="T3w")


def test_the_shipped_prior_draws_brains_that_are_no_copies() -> None:
    """Of the right size and place, dark in the air, each another one."""
    trained = load_prior(find_prior("T1w"))
    mean = trained.prior.mean_image()
    with torch.inference_mode():
        drawn = torch.cat([trained.prior.draw(seed, 8) for seed in (1, 2)])
    assert trained.card.contrast == "T1w"
    inside = mean > 0.3
    for image in drawn[:, None]:
        assert float(image[inside].mean() / mean[inside].mean()) == pytest.approx(1, abs=0.2)
        assert float(image[mean < 0.01].mean()) < 0.02
        assert float(torch.corrcoef(torch.stack([image.flatten(), mean.flatten()]))[0, 1]) > 0.85
    assert float((drawn[0] - drawn[1])[inside[0]].std()) > 0.08
    assert float(trained.memory.nearest(drawn, mean).max()) < trained.card.threshold


def test_one_subject_on_both_sides_is_refused(heads_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(heads_folder, data)
    shutil.copy(data / "sub-05_T1w.nii.gz", data / "sub-05_run-2_T1w.nii.gz")
    config = load_config(None, [*SETTINGS, "data.holdout=[sub-05_T1w]"])
    with pytest.raises(ConfigError, match="trained on and held out"):
        train("prior", data=data, out=tmp_path / "run", config=config)


def test_files_that_hold_no_prior(prior_run: Path, tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no prior"):
        load_prior(tiny_weights)
    short = tmp_path / "short.safetensors"
    short.write_bytes((prior_run / "prior.safetensors").read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_prior(short)
    with pytest.raises(CheckpointError, match="train prior` makes one"):
        load_prior(tmp_path / "nothing.safetensors")


def test_without_a_trained_network_the_prior_is_a_wiener_filter() -> None:
    """E[x0 | z] of independent Gaussians is alpha S / (alpha^2 S + sigma^2) z."""
    torch.manual_seed(0)
    prior = HeadPrior(TINY)
    generator = torch.Generator().manual_seed(1)
    spread = torch.rand(8, 1, 1, 1, generator=generator) * torch.ones(8, 16, 16, 16)
    prior.spread.copy_(spread)
    torch.nn.init.zeros_(prior.unet.unet.scale)
    z = torch.randn(2, 8, 16, 16, 16, generator=generator)
    level = NoiseLevel(alpha=0.6, sigma=0.8)
    x0 = prior.denoiser(2)(z, level).detach()
    assert torch.allclose(x0, 0.6 * spread / (0.36 * spread + 0.64) * z, atol=1e-5)


def test_nothing_is_drawn_where_all_heads_are_alike() -> None:
    torch.manual_seed(0)
    prior = HeadPrior(TINY)
    x = torch.randn(6, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    x[..., :12] = 0
    prior.set_statistics(x, x)
    z = torch.randn(1, 8, 16, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        drawn = dpm_solver_pp_2m(prior.denoiser(1), z, SCHEDULE.steps(8))
    assert float(drawn[..., :4].abs().max()) < 0.1
    assert float(drawn[..., 8:].std()) > 0.3
