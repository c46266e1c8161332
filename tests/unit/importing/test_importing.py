"""Checkpoints of others, in each layout that they have: same outputs, and no doubtful file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import foreign
from torch import Tensor, nn

from medddpm.errors import CheckpointError, ConfigError, OutputError
from medddpm.importing.convert import Origin, import_weights
from medddpm.importing.names import as_trained, fitted, from_generative, from_medvae, set_aside
from medddpm.importing.reading import Checkpoint, read_foreign
from medddpm.importing.settings import published, read_settings, unet_spec, vae_spec
from medddpm.importing.unpickle import RefusedError, leave_network, read_checkpoint
from medddpm.model.imported_file import build_imported, load_imported, read_imported
from medddpm.model.imported_vae import ImportedVae

Cli = Callable[..., Any]
SAID = Origin(licence="CC-BY-4.0", source="made for a test")
WIDE = torch.linspace(0, 1, 8 * 64 * 8).view(1, 1, 8, 64, 8).sin()  # theirs cuts it in two
IMAGE = torch.linspace(0, 1, 2 * 16 * 16 * 8).view(2, 1, 16, 16, 8).sin()


def checkpoint(tensors: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint(Path("theirs.pt"), tensors, {}, "", "none")


def old_name(name: str) -> str:
    """As MONAI GenerativeModels called what MONAI calls otherwise now."""
    name = name.replace(".postconv.", ".conv.")
    name = re.sub(r"(transformer_blocks.*)\.out_proj\.", r"\1.to_out.0.", name)
    return re.sub(r"\.attn\.(to_[qkv])\.", r".\1.", name)


def old_state(network: nn.Module) -> dict[str, Tensor]:
    """As GenerativeModels saves it: with a projection that it does not apply."""
    state = {old_name(k): v for k, v in network.state_dict().items()}
    unused = {k.replace(".to_q.", ".proj_attn."): v + 1 for k, v in state.items()}
    blocks = {k: v for k, v in unused.items() if "proj_attn" in k and "transformer" not in k}
    # its transformers, of conditioned networks, do apply theirs
    return state | blocks


def generative_vae(**more: Any) -> tuple[nn.Module, dict[str, Any]]:
    from monai.networks.nets.autoencoderkl import AutoencoderKL

    known = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 1,
        "num_res_blocks": [1, 1],
        "attention_levels": [False, True],
        "latent_channels": 2,
        "norm_num_groups": 4,
    }
    network = AutoencoderKL(**known, channels=[8, 16], **more)
    return foreign.randomised(network), known | {"num_channels": [8, 16]}


def generative_unet(**more: Any) -> tuple[nn.Module, dict[str, Any]]:
    from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

    known = {
        "spatial_dims": 3,
        "in_channels": 3,
        "out_channels": 3,
        "num_res_blocks": 1,
        "attention_levels": [False, True],
        "norm_num_groups": 4,
        "num_head_channels": 8,
    }
    network = DiffusionModelUNet(**known, channels=[8, 16], **more)
    return foreign.randomised(network), known | {"num_channels": [8, 16]} | more


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_maisi_autoencoder(cli: Cli, tmp_path: Path, wrapped: bool) -> None:
    theirs = foreign.maisi_vae()
    state: Any = theirs.state_dict()
    if wrapped:  # as of several devices, beside what the training knows
        state = {f"module.{k}": v for k, v in state.items()}
        state = {"epoch": 3, "unet_state_dict": state, "epoch_finished": True}
    torch.save(state, tmp_path / "autoencoder.pt")
    settings = foreign.written(tmp_path / "config.json", foreign.MAISI)
    words = [item for name, text in asdict(SAID).items() for item in (f"--{name}", text)]
    command = ("import", tmp_path / "autoencoder.pt", "--kind", "maisi", "--settings", settings)
    done = cli(*command, "--out", tmp_path / "out", *words)
    assert done.exit_code == 0, done.stderr
    imported, network = load_imported(tmp_path / "out" / "autoencoder.safetensors")
    with torch.no_grad():
        mean, std = network.encode(WIDE)  # type: ignore[operator]
        torch.testing.assert_close((mean, std), theirs.encode(WIDE))  # type: ignore[operator]
        torch.testing.assert_close(network.decode(mean), theirs.decode(mean))  # type: ignore[operator]
    assert (imported.card.licence, imported.card.source) == ("CC-BY-4.0", "made for a test")
    digest = hashlib.sha256((tmp_path / "autoencoder.pt").read_bytes()).hexdigest()
    assert imported.card.sha256 == digest
    assert re.match("none$|not taken away: .", imported.card.network_access)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["autoencoder.safetensors"]
    again = cli(*command, "--out", tmp_path / "out", *words)
    assert again.exit_code == 5
    assert "--overwrite" in again.stderr


def test_a_maisi_diffusion_network_in_float16_with_its_scale_factor(tmp_path: Path) -> None:
    theirs = foreign.maisi_unet().half()
    state = {
        "epoch": 7,
        "loss": 0.25,
        "num_train_timesteps": 1000,
        "scale_factor": torch.tensor(0.875),
        "unet_state_dict": theirs.state_dict(),
    }
    torch.save(state, tmp_path / "diff_unet.pt")
    settings = foreign.written(tmp_path / "config.json", foreign.MAISI)
    path = import_weights(
        tmp_path / "diff_unet.pt", "maisi", tmp_path / "out", SAID, settings=settings
    )
    imported, network = load_imported(path)
    assert path.name == "diffusion.safetensors"
    assert imported.card.scale_factor == 0.875
    assert imported.card.number_type == "float16"
    given = {
        "x": torch.randn(2, 3, 8, 8, 4),
        "timesteps": torch.tensor([3.0, 500.0]),
        "class_labels": torch.tensor([8, 9]),
        "spacing_tensor": torch.rand(2, 3),
    }
    with torch.no_grad():
        torch.testing.assert_close(network(**given), theirs.float()(**given))


@pytest.mark.parametrize("old", [True, False])
def test_an_autoencoder_of_generative_models(tmp_path: Path, old: bool) -> None:
    theirs, known = generative_vae(include_fc=not old)
    state = old_state(theirs) if old else theirs.state_dict()
    spec = as_trained(vae_spec("generative", known), state)
    held, aside = set_aside(spec, state)
    assert bool(aside) == old
    network = build_imported(spec)
    network.load_state_dict(from_generative(build_imported(spec), held, checkpoint(state)))
    with torch.no_grad():
        mean, _ = network.eval().encode(IMAGE)  # type: ignore[operator]
        torch.testing.assert_close(mean, theirs.encode(IMAGE)[0])  # type: ignore[operator]
        torch.testing.assert_close(network.decode(mean), theirs.decode(mean))  # type: ignore[operator]


@pytest.mark.parametrize("crossed", [True, False])
def test_a_diffusion_network_of_generative_models(tmp_path: Path, crossed: bool) -> None:
    conditioned = {"with_conditioning": True, "cross_attention_dim": 5}
    more: dict[str, Any] = conditioned if crossed else {"include_fc": False}
    theirs, known = generative_unet(**more)
    torch.save({"state_dict": old_state(theirs), "best_loss": 1.0}, tmp_path / "final.pth")
    settings = foreign.written(tmp_path / "ldm.json", known)
    out = import_weights(
        tmp_path / "final.pth", "generative", tmp_path / "out", SAID, settings=settings
    )
    _, network = load_imported(out)
    x, context = torch.randn(1, 3, 8, 8, 4), torch.randn(1, 1, 5) if crossed else None
    with torch.no_grad():
        expected = theirs(x, torch.tensor([7.0]), context=context)
        torch.testing.assert_close(network(x, torch.tensor([7.0]), context=context), expected)


def test_a_medvae_of_lightning(tmp_path: Path) -> None:
    weights = foreign.medvae_weights()
    content = {
        "epoch": 1,
        "global_step": 10,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": weights | {"loss.logvar": torch.zeros(())},
        "optimizer_states": [{"state": {0: {"step": 1}}}],
        "hyper_parameters": {"learning_rate": 1e-4},
    }
    torch.save(content, tmp_path / "vae.ckpt")
    settings = tmp_path / "medvae_2x1.yaml"
    lines = [f"  {name}: {json.dumps(value)}" for name, value in foreign.MEDVAE["ddconfig"].items()]
    settings.write_text("\n".join(["embed_dim: 1", "ddconfig:", *lines]))
    path = import_weights(
        tmp_path / "vae.ckpt", "medvae", tmp_path / "out", SAID, settings=settings
    )
    imported, network = load_imported(path)
    theirs = foreign.MedVae(weights)
    mean, std = network.encode(IMAGE)  # type: ignore[operator]
    torch.testing.assert_close((mean, std), theirs.encode(IMAGE), atol=1e-5, rtol=1e-4)
    expected = theirs.decode(mean)
    torch.testing.assert_close(network.decode(mean), expected, atol=1e-4, rtol=1e-4)  # type: ignore[operator]
    assert set(imported.card.left_out) == {
        *("channel_ds.0.weight", "channel_ds.0.bias", "channel_proj.weight", "channel_proj.bias"),
        "loss.logvar",
    }
    # the codec sees 0 to 1 and MedVAE -1 to 1
    codec = ImportedVae(imported.spec)  # type: ignore[arg-type]
    codec.network.load_state_dict(network.state_dict())
    with torch.no_grad():
        unit = codec.eval().encode(0.5 * (IMAGE + 1))[0]
        torch.testing.assert_close(unit, mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(codec.decode(unit), 0.5 * (expected + 1), atol=1e-4, rtol=1e-4)


def test_the_published_settings_of_maisi_are_the_default() -> None:
    vae = vae_spec("maisi", published("autoencoder", {}))
    with torch.device("meta"):
        state = build_imported(vae).state_dict()
    # a published listing of autoencoder_v2.pt: 130 tensors, 20,944,897 numbers
    assert (len(state), sum(v.numel() for v in state.values())) == (130, 20_944_897)
    assert (vae.factor, vae.latent_channels, vae.low, vae.high) == (4, 4, 0, 1)
    rflow = unet_spec("maisi", published("diffusion", {"class_embedding.weight": 0}))
    ddpm = unet_spec("maisi", published("diffusion", {"top_region_index_layer.0.weight": 0}))
    assert (rflow.num_class_embeds, rflow.include_top_region_index_input) == (128, False)
    assert (ddpm.num_class_embeds, ddpm.include_top_region_index_input) == (None, True)
    assert ddpm.channels == rflow.channels == (64, 128, 256, 512)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("encoder.blocks.0.conv.conv.bias"), r"missing: encoder\.blocks\.0\."),
        (lambda w: w.update(more=torch.ones(1)), "unknown to this network: more"),
        (
            lambda w: w.update({"quant_conv_mu.conv.bias": torch.ones(9)}),
            r"of another shape: quant_conv_mu\.conv\.bias is 9, not 3",
        ),
    ],
)
def test_a_mismatch_names_the_tensors(change: Callable[[Any], Any], said: str) -> None:
    weights = foreign.maisi_vae().state_dict()
    change(weights)
    network = build_imported(vae_spec("maisi", foreign.MAISI))
    with pytest.raises(CheckpointError, match=said) as caught:
        fitted(network, weights, checkpoint(weights))
    assert "--settings" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("encoder.blocks.0.conv.bias"), r"missing: encoder\.blocks\.0\."),
        (lambda w: w.pop(next(k for k in w if "to_q" in k)), r"missing: .*to_q"),
        (lambda w: w.update(more=torch.ones(1)), "unknown to this network: more"),
        (lambda w: w.update({"quant_conv_mu.conv.bias": torch.ones(9)}), "quant_conv_mu.conv.bias"),
    ],
)
def test_a_mismatch_names_the_tensors_behind_old_names(
    change: Callable[[Any], Any], said: str
) -> None:
    theirs, known = generative_vae(include_fc=False)
    state = old_state(theirs)
    change(state)
    spec = as_trained(vae_spec("generative", known), state)
    held, _ = set_aside(spec, state)
    with pytest.raises(CheckpointError, match=said):
        from_generative(build_imported(spec), held, checkpoint(state))


def test_a_mismatch_names_the_tensors_of_a_medvae() -> None:
    spec = vae_spec("medvae", foreign.MEDVAE)
    held, _ = set_aside(spec, foreign.medvae_weights())
    held["encoder.down.5.block.0.conv1.weight"] = torch.ones(1)
    del held["decoder.up.0.block.1.conv2.bias"]
    with pytest.raises(CheckpointError, match=r"blocks\.8\.conv2\.conv\.bias.*encoder\.down\.5"):
        fitted(build_imported(spec), from_medvae(spec, held), checkpoint(held))


class Evil:
    """Makes a file when it is unpickled by a reader that lets it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_pickle_with_code_is_refused_and_not_run(cli: Cli, tmp_path: Path) -> None:
    mark, path = tmp_path / "was-run", tmp_path / "evil.pt"
    torch.save({"state_dict": {"encoder.x": torch.ones(1), "y": Evil(f"touch {mark}")}}, path)
    done = cli(
        *("import", path, "--kind", "maisi", "--out", tmp_path / "out"),
        *("--licence", "none", "--source", "none"),
    )
    assert done.exit_code == 3
    assert "system" in done.stderr
    assert "Nothing of it was run" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.pt"]


def _whole_network(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path)


def _with_numpy(path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "best": np.ones(3)}, path)


def _cut_short(path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(10_000)}}, path)
    path.write_bytes(path.read_bytes()[:20_000])


def _cut_short_of_old(path: Path) -> None:
    torch.save({"a": torch.ones(10_000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:20_000])


def _no_weights(path: Path) -> None:
    torch.save({"weights": [torch.ones(1)], "epoch": 3}, path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_whole_network, "more than weights: it asks for torch.nn.modules.linear.Linear"),
        (_with_numpy, "more than weights: it asks for numpy"),
        (_cut_short, "cut short or damaged"),
        (_cut_short_of_old, "damaged"),
        (_no_weights, "it holds weights, epoch"),
        (
            lambda path: torch.save({"state_dict": {"a": 3}}, path),
            "no tensor under state_dict as a",
        ),
        (lambda path: torch.save([torch.ones(1)], path), "a list, not weights by name"),
        (lambda path: path.write_text("<html>not found</html>"), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(b"\x80\x02X" + b"\xff" * 50), "damaged"),
    ],
)
def test_a_file_that_is_no_checkpoint(
    make: Callable[[Path], Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.pt"
    make(path)
    with pytest.raises(RefusedError, match=said):
        read_checkpoint(str(path))


def test_a_damaged_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(RefusedError, match="cut short or damaged"):
        read_checkpoint(str(path))


def test_weights_that_are_no_numbers_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    save_file({"encoder.a": torch.tensor([1.0, torch.nan])}, tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointError, match=r"encoder\.a holds NaN"):
        read_foreign(tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_foreign(tmp_path / "nothing.pt")


def test_the_reader_leaves_the_network() -> None:
    """Where it says so, a listener on this very machine is out of reach."""
    listener = socket.create_server(("127.0.0.1", 0))
    program = (
        "import socket, sys\n"
        "from medddpm.importing.unpickle import leave_network\n"
        "print(leave_network())\n"
        f"socket.create_connection(('127.0.0.1', {listener.getsockname()[1]}), 5)\n"
        "print('reached')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    said = done.stdout.splitlines()
    listener.close()
    assert said[0] == "none" or said[0].startswith("not taken away: ")
    assert (said[1:] == ["reached"]) == (said[0] != "none"), done.stderr


def test_elsewhere_the_network_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert leave_network().startswith("not taken away")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"in_channels": 8}, "one image channel"),
        ({"spatial_dims": 2}, "spatial_dims"),
        ({"num_channels": [8, 16]}, "2 levels"),
        ({"num_channels": [8, 16, 9]}, "9 channels"),
        ({"num_channels": [8, 16, 16], "colour": 3}, "colour"),
        ({"latent_channels": "$1 + 2"}, "not evaluated"),
        ({"latent_channels": "@nothing"}, "not evaluated"),
        ({"num_channels": [8] * 9}, "channels"),
    ],
)
def test_settings_that_describe_no_codec(change: dict[str, Any], said: str) -> None:
    settings = foreign.MAISI | {"autoencoder_def": foreign.MAISI_VAE | change}
    with pytest.raises(ConfigError, match=re.escape(said)):
        vae_spec("maisi", settings)


def test_other_settings_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ddconfig"):
        vae_spec("medvae", {"embed_dim": 1})
    with pytest.raises(ConfigError, match="no diffusion network"):
        unet_spec("medvae", {})
    with pytest.raises(ConfigError, match="do not say"):
        unet_spec("generative", {"spatial_dims": 3})
    with pytest.raises(ConfigError, match="goes up"):
        vae_spec("maisi", foreign.MAISI, (1.0, 0.0))
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="by name"):
        read_settings(tmp_path / "list.yaml")
    with pytest.raises(ConfigError, match="not readable"):
        read_settings(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("generative", {}, "--settings"),
        ("maisi", {"licence": " "}, "licence"),
        ("maisi", {"source": "x" * 501}, "source"),
    ],
)
def test_what_an_import_must_be_told(
    kind: Any, more: dict[str, str], said: str, tmp_path: Path
) -> None:
    save_file({"encoder.a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=said):
        import_weights(tmp_path / "a.safetensors", kind, tmp_path / "out", replace(SAID, **more))
    assert not (tmp_path / "out").exists()


def test_an_import_does_not_replace_what_it_reads(tmp_path: Path) -> None:
    save_file({"encoder.a": torch.ones(1)}, tmp_path / "autoencoder.safetensors")
    with pytest.raises(OutputError, match="never replaced"):
        import_weights(
            tmp_path / "autoencoder.safetensors", "maisi", tmp_path, SAID, overwrite=True
        )
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="neither an autoencoder nor"):
        import_weights(tmp_path / "other.safetensors", "maisi", tmp_path / "out", SAID)


def test_a_header_that_asks_for_too_much(tmp_path: Path, tiny_weights: Path) -> None:
    spec = vae_spec("maisi", published("autoencoder", {}))
    card = {"kind": "maisi", "licence": "x", "source": "x", "sha256": ""}
    header = {"version": 1, "autoencoder": asdict(spec), "card": card}

    def path(content: Any) -> Path:
        text = {"medddpm-imported": json.dumps(content)}
        save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", text)
        return tmp_path / "a.safetensors"

    with pytest.raises(CheckpointError, match="or more"):
        load_imported(path(header))
    for wrong in (
        {"version": 2, "card": card},
        {"version": 1, "card": card},
        header | {"card": {}},
        header | {"card": card | {"licence": ""}},
        header | {"autoencoder": asdict(spec) | {"channels": [9999, 9999]}},
        [],
    ):
        with pytest.raises(CheckpointError, match="does not fit this release"):
            read_imported(path(wrong))
    with pytest.raises(CheckpointError, match="medddpm import"):
        read_imported(tiny_weights)
