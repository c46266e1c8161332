"""An autoencoder of others behind the interface of `CompactVae`."""

from __future__ import annotations

from typing import Any

import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from monai.networks.blocks.convolutions import Convolution
from monai.networks.nets.autoencoderkl import AutoencoderKL, Decoder, Encoder
from torch import Tensor, nn

from medddpm.model.imported_spec import VaeSpec


class ImportedVae(nn.Module):
    """An imported AutoencoderKL that sees and gives the intensity scale.

    Its group norm sees a whole tile, so a result depends a little on the tiling.

    Args:
        spec: Rebuilds the network.
    """

    def __init__(self, spec: VaeSpec) -> None:
        super().__init__()
        self.low, self.span = spec.low, spec.high - spec.low
        self.network = build_vae(spec)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `CompactVae.encode`."""
        mean, std = self.network.encode(self.low + self.span * x)
        return mean, std

    def decode(self, z: Tensor) -> Tensor:
        """As `CompactVae.decode`."""
        image: Tensor = self.network.decode(z)
        return (image.float() - self.low) / self.span

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `CompactVae.forward`."""
        mean, std = self.encode(x)
        mean, std = mean.float(), std.float()
        return self.decode(mean + std * torch.randn_like(mean)), mean, std


def build_vae(spec: VaeSpec) -> AutoencoderKL:
    """A fresh network of MONAI's, which takes and gives the range that it was trained on.

    Raises:
        ValueError: MONAI cannot build it.
    """
    parts: dict[str, Any] = {
        "num_res_blocks": spec.num_res_blocks,
        "attention_levels": spec.attention_levels,
        "norm_num_groups": spec.norm_num_groups,
        "norm_eps": spec.norm_eps,
        "include_fc": spec.include_fc,
        "use_combined_linear": spec.use_combined_linear,
    }
    whole: dict[str, Any] = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 1,
        "latent_channels": spec.latent_channels,
        "with_encoder_nonlocal_attn": spec.with_encoder_nonlocal_attn,
        "with_decoder_nonlocal_attn": spec.with_decoder_nonlocal_attn,
        "use_convtranspose": spec.use_convtranspose,
    }
    if spec.layout == "maisi":
        # one split, float32: what the published settings save in memory changes no result
        return AutoencoderKlMaisi(
            **parts, **whole, num_channels=spec.channels, num_splits=1, save_mem=False
        )
    network = AutoencoderKL(**parts, **whole, channels=spec.channels)
    if spec.layout == "medvae":
        _make_medvae(network, spec, parts)
    return network


def _make_medvae(network: AutoencoderKL, spec: VaeSpec, parts: dict[str, Any]) -> None:
    """Give the network what sets MedVAE's apart from MONAI's.

    The encoder ends in mean and log variance together, the last activation of encoder and decoder
    is a SiLU, and the decoder has one residual block a level more (Rombach et al. 2022; package
    medvae 0.1.7, `utils/vae/diffusionmodels_3d.py`).
    """
    inner, latent = spec.inner_channels, spec.latent_channels
    shape: dict[str, Any] = {
        "spatial_dims": 3,
        "channels": spec.channels,
        "with_nonlocal_attn": True,
    }
    encoder = Encoder(**shape, **parts, in_channels=1, out_channels=2 * inner)
    more = parts | {"num_res_blocks": [count + 1 for count in spec.num_res_blocks]}
    decoder = Decoder(**shape, **more, in_channels=inner, out_channels=1)
    for half in (encoder, decoder):
        half.blocks.insert(len(half.blocks) - 1, nn.SiLU())
    network.encoder, network.decoder = encoder, decoder
    network.quant_conv_mu = _pointwise(2 * inner, latent)
    network.quant_conv_log_sigma = _pointwise(2 * inner, latent)
    network.post_quant_conv = _pointwise(latent, inner)


def _pointwise(inputs: int, outputs: int) -> Convolution:
    return Convolution(3, inputs, outputs, kernel_size=1, padding=0, conv_only=True)
