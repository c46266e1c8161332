"""A diffusion U-Net of others, as MONAI builds it."""

from __future__ import annotations

from dataclasses import asdict

from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

from medddpm.model.imported_spec import UNetSpec

_OF_MAISI = (
    "include_top_region_index_input",
    "include_bottom_region_index_input",
    "include_spacing_input",
)


def build_unet(spec: UNetSpec) -> DiffusionModelUNet | DiffusionModelUNetMaisi:
    """A fresh network of MONAI's; it is called as MONAI's own.

    Raises:
        ValueError: MONAI cannot build it.
    """
    known = asdict(spec)
    del known["layout"]
    if spec.layout == "maisi":
        return DiffusionModelUNetMaisi(3, **{"num_channels": known.pop("channels"), **known})
    return DiffusionModelUNet(3, **{k: v for k, v in known.items() if k not in _OF_MAISI})
