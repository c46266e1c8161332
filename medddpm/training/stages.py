"""The three stages: what each learns, and from what."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from medddpm.diffusion.loss import sample_levels
from medddpm.diffusion.prediction import interpolate, to_x0
from medddpm.model.blocks import channels_last, space_to_depth
from medddpm.model.model import Model
from medddpm.model.shrinkage import Evidence
from medddpm.model.vae import CompactVae, kl_divergence
from medddpm.training.batches import (
    NoisyBatch,
    Share,
    clean_batch,
    noisy_batch,
)
from medddpm.training.latents import measure_latents
from medddpm.training.losses import image_loss, latent_loss, observed
from medddpm.training.options import (
    AutoencoderOptions,
    DiffusionOptions,
    FidelityOptions,
    JointOptions,
)
from medddpm.training.scans import Scans
from medddpm.training.validation import (
    VALIDATION_SIGMAS,
    chunked,
    mean_psnr,
    predicted_mean,
    psnr_inside,
    restored_psnr,
    write_preview,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class AutoencoderStage:
    """Learns x -> z -> x: L1 + L2 + a small KL (Rombach et al. 2022, section 3.1).

    No adversarial term: it sharpens pictures by inventing texture, which restoration must not.
    """

    name = "autoencoder"
    figure = "psnr"

    def __init__(self, model: Model, scans: Scans, options: AutoencoderOptions) -> None:
        self.network: nn.Module = model.codec.vae
        self.codec = model.codec
        self.scans = scans
        self.options = options
        self.steps = options.steps
        self.batch = options.batch
        self.learning_rate = options.learning_rate
        if isinstance(model.codec.vae, CompactVae):
            # Steps of Adam are large beside these small weights; the convolutions do the learning.
            model.codec.vae.analysis.requires_grad_(False)
            model.codec.vae.synthesis.requires_grad_(False)

    def start(self) -> None:
        """Start the linear maps from the PCA of training blocks."""
        if not isinstance(self.network, CompactVae):
            return
        rng = np.random.default_rng(1)
        blocks = []
        for _ in range(40):
            x, _ = clean_batch(self.scans.train, 4, rng, self.scans.options)
            flat = space_to_depth(x, self.network.factor).flatten(2).transpose(1, 2)
            flat = flat.reshape(-1, flat.shape[-1])
            blocks.append(flat[torch.from_numpy(rng.permutation(len(flat))[:1000])])
        self.network.start_from_pca(torch.cat(blocks))

    def draw(self, share: Share) -> Tensor:
        """Clean patches."""
        rngs = share.rngs()
        return torch.cat([clean_batch(self.scans.train, 1, r, self.scans.options)[0] for r in rngs])

    def loss(self, x: Tensor, share: Share) -> Tensor:
        """Reconstruction from one posterior sample, and KL."""
        mean, std = self.codec.raw(x)
        recon = self.codec.decode_raw(mean + std * share.normal(mean.shape[1:], x.device))
        error = recon.float() - x
        rec = error.abs().mean() + 10 * error.square().mean()
        loss: Tensor = rec + self.options.kl_weight * kl_divergence(mean.float(), std.float())
        return loss

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """Round-trip PSNR of held-out patches through the posterior mean."""

        def round_trip(x: Tensor) -> Tensor:
            mean, _ = self.codec.raw(x)
            return self.codec.decode_raw(mean)

        recon = chunked(round_trip, self.scans.held_x, device)
        write_preview(preview, {"scan": self.scans.held_x, "round trip": recon})
        return {"psnr": psnr_inside(recon, self.scans.held_x)}

    def finish(self, fabric: Fabric) -> None:
        """Store the latent statistics of the training set; processes share the work."""
        measure_latents(self.codec, self.scans, fabric)


class DiffusionStage:
    """Learns p(z0 | y): half of each batch at the terminal level, where x0 is E[z0 | y]."""

    name = "diffusion"
    figure = "psnr_plain_0.05"

    def __init__(self, model: Model, scans: Scans, options: DiffusionOptions) -> None:
        self.model = model
        self.network: nn.Module = model.unet
        self.scans = scans
        self.options = options
        self.steps = options.steps
        self.batch = options.batch
        self.learning_rate = options.learning_rate
        model.codec.eval().requires_grad_(False)

    def draw(self, share: Share) -> NoisyBatch:
        """Noisy patches."""
        return _noisy(self.scans, share)

    def loss(self, batch: NoisyBatch, share: Share) -> Tensor:
        """Min-SNR weighted error of the predicted quantity."""
        self.model.to(batch.x.device)
        with torch.no_grad():
            evidence = observed(self.model, batch)
        return latent_loss(self.model, batch, evidence, self.options, share)[0]

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """Error of E[z0 | y] in latent units, and PSNR of its plain decoding."""
        figures: dict[str, float] = {}
        for sigma in VALIDATION_SIGMAS:
            batch = self.scans.held_noisy(sigma)
            z0 = chunked(self.model.codec.encode, batch.x, device)
            mean = predicted_mean(self.model, batch, device)
            plain = chunked(self.model.codec.decode, mean, device)
            figures[f"latent_mse_{sigma}"] = float((mean - z0).square().mean())
            figures[f"psnr_plain_{sigma}"] = psnr_inside(plain, batch.x)
            write_preview(preview, {"noisy": batch.y, "restored": plain, "truth": batch.x})
        return figures

    def finish(self, fabric: Fabric) -> None:
        """Nothing to store."""


class FidelityStage:
    """Learns x from (y, z0): z0 is the diffusion network's own x0-prediction at random levels."""

    name = "fidelity"
    figure = "psnr_0.05"

    def __init__(self, model: Model, scans: Scans, options: FidelityOptions) -> None:
        self.model = model
        self.network: nn.Module = model.fidelity
        self.scans = scans
        self.options = options
        self.steps = options.steps
        self.batch = options.batch
        self.learning_rate = options.learning_rate
        model.codec.eval().requires_grad_(False)
        model.unet.eval().requires_grad_(False)

    def draw(self, share: Share) -> NoisyBatch:
        """Noisy patches."""
        return _noisy(self.scans, share)

    def loss(self, batch: NoisyBatch, share: Share) -> Tensor:
        """Squared error in units of sigma; the body and loud noise count more."""
        self.model.to(batch.x.device)
        channels_last(self.model)
        with torch.no_grad():
            evidence = observed(self.model, batch)
            z0, angle = self._latent(batch, evidence, share)
        return image_loss(self.model, batch, evidence, z0, angle)

    def _latent(self, batch: NoisyBatch, evidence: Evidence, share: Share) -> tuple[Tensor, Tensor]:
        diffusion = self.model.spec.diffusion
        levels = sample_levels(
            diffusion.schedule,
            share.total,
            terminal_fraction=self.options.terminal_fraction,
            generator=share.step_generator(),
        )
        alpha, sigma = (share.of(level).to(batch.x) for level in levels)
        z0 = self.model.codec.encode(batch.x)
        eps = share.normal(z0.shape[1:], z0.device)
        z = interpolate(z0, eps, alpha, sigma)
        angle = torch.atan2(sigma, alpha)
        cond, _ = self.model.condition(evidence)
        conditions = self.model.conditions(batch.sigma, batch.spacing, batch.colour)
        output = self.model.unet(z, angle, cond, conditions)
        return to_x0(output, z, alpha, sigma, diffusion.prediction), angle

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """PSNR of `mean` restoration on held-out patches."""
        return restored_psnr(self.model, self.scans.held_noisy, device, preview)

    def finish(self, fabric: Fabric) -> None:
        """Nothing to store."""


class JointStage:
    """Both networks at once: the decoder learns on the latents that the U-Net has just predicted.

    So training may stop at any time, and neither waits for the other.
    """

    name = "joint"
    figure = "psnr_0.05"

    def __init__(self, model: Model, scans: Scans, options: JointOptions) -> None:
        self.model = model
        self.network: nn.Module = nn.ModuleDict({"unet": model.unet, "fidelity": model.fidelity})
        self.scans = scans
        self.options = options
        self.steps = options.steps
        self.batch = options.batch
        self.learning_rate = options.learning_rate
        model.codec.eval().requires_grad_(False)

    def draw(self, share: Share) -> NoisyBatch:
        """Noisy patches."""
        return _noisy(self.scans, share)

    def loss(self, batch: NoisyBatch, share: Share) -> Tensor:
        """Sum of the losses of both; the decoder sees no latent that was drawn without the scan."""
        self.model.to(batch.x.device)
        channels_last(self.model)
        with torch.no_grad():
            evidence = observed(self.model, batch)
        loss, z0, angle, keep = latent_loss(self.model, batch, evidence, self.options, share)
        kept = torch.nonzero(keep)[:, 0]
        if len(kept):
            seen = Evidence(*(getattr(evidence, f.name)[kept] for f in fields(evidence)))
            inside = image_loss(self.model, batch[kept], seen, z0.detach()[kept], angle[kept])
            loss = loss + inside * (len(kept) / len(keep))
        return loss

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """PSNR of `mean` restoration on held-out patches, with white noise and as acquired."""
        figures = restored_psnr(self.model, self.scans.held_noisy, device, preview)
        acquired = self.scans.held_acquired()
        z0 = predicted_mean(self.model, acquired, device)
        outputs, bases = [], []
        for i in range(len(z0)):
            evidence = observed(self.model, acquired[i : i + 1].to(device))
            angle = torch.full((1,), math.pi / 2, device=device)
            part = self.model.decode(evidence, z0[i : i + 1].to(device), angle)
            outputs.append(part.float().cpu())
            bases.append(evidence.base.float().cpu())
        figures["psnr_acquired"] = mean_psnr(outputs, acquired.x)
        figures["psnr_acquired_base"] = mean_psnr(bases, acquired.x)
        return figures

    def finish(self, fabric: Fabric) -> None:
        """Nothing to store."""


def _noisy(scans: Scans, share: Share) -> NoisyBatch:
    return NoisyBatch.cat([noisy_batch(scans.train, 1, r, scans.options) for r in share.rngs()])
