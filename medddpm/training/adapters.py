"""Low-rank adapters: few weights beside frozen ones, merged into them when training ends."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from medddpm.errors import ConfigError


class LowRank(nn.Module):
    """W -> W + B A, with A random and B zero at first (Hu et al. 2022, "LoRA", section 4.1).

    Args:
        weight: What is adapted: (outputs, ...), a convolution's or a linear layer's.
        rank: Rows of A.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        inputs = weight[0].numel()
        self.down = nn.Parameter(torch.randn(rank, inputs, device=weight.device) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(len(weight), rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight, of the same shape."""
        return weight + (self.up @ self.down).view(weight.shape)


def add_adapters(network: nn.Module, rank: int) -> None:
    """Freeze the network and give each convolution and linear layer an adapter of that rank.

    The peft library does this for transformers; it would bring in two large packages for these
    lines.
    """
    network.requires_grad_(False)
    for module in list(network.modules()):
        if isinstance(module, nn.Conv3d | nn.Linear):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))


def merge_adapters(network: nn.Module) -> None:
    """Put every adapter into its weight: the network is again what it was before, and trained."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def freeze(network: nn.Module, patterns: Sequence[str]) -> int:
    """Freeze the parameters whose names match (fnmatch); returns how many weights are left.

    Raises:
        ConfigError: A pattern matches nothing, or nothing is left to train.
    """
    names = dict(network.named_parameters())
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise ConfigError(
                f"finetune.freeze: {pattern!r} matches no parameter; they are called "
                f"{', '.join(sorted({name.split('.')[0] for name in names}))}.*"
            )
        for name in matched:
            names[name].requires_grad_(False)
    left = sum(p.numel() for p in names.values() if p.requires_grad)
    if not left:
        raise ConfigError("finetune.freeze leaves nothing to train")
    return left
