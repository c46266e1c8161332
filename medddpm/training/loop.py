"""The loop that the three stages share: optimise, average, validate, log, save, resume."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from medddpm.errors import OutputError, SamplingDivergedError
from medddpm.io.files import named_in_utf8
from medddpm.model.blocks import channels_last
from medddpm.signals import stop_requests
from medddpm.training.batches import Share, prefetched, seed_of
from medddpm.training.fabric import any_process, average, peak_memory_gb
from medddpm.training.guard import AdaptiveClip, LossWatch
from medddpm.training.log import RunLog
from medddpm.training.options import TrainOptions
from medddpm.training.page import write_training_page
from medddpm.training.state import Ema, Progress, load_state, save_state, write_tensors

if TYPE_CHECKING:
    from lightning_fabric import Fabric

OnLog = Callable[[dict[str, Any]], None]
_MOST_ROLLBACKS = 3
_BETAS = (0.9, 0.99)
"""Of Adam. A short memory: with 0.999 one rare batch makes a step of thirty times the usual."""


class Stage(Protocol):
    """One thing to train: a network, its loss on a random batch, and how to validate it.

    It may have `betas`, those of Adam for its training, where the usual ones do not serve.

    Attributes:
        figure: The main one that `validate` returns; higher is better.
        batch: Samples that one process takes at once.
    """

    name: str
    figure: str
    network: nn.Module
    steps: int
    batch: int
    learning_rate: float

    def draw(self, share: Share) -> Any:
        """A random batch on the CPU, with `to` and `pin_memory`; other threads call this."""
        ...

    def loss(self, batch: Any, share: Share) -> Tensor:
        """Its loss, a scalar that is a mean over samples."""
        ...

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """Figures on held-out scans; writes a preview PNG."""
        ...


def learning_rate_at(step: int, total: int, base: float, options: TrainOptions) -> float:
    """Linear warm-up, then constant, a half cosine down to 1 % of the base, or a last decay."""
    if step < options.warmup:
        return base * (step + 1) / options.warmup
    if options.schedule == "constant":
        return base
    if options.schedule == "decay":
        return base * min(1.0, (total - step) / options.decay_steps)
    progress = (step - options.warmup) / max(total - options.warmup, 1)
    return base * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def run_stage(
    stage: Stage,
    out: Path,
    options: TrainOptions,
    fabric: Fabric,
    *,
    resume: bool,
    on_log: OnLog | None = None,
) -> int:
    """Train to `stage.steps`; the state is saved every few minutes, and on Ctrl-C or SIGTERM.

    A run that diverges goes back to its last saved state, and on from there with other data and
    half the learning rate.

    Args:
        stage: What to train; its network is changed in place and ends with the averaged weights.
        out: Folder of this stage; made if missing, and seen by all processes.
        options: The shared options.
        fabric: The processes, launched.
        resume: Continue from `out`/state.safetensors, bit for bit on a CPU.
        on_log: Called with each row that is logged, on the first process.

    Returns:
        The steps done: fewer than asked for where training stopped early.

    Raises:
        SamplingDivergedError: The run diverged too often; the last good state is kept.
        OutputError: The state cannot be written; the one before it is kept.
        KeyboardInterrupt: Stopped by a signal, after the step in hand and its saving.
    """
    out.mkdir(parents=True, exist_ok=True)
    training = _Training(stage, out, options, fabric, on_log)
    training.begin(resume=resume)
    with stop_requests() as stop:
        while not training.advance(stop):
            training.go_back()
    training.finish()
    return training.progress.step


class _Training:
    """All that one stage's training holds, the same on every process."""

    def __init__(
        self, stage: Stage, out: Path, options: TrainOptions, fabric: Fabric, on_log: OnLog | None
    ) -> None:
        self.stage, self.out, self.options = stage, out, options
        self.fabric, self.on_log = fabric, on_log
        self.state, self.best = out / "state.safetensors", out / "best.safetensors"
        self.network = channels_last(stage.network.to(fabric.device)).train()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=stage.learning_rate,
            weight_decay=options.weight_decay,
            betas=getattr(stage, "betas", _BETAS),
        )
        self.ema = Ema(self.network, options.ema)
        self.clip = AdaptiveClip(options.clip)
        self.watch = LossWatch()
        self.processes = fabric.world_size
        self.samples = stage.batch * options.accumulate * fabric.world_size
        self.progress = Progress(processes=self.processes, samples=self.samples)
        self.saved_at = time.monotonic()

    @property
    def unfinished(self) -> bool:
        """Whether there are steps to do, time to do them, and hope in doing them."""
        limit = 60 * self.options.minutes
        in_time = not limit or self.progress.seconds < limit
        return self.progress.step < self.stage.steps and in_time and not self.gave_up

    @property
    def gave_up(self) -> bool:
        """Whether too many validations brought no gain."""
        patience = self.options.patience
        return bool(patience) and self.progress.waits >= patience

    def begin(self, *, resume: bool) -> None:
        """Take up the saved state, or save the first one: a run can always go back."""
        resumed = resume and self.state.exists()
        if resumed:
            self._load()
        self.fabric.barrier()
        before = self.progress
        self.progress = replace(before, processes=self.processes, samples=self.samples)
        if self.fabric.is_global_zero:
            self.log = RunLog(self.out, self.options, before.step)
        if not resumed:
            self._save()
        elif change := self.progress.change_from(before):
            self._report(note=change)

    def advance(self, stop: threading.Event) -> bool:
        """Train to the end; False as soon as the run diverges."""
        self.began, self.first = time.monotonic(), self.progress.step
        losses, since = [], self.began
        with closing(self._batches()) as batches:
            while self.unfinished:
                started = time.monotonic()
                loss, useful = self._optimise(batches)
                self.progress.seconds += time.monotonic() - started
                if self.watch.diverges(loss, useful=useful):
                    return False
                self.progress.step += 1
                self.ema.update(self.network, self.progress.step)
                losses.append(loss)
                if self._due(self.options.log_every):
                    self._report_losses(losses, time.monotonic() - since)
                    losses, since = [], time.monotonic()
                if self._due(self.options.validate_every):
                    self._validate()
                if time.monotonic() - self.saved_at > 60 * self.options.save_minutes:
                    self._save()
                if any_process(self.fabric, stop.is_set()):
                    self._save()
                    self.fabric.barrier()
                    raise KeyboardInterrupt
        return not self.watch.doubtful

    def go_back(self) -> None:
        """To the last saved state, and on with other data and half the learning rate.

        Raises:
            SamplingDivergedError: That was done too often.
        """
        step, rollbacks = self.progress.step, self.progress.rollbacks
        if rollbacks == _MOST_ROLLBACKS:
            raise SamplingDivergedError(
                f"stage {self.stage.name} diverged at step {step} for the {rollbacks + 1}th time, "
                f"at an eighth of its learning rate; {self.state} is the last good state. Look at "
                f"the training scans and {self.out / 'log.csv'}, lower {self.stage.name}."
                "learning_rate, then go on with --resume"
            )
        self._load()
        self.progress = replace(
            self.progress,
            rollbacks=rollbacks + 1,
            processes=self.processes,
            samples=self.samples,
        )
        self.fabric.barrier()  # all have read the state that is now written again
        self._save()
        self._report(
            note=f"diverged at step {step}; back to step {self.progress.step}, "
            f"learning rate x {0.5**self.progress.rollbacks}"
        )

    def finish(self) -> None:
        """Save, and put the averaged weights into the network: the best ones if they are known."""
        if self.gave_up and self.progress.step < self.stage.steps:
            self._report(note=f"stopped early: no gain of {self.stage.figure}")
        self.watch.odd = 0  # a few at the end are taken as they are
        self._save()
        self.fabric.barrier()
        keep_best = self.options.patience and self.best.exists()
        with named_in_utf8(self.best) as best:
            values = load_file(best) if keep_best else self.ema.values
        self.network.load_state_dict(values)

    def _batches(self) -> Generator[tuple[Share, Any]]:
        """What this process draws from here on, step by step and part by part."""
        fabric, options, stage = self.fabric, self.options, self.stage
        rollbacks, on_gpu = self.progress.rollbacks, fabric.device.type == "cuda"

        def draw(number: int) -> tuple[Share, Any]:
            step, part = divmod(number, options.accumulate)
            seed = seed_of(options.seed, stage.name, step, rollbacks)
            place = part * fabric.world_size + fabric.global_rank
            share = Share(seed, place * stage.batch, stage.batch, self.samples)
            batch = stage.draw(share)
            return share, batch.pin_memory() if on_gpu else batch

        threads = options.workers if options.workers is not None else 8 * on_gpu
        return prefetched(draw, self.progress.step * options.accumulate, threads)

    def _optimise(self, batches: Generator[tuple[Share, Any]]) -> tuple[float, bool]:
        """One step; its loss, and whether its gradient was finite."""
        step, options = self.progress.step, self.options
        rate = learning_rate_at(step, self.stage.steps, self.stage.learning_rate, options)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * 0.5**self.progress.rollbacks
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.fabric.device)
        for _ in range(options.accumulate):
            share, batch = next(batches)
            torch.manual_seed(seed_of(share.seed, share.start))
            with self.fabric.autocast():
                batch = batch.to(self.fabric.device, non_blocking=True)
                loss = self.stage.loss(batch, share) / options.accumulate
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        value = average(self.fabric, self.network, total)
        useful = math.isfinite(value) and self.clip.limit(self.network)
        if useful:
            self.optimizer.step()
        return value, useful

    def _validate(self) -> None:
        """Validate on the first process, and keep count of the best."""
        figures: dict[str, float] = {}
        if self.fabric.is_global_zero:
            figures = self._figures()
            self._report(**figures)
            self._show()
        figure = self.fabric.broadcast(figures)[self.stage.figure]
        progress = self.progress
        if progress.best is None or figure > progress.best:
            progress.best, progress.waits = figure, 0
            if self.options.patience and self.fabric.is_global_zero:
                write_tensors(self.best, self.ema.values, {"step": str(progress.step)})
        else:
            progress.waits += 1

    def _figures(self) -> dict[str, float]:
        """Figures of the averaged weights, and the main one of the weights as they are: "raw_"."""
        self.network.eval()
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        previews = self.out / "previews"
        previews.mkdir(exist_ok=True)
        with torch.no_grad(), self.fabric.autocast(), TemporaryDirectory() as unseen:
            raw = self.stage.validate(self.fabric.device, Path(unseen) / "raw.png")
            self.network.load_state_dict(self.ema.values)
            preview = previews / f"step-{self.progress.step:06d}.png"
            figures = self.stage.validate(self.fabric.device, preview)
        self.network.load_state_dict(trained)
        self.network.train()
        return {**figures, f"raw_{self.stage.figure}": raw[self.stage.figure]}

    def _show(self) -> None:
        """Write the page of the run; that it cannot be written must not end the training."""
        try:
            write_training_page(self.out.parent)
        except (OutputError, OSError) as error:
            warnings.warn(f"the page of the run is left out: {error}", stacklevel=2)

    def _save(self) -> None:
        """Save, unless the last steps were odd: those may be the first of a run that diverges."""
        self.saved_at = time.monotonic()
        if self.watch.odd or not self.fabric.is_global_zero:
            return
        self.progress.usual_norm = self.clip.usual
        self.progress.usual_loss, self.progress.seen = self.watch.usual, self.watch.seen
        facts = {"stage": self.stage.name, **asdict(self.progress)}
        save_state(self.state, self.network, self.ema, self.optimizer, facts)

    def _load(self) -> None:
        facts = load_state(self.state, self.network, self.ema, self.optimizer)
        self.progress = Progress.of(facts)
        self.clip.usual = self.progress.usual_norm
        self.watch = LossWatch(self.progress.usual_loss, self.progress.seen)

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.step == self.stage.steps

    def _report_losses(self, losses: list[float], seconds: float) -> None:
        step = self.progress.step
        speed = (time.monotonic() - self.began) / max(step - self.first, 1)
        self._report(
            loss=sum(losses) / len(losses),
            lr=self.optimizer.param_groups[0]["lr"],
            seconds_a_step=speed,
            samples_a_second=len(losses) * self.samples / seconds,
            memory_gb=peak_memory_gb(self.fabric.device),
            minutes_left=self._minutes_left(speed),
        )

    def _minutes_left(self, speed: float) -> float:
        by_steps = (self.stage.steps - self.progress.step) * speed / 60
        limit = self.options.minutes
        return min(by_steps, limit - self.progress.seconds / 60) if limit else by_steps

    def _report(self, **facts: Any) -> None:
        if not self.fabric.is_global_zero:
            return
        row = {"step": self.progress.step, **facts}
        self.log.write(row)
        if self.on_log:
            self.on_log({"stage": self.stage.name, "steps": self.stage.steps, **row})
