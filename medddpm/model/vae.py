"""The autoencoder x <-> z: a compact KL-VAE behind a space-to-depth stem.

It has the interface of `monai.networks.nets.AutoencoderKL` (`encode`, `decode`, `forward`), so
that either can stand behind the codec.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medddpm.model.blocks import ResBlock, depth_to_space, space_to_depth


class CompactVae(nn.Module):
    """KL-VAE (Kingma & Welling 2014) whose convolutions all run on the latent grid.

    Encoder and decoder are each a linear map of voxel blocks plus a convolutional correction.
    The linear maps start as the PCA of the blocks, the best linear codec, so that training
    starts where a plain VAE arrives only after many steps.

    Args:
        latent_channels: Channels of the latent.
        factor: Downsampling an axis; a latent voxel stands for factor^3 voxels.
        encoder_channels: Width of the encoder.
        decoder_channels: Width of the decoder.
        encoder_blocks: Residual blocks in the encoder.
        decoder_blocks: Residual blocks in the decoder.
    """

    def __init__(
        self,
        latent_channels: int = 16,
        factor: int = 4,
        encoder_channels: int = 96,
        decoder_channels: int = 128,
        encoder_blocks: int = 3,
        decoder_blocks: int = 5,
    ) -> None:
        super().__init__()
        voxels = factor**3
        self.factor = factor
        self.latent_channels = latent_channels
        self.analysis = nn.Conv3d(voxels, latent_channels, 1)
        self.synthesis = nn.Conv3d(latent_channels, voxels, 1)
        self.encoder = nn.Sequential(
            nn.Conv3d(voxels, encoder_channels, 3, padding=1),
            *(ResBlock(encoder_channels) for _ in range(encoder_blocks)),
            nn.SiLU(),
            nn.Conv3d(encoder_channels, 2 * latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv3d(latent_channels, decoder_channels, 3, padding=1),
            *(ResBlock(decoder_channels) for _ in range(decoder_blocks)),
            nn.SiLU(),
            nn.Conv3d(decoder_channels, voxels, 3, padding=1),
        )
        for head in (self.encoder[-1], self.decoder[-1]):
            with torch.no_grad():
                head.weight.mul_(0.05)  # type: ignore[operator]
                head.bias.zero_()  # type: ignore[operator]

    @torch.no_grad()
    def start_from_pca(self, blocks: Tensor) -> Tensor:
        """Set the linear maps to the PCA of voxel blocks; returns the variance kept, in [0, 1].

        Args:
            blocks: (N, factor^3) float32, blocks of training images in `space_to_depth` order.
        """
        mean = blocks.mean(dim=0)
        _, singular, basis = torch.linalg.svd(blocks - mean, full_matrices=False)
        k = self.latent_channels
        scale = singular[:k] / blocks.shape[0] ** 0.5
        forward = basis[:k] / scale[:, None]
        self.analysis.weight.copy_(forward[:, :, None, None, None])
        self.analysis.bias.copy_(-(forward @ mean))  # type: ignore[union-attr]
        self.synthesis.weight.copy_((basis[:k].T * scale)[:, :, None, None, None])
        self.synthesis.bias.copy_(mean)  # type: ignore[union-attr]
        kept: Tensor = singular[:k].square().sum() / singular.square().sum()
        return kept

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation of the latent.

        Args:
            x: (B, 1, X, Y, Z) on the intensity scale, X, Y, Z multiples of `factor`.

        Returns:
            Two tensors (B, latent_channels, X/f, Y/f, Z/f).
        """
        blocks = space_to_depth(x, self.factor)
        mean, logvar = self.encoder(blocks).chunk(2, dim=1)
        return self.analysis(blocks) + mean, torch.exp(0.5 * (logvar.float() - 12).clamp(-24, 8))

    def decode(self, z: Tensor) -> Tensor:
        """(B, latent_channels, ...) -> (B, 1, X, Y, Z) on the intensity scale."""
        return depth_to_space((self.synthesis(z) + self.decoder(z)).float(), self.factor)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction from one posterior sample, with the posterior mean and deviation."""
        mean, std = self.encode(x)
        mean = mean.float()
        return self.decode(mean + std * torch.randn_like(mean)), mean, std


def kl_divergence(mean: Tensor, std: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, 1)) a latent element (Kingma & Welling 2014, appendix B)."""
    variance = std.square()
    return 0.5 * (mean.square() + variance - 1 - torch.log(variance + 1e-12)).mean()
