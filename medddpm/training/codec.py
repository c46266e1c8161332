"""A training around an autoencoder of others: the codec is there before the first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from medddpm.errors import ConfigError
from medddpm.model.imported_file import Imported, load_imported, read_imported
from medddpm.model.imported_spec import VaeSpec
from medddpm.model.model import Model, save_model
from medddpm.model.spec import AutoencoderSpec, DiffusionSpec, FidelitySpec, ModelSpec
from medddpm.training.fabric import on_first_process
from medddpm.training.latents import measure_latents
from medddpm.training.options import Options, spec_of
from medddpm.training.scans import Scans

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def described(options: Options) -> Options:
    """The options with an imported autoencoder described as its file has it.

    Raises:
        CheckpointError: The file is missing or damaged.
        ConfigError: It holds another network.
    """
    auto = options.autoencoder
    if auto.kind != "imported":
        return options
    spec = _vae_of(read_imported(Path(auto.weights)), auto.weights)
    channels, factor = spec.latent_channels, spec.factor
    known = replace(auto, imported=spec, latent_channels=channels, factor=factor)
    return replace(options, autoencoder=known)


def fresh_model(options: Options) -> Model:
    """A model of these options; only an imported autoencoder has learned anything.

    Raises:
        CheckpointError: The file of the autoencoder is missing or damaged.
    """
    model = Model(
        ModelSpec(
            spec_of(options.autoencoder, AutoencoderSpec),
            spec_of(options.diffusion, DiffusionSpec),
            spec_of(options.fidelity, FidelitySpec),
        )
    )
    if options.autoencoder.kind == "imported":
        imported, network = load_imported(Path(options.autoencoder.weights))
        model.codec.vae.network.load_state_dict(network.state_dict())  # type: ignore[union-attr]
        model.card["codec"] = imported.card.model_dump(mode="json")
    return model


def adopt_codec(options: Options, out: Path, scans: Scans, fabric: Fabric) -> None:
    """Begin a run with an imported autoencoder as it is: only its latents are measured.

    Args:
        options: All options of the run, `described`.
        out: The run folder, which has no weights yet.
        scans: Of the run.
        fabric: Its processes.
    """
    torch.manual_seed(options.train.seed)
    model = fresh_model(options)
    model.codec.to(fabric.device)
    measure_latents(model.codec, scans, fabric)
    model.cpu()
    path = out / "model.safetensors"
    on_first_process(fabric, lambda: save_model(path, model, dtype=torch.float32))


def _vae_of(imported: Imported, path: str) -> VaeSpec:
    if not isinstance(imported.spec, VaeSpec):
        raise ConfigError(f"{path} is a diffusion network; a codec is an imported autoencoder")
    return imported.spec
