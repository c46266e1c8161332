"""Checkpoints as others save them, with small networks of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAISI_VAE: dict[str, Any] = {
    # config_network_rflow.json of NV-Generate, with fewer and narrower levels
    "_target_": "monai.apps.generation.maisi.networks.autoencoderkl_maisi.AutoencoderKlMaisi",
    "spatial_dims": "@spatial_dims",
    "in_channels": "@image_channels",
    "out_channels": "@image_channels",
    "latent_channels": "@latent_channels",
    "num_channels": [8, 16, 16],
    "num_res_blocks": [1, 2, 1],
    "norm_num_groups": 8,
    "norm_eps": 1e-06,
    "attention_levels": [False, False, False],
    "with_encoder_nonlocal_attn": False,
    "with_decoder_nonlocal_attn": False,
    "use_checkpointing": False,
    "use_convtranspose": False,
    "norm_float16": False,
    "num_splits": 2,
    "dim_split": 1,
}
MAISI_UNET: dict[str, Any] = {
    "_target_": "monai.apps.generation.maisi.networks.diffusion_model_unet_maisi."
    "DiffusionModelUNetMaisi",
    "spatial_dims": "@spatial_dims",
    "in_channels": "@latent_channels",
    "out_channels": "@latent_channels",
    "num_channels": [8, 16],
    "attention_levels": [False, True],
    "num_head_channels": [0, 8],
    "num_res_blocks": 1,
    "norm_num_groups": 8,
    "include_spacing_input": True,
    "num_class_embeds": 128,
    "resblock_updown": True,
    "include_fc": True,
}
MAISI: dict[str, Any] = {
    "spatial_dims": 3,
    "image_channels": 1,
    "latent_channels": 3,
    "autoencoder_def": MAISI_VAE,
    "diffusion_unet_def": MAISI_UNET,
}
MEDVAE: dict[str, Any] = {
    "embed_dim": 1,
    "ddconfig": {
        "double_z": True,
        "z_channels": 2,
        "resolution": 16,
        "in_channels": 1,
        "out_ch": 1,
        "ch": 32,
        "ch_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
}


def written(path: Path, content: Any) -> Path:
    """A file of settings."""
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def randomised(network: nn.Module) -> nn.Module:
    """The network with no weight at zero, where some of MONAI's begin."""
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return network.eval()


def maisi_vae() -> nn.Module:
    """The reference network of `MAISI`."""
    from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi

    known = {k: v for k, v in MAISI_VAE.items() if not str(v).startswith("@") and k != "_target_"}
    return randomised(AutoencoderKlMaisi(3, 1, 1, latent_channels=3, **known))


def maisi_unet() -> nn.Module:
    """The reference network of `MAISI`."""
    from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import (
        DiffusionModelUNetMaisi,
    )

    known = {k: v for k, v in MAISI_UNET.items() if not str(v).startswith("@") and k != "_target_"}
    return randomised(DiffusionModelUNetMaisi(3, 3, 3, **known))


def medvae_weights() -> dict[str, Tensor]:
    """A state of `MEDVAE` by the names of its package, random."""
    weights: dict[str, Tensor] = {}

    def put(name: str, *shape: int) -> None:
        weights[f"{name}.weight"] = 0.1 * torch.randn(shape) + float(len(shape) == 1)
        weights[f"{name}.bias"] = 0.1 * torch.randn(shape[0])

    def conv(name: str, inputs: int, outputs: int, edge: int = 3) -> None:
        put(name, outputs, inputs, edge, edge, edge)

    def residual(name: str, inputs: int, outputs: int) -> None:
        put(f"{name}.norm1", inputs)
        conv(f"{name}.conv1", inputs, outputs)
        put(f"{name}.norm2", outputs)
        conv(f"{name}.conv2", outputs, outputs)
        if inputs != outputs:
            conv(f"{name}.nin_shortcut", inputs, outputs, 1)

    def middle(half: str) -> None:
        for block in ("block_1", "block_2"):
            residual(f"{half}.mid.{block}", 64, 64)
        put(f"{half}.mid.attn_1.norm", 64)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{half}.mid.attn_1.{part}", 64, 64, 1)

    conv("encoder.conv_in", 1, 32)
    residual("encoder.down.0.block.0", 32, 32)
    conv("encoder.down.0.downsample.conv", 32, 32)
    residual("encoder.down.1.block.0", 32, 64)
    middle("encoder")
    put("encoder.norm_out", 64)
    conv("encoder.conv_out", 64, 4)
    conv("decoder.conv_in", 2, 64)
    middle("decoder")
    residual("decoder.up.1.block.0", 64, 64)
    residual("decoder.up.1.block.1", 64, 64)
    conv("decoder.up.1.upsample.conv", 64, 64)
    residual("decoder.up.0.block.0", 64, 32)
    residual("decoder.up.0.block.1", 32, 32)
    put("decoder.norm_out", 32)
    conv("decoder.conv_out", 32, 1)
    conv("quant_conv", 4, 2, 1)
    conv("post_quant_conv", 1, 2, 1)
    conv("channel_ds.0", 1, 64, 1)
    conv("channel_proj", 1, 1, 1)
    return weights


class MedVae:
    """What MedVAE computes with `medvae_weights`, written out with functions of PyTorch alone."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        padding = weight.shape[-1] // 2 if stride == 1 else 0
        return F.conv3d(x, weight, self.weights[f"{name}.bias"], stride, padding)

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(
            x, 32, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-6
        )

    def residual(self, name: str, x: Tensor) -> Tensor:
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)))
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)))
        other = f"{name}.nin_shortcut"
        return h + (self.conv(other, x) if f"{other}.weight" in self.weights else x)

    def middle(self, half: str, x: Tensor) -> Tensor:
        x = self.residual(f"{half}.mid.block_1", x)
        name = f"{half}.mid.attn_1"
        h = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", h).flatten(2) for part in "qkv")
        seen = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, dim=2)
        x = x + self.conv(f"{name}.proj_out", (v @ seen.transpose(1, 2)).view_as(x))
        return self.residual(f"{half}.mid.block_2", x)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.residual("encoder.down.0.block.0", self.conv("encoder.conv_in", x))
        h = self.conv("encoder.down.0.downsample.conv", F.pad(h, (0, 1, 0, 1, 0, 1)), stride=2)
        h = self.middle("encoder", self.residual("encoder.down.1.block.0", h))
        h = self.conv("encoder.conv_out", F.silu(self.norm("encoder.norm_out", h)))
        mean, logvar = self.conv("quant_conv", h).chunk(2, dim=1)
        return mean, (0.5 * logvar.clamp(-30, 20)).exp()

    def decode(self, z: Tensor) -> Tensor:
        h = self.conv("decoder.conv_in", self.conv("post_quant_conv", z))
        h = self.middle("decoder", h)
        for block in (0, 1):
            h = self.residual(f"decoder.up.1.block.{block}", h)
        h = self.conv("decoder.up.1.upsample.conv", F.interpolate(h, scale_factor=2.0))
        for block in (0, 1):
            h = self.residual(f"decoder.up.0.block.{block}", h)
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", h)))
