"""What all methods of a comparison share: heads, autoencoder, size, budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medddpm.diffusion.prediction import Prediction
from medddpm.generation.learning import PriorStage
from medddpm.generation.options import PriorOptions
from medddpm.generation.prior import PREDICTION, HeadPrior
from medddpm.generation.train import Halves
from medddpm.model.model import Model
from medddpm.training.options import TrainOptions


@dataclass(frozen=True)
class Scene:
    """The task that every method is given.

    Attributes:
        halves: Heads to learn, and held-out ones.
        model: Its autoencoder is the one of the methods without a network of their own.
        prior: Size of the networks; its `steps` are the most that a method trains.
        train: Of the loop; its `minutes` are the budget.
        measured: A network that knows the statistics of the training heads.
        draw_steps: Network evaluations a draw, of methods that take several.
    """

    halves: Halves
    model: Model
    prior: PriorOptions
    train: TrainOptions
    measured: HeadPrior
    draw_steps: int

    def network(self, prediction: Prediction = PREDICTION) -> HeadPrior:
        """A fresh network, the same for each method, that knows the mean head."""
        network = fresh_network(self.prior, self.train.seed, prediction)
        network.take_statistics(self.measured)
        return network

    def stage(self, network: HeadPrior) -> PriorStage:
        """What the network learns as a prior; other methods take its heads alone."""
        heads = self.halves
        return PriorStage(network, heads.train, heads.held, self.prior)

    def encoded(self, x: Tensor) -> Tensor:
        """Latents of the model's autoencoder, (B, C, *grid), of images (B, 1, *shape)."""
        with torch.inference_mode():
            return self.model.codec.encode(x).cpu()

    def decoded(self, z: Tensor) -> Tensor:
        """Images, not below 0, of latents."""
        with torch.inference_mode():
            return self.model.codec.decode(z).clamp_min(0)


def fresh_network(
    options: PriorOptions, seed: int, prediction: Prediction = PREDICTION
) -> HeadPrior:
    """A network that has learned nothing yet."""
    torch.manual_seed(seed)
    return HeadPrior(options, prediction=prediction)


def folder_of(out: Path, method: str) -> Path:
    """Where the state of a method lies; an import path is no name of a folder."""
    return out / "methods" / method.replace(":", "-")
