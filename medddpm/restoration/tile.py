"""One batch of tiles through the networks: encode, denoise, decode with fidelity."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medddpm.diffusion.denoiser import Denoiser, as_denoiser, classifier_free
from medddpm.diffusion.guidance import guided
from medddpm.diffusion.samplers import sampler_of, truncated_start
from medddpm.diffusion.schedule import NoiseLevel
from medddpm.model.blocks import depth_to_space
from medddpm.model.model import Model
from medddpm.model.shrinkage import Evidence
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.preprocess.tiles import Triple, noise_tile
from medddpm.restoration.backends import tile_function
from medddpm.restoration.graph import TileFunction, TileMean
from medddpm.restoration.options import RestoreOptions

Array = NDArray[np.float32]
NoiseField = Callable[[int], Tensor]
_FINEST = (0.4, 1.2)
"""Shortest voxel edge in mm of the scans that the shipped networks were trained on."""


class TileRestorer:
    """Restores tiles of one frame.

    Args:
        model: The networks, on `device`.
        device: Where they run.
        law: Noise on the intensity scale; a map of sigma is that of the padded volume.
        spacing: Voxel size in mm.
        seed: Names the frame's noise field.
        options: Mode, steps, fidelity and so on.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        law: NoiseLaw,
        spacing: Sequence[float],
        seed: int,
        options: RestoreOptions,
    ) -> None:
        self.model = model
        self.device = device
        self.law = law
        self.sigma = law.sigma
        self.spacing = torch.tensor([_known(spacing)], dtype=torch.float32, device=device)
        self.colour = torch.from_numpy(law.colour.block_std()).to(device)[None]
        self.seed = seed
        self.options = options
        self.bf16 = uses_bf16(options, device)
        self.graph: TileFunction | None = None
        if options.is_one_graph:
            mean = TileMean(model, law.num_coils)
            self.graph = tile_function(options.backend, mean, device, model.digest)

    @torch.inference_mode()
    def restore(self, tiles: Array, starts: Sequence[Triple], sample: int) -> Array:
        """The restored tiles.

        Args:
            tiles: (B, X, Y, Z) on the intensity scale.
            starts: Corner of each tile in the padded volume, for its window of the noise field.
            sample: Number of the sample of an ensemble.
        """
        y = torch.from_numpy(tiles).to(self.device)[:, None]
        sigma = self._sigma_of(starts, tiles.shape[1:])
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            first, plain = self._once(y, sigma, starts, sample)
            total = first.clone()
            shifts = self.options.shifts if self.options.mode == "mean" else 1
            for axis in range(2, 1 + shifts):
                moved = sigma if sigma.shape != y.shape else _moved(sigma, axis)
                if plain is not None and isinstance(self.graph, TileMean):
                    known = self._known(len(y))
                    again = self.graph.again(_moved(y, axis), moved, *known, _moved(plain, axis))
                else:
                    again = self._once(_moved(y, axis), moved, starts, sample)[0]
                edge = first.narrow(axis, 0, 1)
                total += torch.cat([edge, again.narrow(axis, 0, y.shape[axis] - 1)], dim=axis)
            x_hat = total / shifts
        out: Array = x_hat[:, 0].cpu().numpy()
        return out

    @torch.inference_mode()
    def shrunk(self, tiles: Array, starts: Sequence[Triple]) -> Array:
        """The tiles by the shrinkage that the networks start from; shapes as in `restore`."""
        y = torch.from_numpy(tiles).to(self.device)[:, None]
        evidence = self._evidence(y, self._sigma_of(starts, tiles.shape[1:]))
        out: Array = evidence.base[:, 0].cpu().numpy()
        return out

    def _sigma_of(self, starts: Sequence[Triple], size: tuple[int, ...]) -> Tensor:
        """(B, 1, 1, 1, 1), or (B, 1, X, Y, Z) of a map."""
        if isinstance(self.sigma, float):
            return torch.full((len(starts), 1, 1, 1, 1), self.sigma, device=self.device)
        x, y, z = size
        parts = [self.sigma[a : a + x, b : b + y, c : c + z] for a, b, c in starts]
        return torch.from_numpy(np.stack(parts)).to(self.device)[:, None]

    def _once(
        self, y: Tensor, sigma: Tensor, starts: Sequence[Triple], sample: int
    ) -> tuple[Tensor, Tensor | None]:
        """The restored tiles, and the plain decoding of their latent where it was kept."""
        if self.graph is not None:
            auto = self.model.spec.autoencoder
            like = y[:, :, :: auto.factor, :: auto.factor, :: auto.factor]
            noise = self._windows(auto.latent_channels, like, starts, (sample, 0))
            spacing, colour = self._known(len(y))
            if isinstance(self.graph, TileMean):
                return self.graph.with_plain(y, sigma, spacing, colour, noise)
            return self.graph(y, sigma, spacing, colour, noise), None
        evidence = self._evidence(y, sigma)
        cond, z_y = self.model.condition(evidence)
        field = self._noise_field(z_y, starts, sample)
        texture = None
        denoiser = self._denoiser(evidence, cond)
        if self.options.mode == "mean":
            level = self.model.spec.diffusion.schedule.terminal
            z0 = denoiser(truncated_start(z_y, level, field(0)), level)
        else:
            z0, level = self._sample(denoiser, z_y, field)
            if self.options.texture:
                texture = self.options.texture * self._texture(z_y, starts, sample)
        return self._decode(evidence, z0, level, texture), None

    def _evidence(self, y: Tensor, sigma: Tensor) -> Evidence:
        spacing, colour = self._known(len(y))
        return self.model.observe(y, sigma, spacing, self.law.num_coils, colour)

    def _known(self, tiles: int) -> tuple[Tensor, Tensor]:
        return self.spacing.expand(tiles, 3), self.colour.expand(tiles, 64)

    def _sample(
        self, denoiser: Denoiser, z_y: Tensor, noise: NoiseField
    ) -> tuple[Tensor, NoiseLevel]:
        """A truncated reverse process from the noisy latent of the scan."""
        schedule = self.model.spec.diffusion.schedule
        gain = float(self.model.codec.latent_noise_gain)
        start = schedule.nearest(self.options.start * gain * float(np.mean(self.sigma)))
        levels = schedule.steps(self.options.steps, start)
        z = truncated_start(z_y, levels[0], noise(0))
        sampler = sampler_of(self.options.sampler)
        return sampler(denoiser, z, levels, noise=lambda i: noise(i + 1)), levels[-2]

    def _decode(
        self, evidence: Evidence, z0: Tensor, level: NoiseLevel, texture: Tensor | None
    ) -> Tensor:
        fidelity = self.options.fidelity
        out = torch.zeros_like(evidence.y)
        if fidelity > 0:
            angle = torch.full((len(z0),), level.angle, device=self.device)
            out += fidelity * self.model.decode(evidence, z0, angle, texture)
        if fidelity < 1:
            out += (1 - fidelity) * self.model.codec.decode(z0)
        return out

    def _denoiser(self, evidence: Evidence, cond: Tensor) -> Denoiser:
        o, prediction = self.options, self.model.spec.diffusion.prediction

        conditions = self.model.conditions(evidence.sigma, evidence.spacing, evidence.colour)

        def bind(condition: Tensor) -> Denoiser:
            return as_denoiser(self.model.unet, prediction, cond=condition, conditions=conditions)

        denoiser = bind(cond)
        if o.cfg_weight != 1:
            denoiser = classifier_free(denoiser, bind(torch.zeros_like(cond)), o.cfg_weight)
        return guided(
            denoiser,
            self.model.codec.decode,
            evidence.y,
            evidence.sigma,
            law=self.law,
            scale=o.guidance_scale,
        )

    def _noise_field(self, z: Tensor, starts: Sequence[Triple], sample: int) -> NoiseField:
        return lambda step: self._windows(z.shape[1], z, starts, (sample, step))

    def _texture(self, z: Tensor, starts: Sequence[Triple], sample: int) -> Tensor:
        """(B, 1, X, Y, Z) of a noise field on the grid of the scan, after those of all steps.

        Samples come in pairs of opposite texture, which leaves none of it in the mean of many.
        """
        factor = self.model.spec.autoencoder.factor
        stream = (sample - sample % 2, self.options.steps + 1)
        field = depth_to_space(self._windows(factor**3, z, starts, stream), factor)
        return -field if sample % 2 else field

    def _windows(
        self, channels: int, z: Tensor, starts: Sequence[Triple], stream: tuple[int, int]
    ) -> Tensor:
        """(B, channels, x, y, z) of a noise field where the tiles lie on the latent grid."""
        factor = self.model.spec.autoencoder.factor
        x, y, zz = z.shape[2:]
        windows = [
            noise_tile(
                channels,
                (a // factor, b // factor, c // factor),
                (x, y, zz),
                seed=self.seed,
                stream=stream,
            )
            for a, b, c in starts
        ]
        return torch.from_numpy(np.stack(windows)).to(self.device)


def uses_bf16(options: RestoreOptions, device: torch.device) -> bool:
    """True if these options run the networks in bfloat16 there."""
    if options.backend in ("onnx", "openvino"):
        return False
    return options.bf16 == "on" or (options.bf16 == "auto" and has_bf16(device))


def has_bf16(device: torch.device) -> bool:
    """True if bfloat16 is fast: CUDA cards that have it, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


def _known(spacing: Sequence[float]) -> list[float]:
    """Voxel edges as the networks are told them: of the same shape, as fine as in training.

    Conditions that no scan of the training had made the features of `sample` grow without bound.
    """
    finest = min(spacing)
    factor = min(max(finest, _FINEST[0]), _FINEST[1]) / finest
    return [edge * factor for edge in spacing]


def _moved(image: Tensor, axis: int) -> Tensor:
    """The image one voxel further along an axis, its last slice twice.

    Blocks of voxels then fall elsewhere, and their errors differ (cycle spinning, Coifman and
    Donoho 1995): the average of two is 0.05 dB better.
    """
    length = image.shape[axis]
    return torch.cat(
        [image.narrow(axis, 1, length - 1), image.narrow(axis, length - 1, 1)], dim=axis
    )
