"""The processes of a training: how they start, and what they tell each other.

Lightning Fabric starts them (or finds those of torchrun and Slurm) and gives device, precision and
collectives. Gradients are averaged here in one message, not by DistributedDataParallel: the losses
call parts of several networks, some of them frozen, and the networks are small.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from medddpm.errors import ConfigError, MedddpmError
from medddpm.restoration.tile import has_bf16
from medddpm.training.options import TrainOptions

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_PATIENCE = timedelta(hours=2)
"""How long processes wait for the first one, which packs the scans and validates."""


def launch(options: TrainOptions) -> Fabric:
    """Start, or join, the processes that the options ask for.

    With several processes and no launcher, the others run the same command line again.

    Raises:
        ConfigError: There are no such devices, or the launcher started another number.
    """
    # Here, because it takes a second that a restoration need not wait.
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind, _, number = options.device.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    devices, nodes = _per_node(options)
    bf16 = options.bf16 == "on" or (options.bf16 == "auto" and has_bf16(torch.device(kind)))
    several = devices * nodes > 1 or options.strategy == "ddp"
    try:
        with warnings.catch_warnings():
            # said wherever Slurm is installed; processes are started without it on purpose
            warnings.filterwarnings("ignore", message="The `srun` command is available")
            fabric = Fabric(
                accelerator=kind,
                devices=[int(number)] if number else devices,
                num_nodes=nodes,
                strategy=DDPStrategy(timeout=_PATIENCE) if several else "auto",
                precision="bf16-mixed" if bf16 else "32-true",
            )
            fabric.launch()
    except (ValueError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"cannot train on {devices} x {options.device} a node and {nodes} nodes: {error}; "
            "mend train.device, train.devices and train.num_nodes"
        ) from error
    return fabric


def _per_node(options: TrainOptions) -> tuple[int, int]:
    """Processes a node and nodes: what torchrun says goes before what the options say."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return options.devices, options.num_nodes
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return local, int(os.environ["WORLD_SIZE"]) // local


def on_first_process(fabric: Fabric, function: Callable[[], object]) -> None:
    """Run something on one process while the others wait; a user's error is raised by all."""
    error = None
    if fabric.is_global_zero:
        try:
            function()
        except MedddpmError as caught:
            error = caught
    error = fabric.broadcast(error)
    if error is not None:
        raise error


def leave() -> None:
    """Leave the process group, if there is one: its threads must not outlive the interpreter."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def end_others(fabric: Fabric) -> None:
    """End the processes that this one started; they would wait for it for hours."""
    for process in getattr(fabric.strategy.launcher, "procs", []):
        process.kill()


def average(fabric: Fabric, network: nn.Module, loss: Tensor) -> float:
    """Mean of the gradients over all processes, in place, and of the loss."""
    if fabric.world_size > 1:
        grads = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in grads), loss.reshape(1)])
        sizes = [*(g.numel() for g in grads), 1]
        *means, loss = torch.split(reduced(fabric, flat, "mean"), sizes)
        for grad, mean in zip(grads, means, strict=True):
            grad.copy_(mean.view_as(grad))
    return float(loss)


def any_process(fabric: Fabric, flag: bool) -> bool:
    """Whether the flag is set on any process: all get the same answer."""
    if fabric.world_size == 1:
        return flag
    return bool(reduced(fabric, torch.tensor(float(flag), device=fabric.device), "max"))


def reduced(fabric: Fabric, values: Tensor, operation: Literal["sum", "mean", "max"]) -> Tensor:
    """Elementwise over all processes."""
    result: Tensor = fabric.strategy.all_reduce(values, reduce_op=operation)
    return result


def peak_memory_gb(device: torch.device) -> float:
    """The most memory taken so far: that of the GPU, or on a CPU that of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
