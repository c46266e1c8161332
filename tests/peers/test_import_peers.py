"""Networks of the packages that others save, imported: MONAI GenerativeModels and MedVAE.

MedVAE's package brings torchvision, so it is installed without what it needs (`--no-deps`) where
this test is to run, and only the files of its network are loaded.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from support import foreign

from medddpm.importing.convert import Origin, import_weights
from medddpm.model.imported_file import load_imported

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SAID = Origin(licence="MIT", source="made for a test")
IMAGE = torch.linspace(0, 1, 16 * 16 * 8).view(1, 1, 16, 16, 8).sin()


def test_networks_of_generative_models(tmp_path: Path) -> None:
    nets = pytest.importorskip("generative.networks.nets")
    vae = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 1,
        "num_res_blocks": (1, 2),
        "num_channels": (8, 16),
        "attention_levels": (False, True),
        "latent_channels": 3,
        "norm_num_groups": 8,
    }
    unet = {
        "spatial_dims": 3,
        "in_channels": 3,
        "out_channels": 3,
        "num_res_blocks": 1,
        "num_channels": (8, 16),
        "attention_levels": (False, True),
        "norm_num_groups": 8,
        "num_head_channels": 8,
    }
    crossed = unet | {"with_conditioning": True, "cross_attention_dim": 5}
    theirs = foreign.randomised(nets.AutoencoderKL(**vae))
    ours: Any = _imported(theirs, "generative", vae, tmp_path / "vae")
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(IMAGE), theirs.encode(IMAGE))  # type: ignore[operator]
        torch.testing.assert_close(ours.reconstruct(IMAGE), theirs.reconstruct(IMAGE))  # type: ignore[operator]
    z, t = torch.randn(1, 3, 8, 8, 4), torch.tensor([5.0])
    for name, known, more in (("plain", unet, {}), ("crossed", crossed, _context())):
        network = foreign.randomised(nets.DiffusionModelUNet(**known))
        ours = _imported(network, "generative", known, tmp_path / name)
        with torch.no_grad():
            expected = network(z, t, **more)
            torch.testing.assert_close(ours(z, t, **more), expected, atol=1e-5, rtol=1e-4)


def test_the_network_of_medvae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = foreign.randomised(_medvae_network(monkeypatch))
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "vae.ckpt")
    settings = foreign.written(tmp_path / "medvae.yaml", foreign.MEDVAE)
    path = import_weights(tmp_path / "vae.ckpt", "medvae", tmp_path, SAID, settings=settings)
    _, ours = load_imported(path)
    with torch.no_grad():
        posterior = theirs.encode(IMAGE)  # type: ignore[operator]
        mean, std = ours.encode(IMAGE)  # type: ignore[operator]
        torch.testing.assert_close((mean, std), (posterior.mean, posterior.std))
        torch.testing.assert_close(ours.decode(mean), theirs.decode(mean))  # type: ignore[operator]
        # the reference of the unit tests is theirs, too
        written = foreign.MedVae(theirs.state_dict())
        torch.testing.assert_close(written.decode(mean), theirs.decode(mean))  # type: ignore[operator]


def _context() -> dict[str, torch.Tensor]:
    return {"context": torch.randn(1, 1, 5)}


def _imported(network: torch.nn.Module, kind: Any, known: dict[str, Any], out: Path) -> Any:
    out.mkdir()
    torch.save(network.state_dict(), out / "final.pth")
    settings = foreign.written(out / "settings.json", known)
    return load_imported(import_weights(out / "final.pth", kind, out, SAID, settings=settings))[1]


def _medvae_network(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """Their class, without the imports of their package's first file."""
    found = importlib.util.find_spec("medvae")
    if found is None or not found.submodule_search_locations:
        pytest.skip("medvae is not installed")
    package = types.ModuleType("medvae")
    package.__path__ = list(found.submodule_search_locations)
    models = types.ModuleType("medvae.models")
    models.__path__ = [f"{package.__path__[0]}/models"]
    monkeypatch.setitem(sys.modules, "medvae", package)
    monkeypatch.setitem(sys.modules, "medvae.models", models)
    from medvae.models.autoencoder_kl_3d import AutoencoderKL  # type: ignore[import-not-found]

    return AutoencoderKL(foreign.MEDVAE["ddconfig"], foreign.MEDVAE["embed_dim"])
