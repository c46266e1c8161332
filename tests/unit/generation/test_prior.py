"""The prior's network, its file, and its training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from unit.generation.conftest import SETTINGS

from medddpm.config import load_config
from medddpm.errors import CheckpointError, ConfigError, OutputError
from medddpm.generation.options import PriorSpec
from medddpm.generation.prior import HeadPrior
from medddpm.generation.prior_file import find_prior, load_prior
from medddpm.workflows import train


def test_standardised_latents_count_by_what_they_do_to_the_image_and_come_back() -> None:
    prior = HeadPrior(PriorSpec(shape=(16, 16, 16), channels=(8, 8), embedding_width=16), 4, 4)
    z = 3 + 2 * torch.randn(6, 4, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    gain = torch.tensor([1.0, 0.5, 0.1, 0.1])
    prior.set_statistics(z, gain)
    u = prior.standardised(z)
    assert torch.allclose(u.mean(0), torch.zeros(4, 4, 4, 4), atol=1e-5)
    power = u.square().mean((0, 2, 3, 4))
    assert float(power.mean()) == pytest.approx(1, abs=1e-4)
    spread = (z - z.mean(0)).square().mean((0, 2, 3, 4))
    assert torch.allclose(power / power[0], gain**2 * spread / spread[0], rtol=1e-3)
    assert torch.allclose(prior.latent(u), z, atol=1e-5)


def test_denoiser_knows_where_it_is() -> None:
    """Two places of equal noise get two answers: the network is told the place."""
    torch.manual_seed(0)
    prior = HeadPrior(PriorSpec(shape=(32, 32, 32), channels=(8, 8), embedding_width=16), 4, 4)
    v = prior(torch.zeros(1, 4, 8, 8, 8), torch.ones(1)).detach()
    assert float((v[..., 2, 2, 2] - v[..., 5, 5, 5]).abs().max()) > 1e-4


def test_run_holds_what_it_should(prior_run: Path) -> None:
    trained = load_prior(prior_run / "prior.safetensors")
    card = trained.card
    assert card.scans == tuple(f"sub-0{n}_T1w" for n in (1, 2, 3, 4))
    assert card.held == ("sub-05_T1w", "sub-06_T1w")
    assert card.steps == 4
    assert trained.memory.shape[0] == 8  # each of the four, and its mirror image
    assert -1 < card.threshold < 1
    assert 0 <= card.recognised <= 1
    assert (prior_run / "prior" / "previews").is_dir()
    seen = json.loads((prior_run / "prior" / "run.json").read_text())["subjects"]
    assert seen == {f"sub-0{n}": [f"sub-0{n}_T1w"] for n in (1, 2, 3, 4)}  # for a withdrawal


def test_training_moves_the_network(prior_run: Path) -> None:
    trained = load_prior(prior_run / "prior.safetensors")
    torch.manual_seed(0)
    fresh = HeadPrior(trained.prior.spec, 4, 4).state_dict()
    now = trained.prior.state_dict()
    assert any(not torch.allclose(now[k], fresh[k], atol=1e-2) for k in fresh if "unet" in k)


def test_second_run_into_the_folder_needs_resume(heads_folder: Path, prior_run: Path) -> None:
    with pytest.raises(OutputError, match="--resume"):
        train("prior", data=heads_folder, out=prior_run, config=load_config(None, SETTINGS))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("prior.contrast=T2w", "names end in"),
        ("data.holdout=[]", "0 held out"),
        ("data.holdout=['*']", "0 scans to train on"),
    ],
)
def test_folder_that_cannot_be_learned(
    heads_folder: Path, tiny_weights: Path, tmp_path: Path, change: str, said: str
) -> None:
    config = load_config(None, [*SETTINGS, change])
    with pytest.raises(ConfigError, match=said):
        train("prior", data=heads_folder, out=tmp_path, config=config, start=tiny_weights)


def test_one_subject_on_both_sides_is_refused(
    heads_folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(heads_folder, data)
    shutil.copy(data / "sub-05_T1w.nii.gz", data / "sub-05_run-2_T1w.nii.gz")
    config = load_config(None, [*SETTINGS, "data.holdout=[sub-05_T1w]"])
    with pytest.raises(ConfigError, match="trained on and held out"):
        train("prior", data=data, out=tmp_path / "run", config=config, start=tiny_weights)


def test_files_that_hold_no_prior(prior_run: Path, tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no prior"):
        load_prior(tiny_weights)
    short = tmp_path / "short.safetensors"
    short.write_bytes((prior_run / "prior.safetensors").read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_prior(short)
    with pytest.raises(ConfigError, match="no prior is called"):
        find_prior("t9w")
