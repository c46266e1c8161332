"""`mean` of a batch of tiles as one function of tensors: what can be compiled or exported.

Its inputs are `INPUTS`, for any number of tiles and any edge that is a multiple of
`Model.multiple`: y and sigma (B, 1, X, Y, Z) on the intensity scale, spacing (B, 3) in mm, colour
(B, 64) as in `Evidence`, and noise (B, C, X/f, Y/f, Z/f), white and Gaussian, of which hardly
anything is left in the output: it is the terminal level that E[z0 | y] is asked at.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from medddpm.diffusion.denoiser import as_denoiser
from medddpm.diffusion.samplers import truncated_start
from medddpm.model.model import Model
from medddpm.model.shrinkage import Evidence, signal_table

if TYPE_CHECKING:
    from torch.export import ExportedProgram

TileFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
INPUTS = ("y", "sigma", "spacing", "colour", "noise")
OUTPUT = "restored"
_MOST_TILES, _MOST_EDGE = 64, 1024


class TileMean(nn.Module):
    """E[z0 | y] by one evaluation of the U-Net, decoded with fidelity.

    Args:
        model: The networks.
        coils: Of the magnitude: 1 is Rician noise, 0 Gaussian.
    """

    def __init__(self, model: Model, coils: int) -> None:
        super().__init__()
        self.model = model
        self.coils = coils
        self.level = model.spec.diffusion.schedule.terminal
        if coils:
            signal_table(coils)  # made now, not by what traces the graph

    def forward(
        self, y: Tensor, sigma: Tensor, spacing: Tensor, colour: Tensor, noise: Tensor
    ) -> Tensor:
        """The restored tiles (B, 1, X, Y, Z), from what the module's docstring lists."""
        return self.with_plain(y, sigma, spacing, colour, noise)[0]

    def with_plain(
        self, y: Tensor, sigma: Tensor, spacing: Tensor, colour: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The restored tiles, and the plain decoding of E[z0 | y], of the same shape."""
        model, level = self.model, self.level
        evidence = model.observe(y, sigma, spacing, self.coils, colour)
        cond, z_y = model.condition(evidence)
        denoiser = as_denoiser(
            model.unet,
            model.spec.diffusion.prediction,
            cond=cond,
            conditions=model.conditions(sigma, spacing, colour),
        )
        z0 = denoiser(truncated_start(z_y, level, noise), level)
        plain = model.codec.decode(z0)
        return self._decoded(evidence, z0, plain), plain

    def again(
        self, y: Tensor, sigma: Tensor, spacing: Tensor, colour: Tensor, plain: Tensor
    ) -> Tensor:
        """The restored tiles where the plain decoding is known: two thirds of the work.

        What moved by a voxel has another latent, which is encoded from that.
        """
        evidence = self.model.observe(y, sigma, spacing, self.coils, colour)
        return self._decoded(evidence, self.model.codec.encode(plain), plain)

    def _decoded(self, evidence: Evidence, z0: Tensor, plain: Tensor) -> Tensor:
        tiles = evidence.y.shape[0]  # not len(): a traced graph would take it for a constant
        angle = evidence.y.new_full((tiles,), self.level.angle)
        image: Tensor = self.model.fidelity(evidence, z0, plain, angle)
        return image


def example_inputs(model: Model, edges: tuple[int, int, int], tiles: int = 1) -> tuple[Tensor, ...]:
    """Inputs of a `TileMean`, drawn from a fixed seed.

    Args:
        model: For its latents.
        edges: X, Y, Z.
        tiles: B.
    """
    auto = model.spec.autoencoder
    draw = torch.Generator().manual_seed(0)
    x, y, z = edges
    image = torch.rand(tiles, 1, x, y, z, generator=draw)
    small = [edge // auto.factor for edge in edges]
    noise = torch.randn(tiles, auto.latent_channels, *small, generator=draw)
    sigma = torch.full_like(image, 0.05)
    return image, sigma, torch.ones(tiles, 3), torch.ones(tiles, 64), noise


@torch.no_grad()
def traced(graph: TileMean) -> ExportedProgram:
    """The graph for any number of tiles of any edges, as `torch.export` makes it."""
    from torch.export import Dim  # a quarter of a second, for those who export

    model, factor = graph.model, graph.model.spec.autoencoder.factor
    batch = Dim("tiles", min=1, max=_MOST_TILES)
    steps = [Dim(name, min=2, max=_MOST_EDGE // model.multiple) for name in ("nx", "ny", "nz")]
    image = {0: batch} | {i: model.multiple * n for i, n in enumerate(steps, start=2)}
    latent = {0: batch} | {i: model.multiple // factor * n for i, n in enumerate(steps, start=2)}
    known = {0: batch}
    edges = tuple(n * model.multiple for n in (3, 4, 5))  # each other, or they are taken for one
    inputs = example_inputs(model, (edges[0], edges[1], edges[2]), tiles=2)
    return torch.export.export(
        graph, inputs, dynamic_shapes=(image, image, known, known, latent), strict=False
    )


def write_onnx(graph: TileMean, path: Path) -> None:
    """Write the graph as ONNX, in one file."""
    told = logging.getLogger("torch.onnx")
    before = told.level
    told.setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own deprecations, and of names of dimensions
            torch.onnx.export(
                traced(graph),
                (),
                path,
                dynamo=True,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                external_data=False,
                verbose=False,
            )
    finally:
        told.setLevel(before)
