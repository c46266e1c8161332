"""The networks as components of diffusers, and the pipeline that restores tiles with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, DDIMScheduler, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from pydantic import TypeAdapter
from torch import Tensor

from medddpm.diffusion.denoiser import Denoiser
from medddpm.diffusion.prediction import to_x0
from medddpm.diffusion.schedule import NoiseLevel
from medddpm.model.model import Model, build_codec, build_unet
from medddpm.model.spec import ModelSpec
from medddpm.restoration.graph import TileMean

_SPEC: TypeAdapter[ModelSpec] = TypeAdapter(ModelSpec)
_PREDICTED = {"v_prediction": "v", "epsilon": "eps", "sample": "x0"}


class _Component(ModelMixin, ConfigMixin):
    """One network of a model in the dress of diffusers."""

    @register_to_config
    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__()
        self.spec = _SPEC.validate_python(spec)
        self.network = self.build()

    def build(self) -> torch.nn.Module:
        """A fresh network."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """That of the network."""
        return self.network(*args, **kwargs)


class MedddpmCodec(_Component):
    """The autoencoder behind its codec."""

    def build(self) -> torch.nn.Module:
        """See `build_codec`."""
        return build_codec(self.spec.autoencoder)


class MedddpmUNet(_Component):
    """The conditional U-Net."""

    def build(self) -> torch.nn.Module:
        """See `build_unet`."""
        return build_unet(self.spec.diffusion, self.spec.autoencoder)


class MedddpmFidelity(_Component):
    """The fidelity decoder."""

    def build(self) -> torch.nn.Module:
        """That of a model."""
        return Model(self.spec).fidelity


@dataclass
class RestoredTiles(BaseOutput):
    """What the pipeline gives.

    Attributes:
        images: (B, 1, X, Y, Z) on the intensity scale.
    """

    images: Tensor


class MedddpmPipeline(DiffusionPipeline):
    """Restores tiles: one evaluation is `mean`, more are one draw by the scheduler's steps."""

    def __init__(
        self,
        vae: MedddpmCodec,
        unet: MedddpmUNet,
        fidelity: MedddpmFidelity,
        scheduler: Any,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, unet=unet, fidelity=fidelity, scheduler=scheduler)

    @property
    def model(self) -> Model:
        """The networks as one model of ours."""
        model = Model(self.unet.spec)
        model.codec, model.unet = self.vae.network, self.unet.network
        model.fidelity = self.fidelity.network
        model.shrinkage = model.fidelity.shrinkage
        return model.eval()

    @torch.inference_mode()
    def __call__(
        self,
        image: Tensor,
        sigma: float,
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        num_inference_steps: int = 1,
        coils: int = 1,
        generator: torch.Generator | None = None,
    ) -> RestoredTiles:
        """The restored tiles.

        Args:
            image: (B, 1, X, Y, Z) over the intensity scale of the scan; the edges are multiples of
                `Model.multiple`.
            sigma: Of the noise, likewise; white.
            spacing: Voxel edges in mm.
            num_inference_steps: 1 is the mean.
            coils: Of the magnitude: 1 is Rician noise, 0 Gaussian.
            generator: Of the noise.
        """
        model, auto = self.model, self.unet.spec.autoencoder
        small = [n // auto.factor for n in image.shape[2:]]
        noise = torch.randn(len(image), auto.latent_channels, *small, generator=generator)
        level = torch.full_like(image, sigma)
        edges = torch.tensor([spacing], dtype=torch.float32).expand(len(image), 3)
        colour = torch.ones(len(image), 64)
        if num_inference_steps == 1:
            return RestoredTiles(TileMean(model, coils)(image, level, edges, colour, noise))
        evidence = model.observe(image, level, edges, coils, colour)
        cond, _ = model.condition(evidence)
        conditions = model.conditions(level, edges, colour)
        z = noise
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            angle = noise.new_full((len(image),), scheduler_level(self.scheduler, int(t)).angle)
            output = model.unet(z, angle, cond, conditions)
            z = self.scheduler.step(output, t, z).prev_sample
        last = scheduler_level(self.scheduler, int(self.scheduler.timesteps[-1]))
        return RestoredTiles(model.decode(evidence, z, noise.new_full((len(image),), last.angle)))


def scheduler_level(scheduler: Any, t: int) -> NoiseLevel:
    """The noise level of a timestep of a scheduler of diffusers."""
    abar = float(scheduler.alphas_cumprod[t])
    return NoiseLevel(math.sqrt(max(abar, 0.0)), math.sqrt(max(1 - abar, 0.0)))


def denoiser_of(unet: Callable[..., Any], scheduler: DDIMScheduler, **conditions: Any) -> Denoiser:
    """A U-Net of diffusers as a denoiser of ours, for any of our samplers.

    Args:
        unet: Called as unet(z, timestep, **conditions), such as a `UNet2DModel`.
        scheduler: With whose timesteps it was trained.
        **conditions: Handed on to the network.
    """
    prediction = _PREDICTED[scheduler.config.prediction_type]
    abar = scheduler.alphas_cumprod.double()
    angles = torch.atan2((1 - abar).clamp_min(0).sqrt(), abar.clamp_min(0).sqrt())

    def denoise(z: Tensor, level: NoiseLevel) -> Tensor:
        t = int((angles - level.angle).abs().argmin())
        output = unet(z, t, **conditions)
        output = output if isinstance(output, Tensor) else output.sample
        return to_x0(output, z, level.alpha, level.sigma, prediction)  # type: ignore[arg-type]

    return denoise
