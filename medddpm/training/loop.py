"""The loop that the three stages share: optimise, average, validate, log, save, resume."""

from __future__ import annotations

import csv
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from medddpm.errors import SamplingDivergedError
from medddpm.networks import channels_last
from medddpm.training.batches import step_seed
from medddpm.training.options import TrainOptions
from medddpm.training.state import Ema, load_state, save_state

OnLog = Callable[[dict[str, Any]], None]


class Stage(Protocol):
    """One thing to train: a network, its loss on a random batch, and how to validate it."""

    name: str
    network: nn.Module
    steps: int
    learning_rate: float

    def loss(self, rng: np.random.Generator, device: torch.device) -> Tensor:
        """The loss of one random batch, a scalar."""
        ...

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """Figures on held-out scans; writes a preview PNG."""
        ...


@dataclass
class RunLog:
    """Writes each row to log.jsonl and log.csv, and to TensorBoard if wanted."""

    folder: Path
    tensorboard: bool

    def __post_init__(self) -> None:
        self._writer = None
        if self.tensorboard:
            from medddpm.training.tensorboard import open_writer

            self._writer = open_writer(self.folder)

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; the CSV keeps the columns step, key, value."""
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        new = not (self.folder / "log.csv").exists()
        with (self.folder / "log.csv").open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "key", "value"])
            for key, value in row.items():
                if key != "step":
                    writer.writerow([row["step"], key, value])
                    if self._writer is not None:
                        self._writer.add_scalar(key, value, row["step"])


def learning_rate_at(step: int, total: int, base: float, options: TrainOptions) -> float:
    """Linear warm-up, then constant or a half cosine down to 1 % of the base."""
    if step < options.warmup:
        return base * (step + 1) / options.warmup
    if options.schedule == "constant":
        return base
    progress = (step - options.warmup) / max(total - options.warmup, 1)
    return base * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


@dataclass
class AdaptiveClip:
    """Clips gradients at a multiple of their usual norm (after Seetharaman et al. 2020).

    Networks without normalisation meet, once in a thousand batches, one whose gradient is many
    times the usual; a fixed limit either lets it ruin the weights or slows every step.

    Attributes:
        multiple: Of the usual norm.
        usual: Running mean of the clipped norms; 0 before the first step.
    """

    multiple: float
    usual: float = 0.0

    def limit(self, network: nn.Module) -> bool:
        """Clip the gradients in place; False if they are not finite, and the step is no use."""
        limit = self.multiple * self.usual if self.usual else 1.0
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), limit))
        if not math.isfinite(norm):
            return False
        norm = min(norm, limit)
        self.usual = 0.98 * self.usual + 0.02 * norm if self.usual else norm
        return True


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets: a step cut in half could not be resumed exactly.

    A second signal raises KeyboardInterrupt at once. Outside the main thread, and for a signal that
    is ignored (as Ctrl-C is in the background of a script), nothing changes.
    """
    wanted = threading.Event()

    def ask(number: int, frame: object) -> None:
        if wanted.is_set():
            raise KeyboardInterrupt
        wanted.set()

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, ask)
    try:
        yield wanted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pick_device(name: str) -> torch.device:
    """The device of "auto", "cpu", "cuda" or "cuda:1"; auto takes CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def run_stage(
    stage: Stage, out: Path, options: TrainOptions, *, resume: bool, on_log: OnLog | None = None
) -> Ema:
    """Train to `stage.steps`; the state is saved every few minutes, and on Ctrl-C or SIGTERM.

    Args:
        stage: What to train; its network is changed in place.
        out: Folder of this stage; made if missing.
        options: The shared options.
        resume: Continue from `out`/state.safetensors, bit for bit on a CPU.
        on_log: Called with each row that is logged.

    Returns:
        The averaged weights, which are also loaded into the network.

    Raises:
        SamplingDivergedError: The loss is not finite; the last saved state is kept.
        KeyboardInterrupt: Stopped by a signal, after the step in hand and its saving.
    """
    device = pick_device(options.device)
    out.mkdir(parents=True, exist_ok=True)
    network = channels_last(stage.network.to(device)).train()
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=stage.learning_rate,
        weight_decay=options.weight_decay,
        # A short memory: with 0.999 one rare batch makes a step of thirty times the usual length.
        betas=(0.9, 0.99),
    )
    clip = AdaptiveClip(options.clip)
    ema = Ema(network, options.ema)
    first, state = 0, out / "state.safetensors"
    if resume and state.exists():
        facts = load_state(state, network, ema, optimizer)
        first, clip.usual = int(facts["step"]), facts["usual_norm"]
    log = RunLog(out, options.tensorboard)
    step, saved_at, began, losses = first, time.monotonic(), time.monotonic(), []

    def save() -> None:
        facts = {"step": step, "stage": stage.name, "usual_norm": clip.usual}
        save_state(state, network, ema, optimizer, facts)

    def report(row: dict[str, Any]) -> None:
        log.write(row)
        if on_log:
            on_log({"stage": stage.name, "steps": stage.steps, **row})

    with stop_requests() as stop:
        while step < stage.steps:
            losses.append(_optimise(stage, network, optimizer, clip, device, step, options))
            step += 1
            ema.update(network, step)
            if step % options.log_every == 0 or step == stage.steps:
                speed = (time.monotonic() - began) / (step - first)
                rate = optimizer.param_groups[0]["lr"]
                mean = sum(losses) / len(losses)
                report({"step": step, "loss": mean, "lr": rate, "seconds_a_step": speed})
                losses = []
            if step % options.validate_every == 0 or step == stage.steps:
                report({"step": step, **_validate(stage, network, ema, device, out, step)})
            if time.monotonic() - saved_at > 60 * options.save_minutes:
                save()
                saved_at = time.monotonic()
            if stop.is_set():
                save()
                raise KeyboardInterrupt
    save()
    network.load_state_dict(ema.values)
    return ema


def _optimise(
    stage: Stage,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    clip: AdaptiveClip,
    device: torch.device,
    step: int,
    options: TrainOptions,
) -> float:
    seed = step_seed(options.seed, stage.name, step)
    torch.manual_seed(seed)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(step, stage.steps, stage.learning_rate, options)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.bf16):
        loss = stage.loss(np.random.default_rng(seed), device)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise SamplingDivergedError(
            f"the loss of stage {stage.name} is {value} at step {step}; "
            "resume from the last saved state with a lower learning rate"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if clip.limit(network):
        optimizer.step()
    return value


def _validate(
    stage: Stage, network: nn.Module, ema: Ema, device: torch.device, out: Path, step: int
) -> dict[str, float]:
    """Validate the averaged weights, then put the trained ones back."""
    trained = {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(ema.values)
    network.eval()
    (out / "previews").mkdir(exist_ok=True)
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
        figures = stage.validate(device, out / "previews" / f"step-{step:06d}.png")
    network.load_state_dict(trained)
    network.train()
    return figures
