"""A restorer for MONAI: a dictionary transform, and the network of a bundle."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform
from torch import Tensor, nn

from medddpm.errors import ShapeError
from medddpm.io.outputs import file_stem
from medddpm.model.model import find_weights, load_model
from medddpm.preprocess.noise_law import WHITE
from medddpm.restoration.graph import TileMean
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Geometry, Volume


class RestoreMRId(MapTransform):
    """Noise taken off scans in a dictionary, each channel by itself, on the grid that it had.

    A file that `LoadImaged` read gets the voxels of `medddpm restore`: the name of the file names
    the noise field.

    Args:
        keys: Of (C, X, Y, Z) MetaTensors, magnitudes in any unit, with an affine in RAS+ mm, as
            `LoadImaged` gives them.
        weights: A shipped name or a file.
        device: "auto", "cpu", "cuda" or "cuda:1".
        allow_missing_keys: As for any map transform.
        **options: Of `RestoreOptions`, such as mode="mean", sigma=12.0.

    Raises:
        ShapeError: An entry is no volume.

    Example:
        >>> from monai.transforms import Compose, LoadImaged  # doctest: +SKIP
        >>> chain = Compose(  # doctest: +SKIP
        ...     [LoadImaged("image", ensure_channel_first=True), RestoreMRId("image")]
        ... )
    """

    def __init__(
        self,
        keys: KeysCollection,
        weights: str | Path = "default",
        device: str = "auto",
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.weights, self.device = str(find_weights(weights)), device
        self.options = RestoreOptions(**options)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same dictionary with restored entries."""
        out = dict(data)
        restorer = _restorer(self.weights, self.device)
        for key in self.key_iterator(out):
            out[key] = self._restored(restorer, out[key])
        return out

    def _restored(self, restorer: Restorer, image: Any) -> MetaTensor:
        given = image if isinstance(image, MetaTensor) else MetaTensor(image)
        if given.ndim != 4:
            raise ShapeError(
                f"RestoreMRId takes (C, X, Y, Z), got {tuple(given.shape)}; load with "
                "ensure_channel_first=True"
            )
        affine = np.asarray(given.affine.cpu(), dtype=np.float64)
        name = given.meta.get("filename_or_obj")
        case = file_stem(Path(str(name))) if isinstance(name, str | Path) and str(name) else "scan"
        channels = []
        for channel in given.as_tensor().cpu().float().numpy():
            grid = Geometry(channel.shape, affine)
            volume = Volume(np.ascontiguousarray(channel), grid, case_id=case)
            channels.append(restorer.restore(volume, options=self.options).volume.data)
        restored = torch.from_numpy(np.stack(channels)).to(given.device)
        return MetaTensor(
            restored,
            affine=given.affine,
            meta={k: v for k, v in given.meta.items() if k != "affine"},
            applied_operations=given.applied_operations,
        )


@lru_cache(maxsize=2)
def _restorer(weights: str, device: str) -> Restorer:
    return Restorer.from_pretrained(weights, device)


class BundleNetwork(nn.Module):
    """`mean` of tiles in white noise as a network of one input, as a bundle describes it.

    Args:
        weights: A shipped name or a file.
        spacing: Voxel edges in mm.
        coils: Of the magnitude: 1 is Rician noise, 0 Gaussian.
    """

    def __init__(
        self,
        weights: str | Path = "default",
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        coils: int = 1,
    ) -> None:
        super().__init__()
        self.graph = TileMean(load_model(find_weights(weights)), coils)
        self.spacing: Tensor
        self.register_buffer("spacing", torch.tensor([spacing], dtype=torch.float32))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 2, X, Y, Z), the noisy scan and sigma over the intensity scale -> (B, 1, X, Y, Z)."""
        y, sigma = image[:, :1], image[:, 1:]
        auto = self.graph.model.spec.autoencoder
        small = [n // auto.factor for n in y.shape[2:]]
        draw = torch.Generator().manual_seed(0)
        noise = torch.randn(len(y), auto.latent_channels, *small, generator=draw).to(y)
        colour = torch.from_numpy(WHITE.block_std()).to(y)[None].expand(len(y), 64)
        out: Tensor = self.graph(y, sigma, self.spacing.expand(len(y), 3), colour, noise)
        return out
