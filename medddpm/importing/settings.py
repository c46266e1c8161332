"""What describes a network of others: the settings file that came with its weights.

NV-Generate and MONAI's bundles have JSON with sections, GenerativeModels the arguments of a
network, MedVAE YAML with `ddconfig` and `embed_dim`. No expression in them is evaluated.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from medddpm.errors import ConfigError
from medddpm.io.yaml_text import parse_yaml
from medddpm.model.imported_file import Part
from medddpm.model.imported_spec import UNetSpec, VaeSpec
from medddpm.model.weights_file import faults

Spec = TypeVar("Spec", VaeSpec, UNetSpec)
_SECTIONS: dict[Part, tuple[str, ...]] = {
    "autoencoder": ("autoencoder_def",),
    "diffusion": ("diffusion_unet_def", "diffusion_def", "network_def"),
}
_SAME_RESULT = {
    *("_target_", "use_checkpoint", "use_checkpointing", "use_flash_attention", "norm_float16"),
    *("num_splits", "dim_split", "print_info", "save_mem", "upcast_attention", "dropout_cattn"),
}
"""Arguments that change speed, memory or rounding, or training alone."""
_MAISI_VAE: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 4,
    "num_channels": [64, 128, 256],
    "num_res_blocks": [2, 2, 2],
    "attention_levels": [False, False, False],
}
_MAISI_UNET: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 4,
    "out_channels": 4,
    "num_channels": [64, 128, 256, 512],
    "attention_levels": [False, False, True, True],
    "num_head_channels": [0, 0, 32, 32],
    "num_res_blocks": 2,
    "include_spacing_input": True,
}
_OF_DDPM = {"include_top_region_index_input": True, "include_bottom_region_index_input": True}
_OF_RFLOW = {"num_class_embeds": 128, "resblock_updown": True, "include_fc": True}
_RANGES = {"maisi": (0.0, 1.0), "generative": (0.0, 1.0), "medvae": (-1.0, 1.0)}


def read_settings(path: Path) -> dict[str, Any]:
    """The settings as they stand in the file, JSON or YAML.

    Raises:
        ConfigError: It cannot be read, or is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable: {error}") from None
    try:
        content = json.loads(text)  # YAML does not know 1e-06 as a number
    except ValueError:
        content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold the arguments of a network by name")
    return content


def published(part: Part, names: Mapping[str, Any]) -> dict[str, Any]:
    """What NV-Generate publishes for its MAISI networks (config_network_ddpm and _rflow.json).

    Args:
        part: Which of the two networks.
        names: Of the weights; those of "ddpm" have layers for the region of the body.
    """
    if part == "autoencoder":
        return _MAISI_VAE
    of_ddpm = "top_region_index_layer.0.weight" in names
    return _MAISI_UNET | (_OF_DDPM if of_ddpm else _OF_RFLOW)


def vae_spec(
    kind: str, settings: Mapping[str, Any], scale: tuple[float, float] | None = None
) -> VaeSpec:
    """The autoencoder of the settings.

    Args:
        kind: Whose layout: "maisi", "generative" or "medvae".
        settings: Of `read_settings` or `published`.
        scale: What stands for 0 and 1 of the intensity scale, if it is not what is usual there.

    Raises:
        ConfigError: They describe no autoencoder of one image in 3D.
    """
    low, high = scale or _RANGES[kind]
    if kind == "medvae":
        known = _of_medvae(settings)
    else:
        from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
        from monai.networks.nets.autoencoderkl import AutoencoderKL

        network = AutoencoderKlMaisi if kind == "maisi" else AutoencoderKL
        known = _arguments(network, settings, "autoencoder")
        known["inner_channels"] = known["latent_channels"]
    if (known.pop("in_channels"), known.pop("out_channels")) != (1, 1):
        raise ConfigError("an autoencoder of other than one image channel cannot be a codec here")
    return _checked(VaeSpec, known | {"layout": kind, "low": low, "high": high})


def unet_spec(kind: str, settings: Mapping[str, Any]) -> UNetSpec:
    """The diffusion U-Net of the settings.

    Raises:
        ConfigError: They describe none in 3D.
    """
    from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import (
        DiffusionModelUNetMaisi,
    )
    from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

    if kind == "medvae":
        raise ConfigError("MedVAE has no diffusion network; take --kind generative or maisi")
    network = DiffusionModelUNetMaisi if kind == "maisi" else DiffusionModelUNet
    known = _arguments(network, settings, "diffusion")
    heads, levels = known["num_head_channels"], len(known["channels"])
    known["num_head_channels"] = [heads] * levels if isinstance(heads, int) else heads
    return _checked(UNetSpec, known | {"layout": kind})


def _arguments(network: type, settings: Mapping[str, Any], part: Part) -> dict[str, Any]:
    """All arguments of a network of MONAI's: those given, and its own defaults."""
    section = next((settings[s] for s in _SECTIONS[part] if s in settings), settings)
    if not isinstance(section, dict):
        raise ConfigError(f"the section of the {part} holds no arguments by name")
    given = {_usual(k): _resolved(v, settings) for k, v in section.items()}
    defaults = {
        _usual(name): parameter.default
        for name, parameter in inspect.signature(network).parameters.items()
        if parameter.default is not parameter.empty
    }
    known = {k: v for k, v in (defaults | given).items() if k not in _SAME_RESULT}
    needed = {"spatial_dims", "in_channels", "out_channels", "channels", "num_res_blocks"}
    if missing := needed - known.keys():
        raise ConfigError(f"the settings of the {part} do not say {', '.join(sorted(missing))}")
    if known.pop("spatial_dims") != 3:
        raise ConfigError("networks of slices cannot be used here: spatial_dims must be 3")
    blocks = known["num_res_blocks"]
    known["num_res_blocks"] = (
        [blocks] * len(known["channels"]) if isinstance(blocks, int) else blocks
    )
    return known


def _usual(name: str) -> str:
    return "channels" if name == "num_channels" else name


def _resolved(value: Any, settings: Mapping[str, Any]) -> Any:
    """What a reference such as "@latent_channels" stands for."""
    if not isinstance(value, str) or value[:1] not in ("@", "$"):
        return value
    if value[0] == "@" and value[1:] in settings:
        return settings[value[1:]]
    raise ConfigError(
        f"the settings hold {value!r}, and expressions are not evaluated; write it out"
    )


def _of_medvae(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments from MedVAE's `ddconfig` (package medvae 0.1.7, `models/autoencoder_kl_3d.py`)."""
    try:
        inside, latent = settings["ddconfig"], settings["embed_dim"]
        levels = range(len(inside["ch_mult"]))
        sizes = [inside["resolution"] // 2**level for level in levels]
        return {
            "in_channels": inside["in_channels"],
            "out_channels": inside["out_ch"],
            "channels": [inside["ch"] * times for times in inside["ch_mult"]],
            "num_res_blocks": [inside["num_res_blocks"]] * len(levels),
            "attention_levels": [size in inside["attn_resolutions"] for size in sizes],
            "latent_channels": latent,
            "inner_channels": inside["z_channels"],
            "norm_num_groups": 32,
            "norm_eps": 1e-6,
            "with_encoder_nonlocal_attn": True,
            "with_decoder_nonlocal_attn": True,
            "use_convtranspose": False,
            "include_fc": True,
            "use_combined_linear": False,
        }
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"the settings of a MedVAE hold ddconfig and embed_dim, as its YAML files do ({error})"
        ) from None


def _checked(kind: type[Spec], known: Mapping[str, Any]) -> Spec:
    try:
        return TypeAdapter(kind).validate_python(known)
    except ValidationError as error:
        raise ConfigError(
            f"the settings describe no network that is known: {faults(error)}"
        ) from None
