"""A training around an autoencoder of others, from its checkpoint to a restored scan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import foreign

from medddpm.importing.convert import Origin, import_weights
from medddpm.model.imported_file import load_imported
from medddpm.model.model import load_model

Cli = Callable[..., Any]


@pytest.fixture
def scans(tmp_path: Path, head: Any, save_nifti: Any) -> Path:
    """Three heads of different size; sub-03 is held out by tiny_cpu."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in (1, 2, 3):
        data = head((36 + 2 * number, 40, 38))
        save_nifti(folder / f"sub-0{number}_T1w.nii.gz", data, np.diag([1.0, 1.0, 1.1, 1.0]))
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small MAISI autoencoder and its diffusion network."""
    torch.manual_seed(20)
    folder = tmp_path_factory.mktemp("imported")
    settings = foreign.written(folder / "maisi.json", foreign.MAISI)
    for network in (foreign.maisi_vae(), foreign.maisi_unet()):
        torch.save({"unet_state_dict": network.state_dict()}, folder / "theirs.pt")
        import_weights(
            *(folder / "theirs.pt", "maisi", folder / "ours"),
            Origin(licence="CC-BY-4.0 (of a test)", source="a test"),
            settings=settings,
        )
    return folder / "ours"


def train(cli: Cli, stage: str, scans: Path, run: Path, *options: object) -> Any:
    return cli(
        *("train", stage, "--data", scans, "--config", "tiny_cpu", "--out", run),
        *("--set", "train.device=cpu", "--set", f"{stage}.steps=3", *options),
    )


def test_an_imported_autoencoder_is_the_codec_of_a_training(
    cli: Cli, imported: Path, scans: Path, noisy_nifti: Path, tmp_path: Path
) -> None:
    codec, run = imported / "autoencoder.safetensors", tmp_path / "run"
    for stage in ("diffusion", "fidelity"):
        done = train(cli, stage, scans, run, "--codec", codec)
        assert done.exit_code == 0, done.stderr
    weights = run / "model.safetensors"
    model = load_model(weights)
    _, network = load_imported(codec)
    kept = model.codec.vae.network.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(kept[name], value) for name, value in network.state_dict().items())
    assert model.spec.autoencoder.kind == "imported"
    assert (model.codec.factor, model.codec.latent_channels) == (4, 3)
    described = json.loads(cli("info", weights, "--json").stdout)["card"]
    assert described["codec"]["licence"] == "CC-BY-4.0 (of a test)"
    assert set(described["stages"]) == {"diffusion", "fidelity"}
    # its latents are standardised by the training scans
    assert not torch.equal(model.codec.latent_std, torch.ones(3))
    done = cli("restore", noisy_nifti, tmp_path / "out", "--weights", weights)
    assert done.exit_code in (0, 6), done.stderr
    # another kind of autoencoder does not go on with this run
    done = train(cli, "fidelity", scans, run, "--resume")
    assert done.exit_code == 2
    assert "other options" in done.stderr


def test_an_imported_autoencoder_can_be_trained_further(
    cli: Cli, imported: Path, scans: Path, tmp_path: Path
) -> None:
    codec, run = imported / "autoencoder.safetensors", tmp_path / "run"
    done = train(cli, "autoencoder", scans, run, "--codec", codec)
    assert done.exit_code == 0, done.stderr
    model = load_model(run / "model.safetensors")
    _, network = load_imported(codec)
    kept = model.codec.vae.network.state_dict()  # type: ignore[union-attr]
    far = [(kept[k] - v).abs().max() for k, v in network.state_dict().items()]
    assert 0 < max(far) < 0.05  # three steps away from theirs
    assert model.card["codec"]["source"] == "a test"


def test_codecs_that_are_none(cli: Cli, imported: Path, scans: Path, tmp_path: Path) -> None:
    for codec, code, said in (
        (imported / "diffusion.safetensors", 2, "diffusion network"),
        (imported / "nothing.safetensors", 3, "does not exist"),
    ):
        done = train(cli, "diffusion", scans, tmp_path / "run", "--codec", codec)
        assert (done.exit_code, said in done.stderr) == (code, True), done.stderr
        assert not (tmp_path / "run" / "model.safetensors").exists()
    done = train(cli, "diffusion", scans, tmp_path / "run", "--set", "autoencoder.kind=imported")
    assert done.exit_code == 2
    assert "--codec" in done.stderr
    done = cli(
        "restore", scans, tmp_path / "out", "--weights", imported / "autoencoder.safetensors"
    )
    assert done.exit_code == 3
    assert "--codec" in done.stderr


def test_info_says_whose_an_imported_network_is(cli: Cli, imported: Path) -> None:
    for part, size in (("autoencoder", "latent"), ("diffusion", "diffusion")):
        path = imported / f"{part}.safetensors"
        found = json.loads(cli("info", path, "--json").stdout)
        assert found["card"]["licence"] == "CC-BY-4.0 (of a test)"
        assert found["network"] == part
        text = cli("info", path).stdout
        assert "CC-BY-4.0 (of a test)" in text
        assert size in text
