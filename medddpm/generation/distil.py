"""Teach a prior to draw heads in few steps."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from medddpm.diffusion.distillation import answer_of, consistency_loss, neighbours
from medddpm.diffusion.prediction import interpolate
from medddpm.diffusion.samplers import dpm_solver_pp_2m
from medddpm.errors import ConfigError
from medddpm.generation.learning import PriorStage
from medddpm.generation.options import PriorOptions, PriorSpec
from medddpm.generation.prior import HeadPrior
from medddpm.generation.prior_file import DistilledCard, load_prior, save_prior
from medddpm.generation.train import PRIOR_FILE, Halves, heads_of
from medddpm.io.provenance import checksum
from medddpm.training.batches import Share
from medddpm.training.data import add_subjects
from medddpm.training.distil import PATH_STEPS, closed, path_places
from medddpm.training.fabric import launch
from medddpm.training.loop import OnLog, run_stage
from medddpm.training.options import DistilOptions, TrainOptions
from medddpm.training.state import saved_progress
from medddpm.training.validation import write_preview

DETAIL = "distil-detail"
"""The stage of the fine structure."""
_DRAWN = 3
"""Heads of a validation, at most."""


@dataclass(frozen=True)
class Teaching:
    """How a prior is distilled.

    Attributes:
        prior: Of the poses of heads; network, grid and contrast are those of the teacher.
        distil: Of the stage.
        train: Of the loop.
        holdout: Patterns (fnmatch) of scans that training never sees.
    """

    prior: PriorOptions
    distil: DistilOptions
    train: TrainOptions
    holdout: tuple[str, ...]


class PriorDistilStage(PriorStage):
    """Learns in one step where the teacher's paths from pure noise end, see `consistency_loss`.

    Args:
        student: To train; begins as the teacher.
        teacher: Stays as it is.
        halves: The heads.
        options: How.
    """

    name = "distil"
    figure = "closed"

    def __init__(
        self,
        student: HeadPrior,
        teacher: HeadPrior,
        halves: Halves,
        options: Teaching,
    ) -> None:
        super().__init__(student, halves.train, halves.held, options.prior)
        self.name = DETAIL if student.told else PriorDistilStage.name
        self.teacher, self.intervals = teacher, options.distil.intervals
        self.steps, self.batch = options.distil.steps, options.distil.batch
        self.learning_rate = options.distil.learning_rate
        self._paths: tuple[Tensor, Tensor] | None = None

    def loss(self, x: Tensor, share: Share) -> Tensor:
        """Difference of the answers at two neighbours of a path, each sample at its own."""
        u, coarse = self.standardised(x), self.given(x)
        self.teacher.to(u.device)
        height = path_places(share, 0.0)[1].to(u.device).double()
        start = torch.full_like(height, self.schedule.terminal.angle)
        upper, lower = map(self.schedule.at_angles, neighbours(start, self.intervals, height))
        noisy = interpolate(u, share.normal(u.shape[1:], u.device), *upper)
        student, teacher = (
            answer_of(partial(p, coarse=coarse), p.prediction) for p in (self.prior, self.teacher)
        )
        return consistency_loss(student, teacher, noisy, upper, lower)

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """How near one step is to the ends of the teacher's paths: "closed", 0 at first, 1 at best.

        It is 1 less the squared distance over that of one step of the teacher, on a few draws.
        """
        real = self.held[:_DRAWN]
        eps, coarse = self.noise(len(real), seed=1), self.given(real)
        if self._paths is None:
            self.teacher.to(device)
            self._paths = (
                self._drawn(self.teacher, eps, 1, coarse),
                self._drawn(self.teacher, eps, PATH_STEPS, coarse),
            )
        one, end = self._paths
        found = self._drawn(self.prior, eps, 1, coarse)
        drawn = {"teacher, 1 step": one, "its path": end, "student, 1 step": found}
        shown = {label: self.prior.image(u, coarse).cpu() for label, u in drawn.items()}
        write_preview(preview, {**shown, "held-out scan": self.own(real).cpu()})
        return {"closed": closed(found, one, end)}

    def _drawn(self, prior: HeadPrior, eps: Tensor, steps: int, coarse: Tensor | None) -> Tensor:
        denoiser = prior.denoiser(len(eps), coarse)
        return dpm_solver_pp_2m(denoiser, eps, self.schedule.steps(steps))


def distil_prior(
    data: Path,
    out: Path,
    teacher: Path,
    options: Teaching,
    *,
    resume: bool = False,
    on_log: OnLog | None = None,
) -> Path:
    """Distil a prior into `out`/prior.safetensors, to be drawn from in 1, 2 or 4 steps.

    Args:
        data: Of `train_prior`; only scans that the teacher learned may be learned from.
        out: Another folder than the teacher's.
        teacher: File of `medddpm train prior`.
        options: How.
        resume: Go on from the saved state.
        on_log: Called with each logged row.

    Raises:
        CheckpointError: The teacher cannot be read.
        ConfigError: It is distilled already, lies where the student would, or did not learn one of
            the scans.
    """
    trained, path = load_prior(teacher), out / PRIOR_FILE
    if path.exists() and path.samefile(teacher):
        raise ConfigError(f"{path} is the teacher itself; take another --out")
    if trained.card.distilled:
        raise ConfigError(f"{teacher} is distilled already; give the prior that it was made from")
    own = {f.name: getattr(trained.prior.spec, f.name) for f in fields(PriorSpec)}
    options = replace(options, prior=replace(options.prior, **own, contrast=trained.card.contrast))
    halves = heads_of(data, out / "heads", options.prior, options.holdout)
    new = sorted({head.name for head in halves.train} - set(trained.card.scans))
    if new:
        raise ConfigError(
            f"{teacher} did not learn {new[0]} ({len(new)} scans in all), so a copy of it would "
            "not be known; give the folder that the prior was trained on"
        )
    student = deepcopy(trained.prior).requires_grad_(True)
    student.leave_out_finer()  # it takes more steps than the student is for
    scales = zip(
        (student.coarse, student.fine), (trained.prior.coarse, trained.prior.fine), strict=True
    )
    closed_by, done = {}, {}
    for pupil, master in scales:
        stage = PriorDistilStage(pupil, master, halves, options)
        folder = out / stage.name
        add_subjects(folder, halves.subjects)
        run_stage(stage, folder, options.train, launch(options.train), resume=resume, on_log=on_log)
        pupil.cpu().eval()
        with torch.no_grad():
            figures = stage.validate(torch.device("cpu"), folder / "previews" / "end.png")
        closed_by[stage.name] = figures["closed"]
        done[stage.name] = saved_progress(folder / "state.safetensors")
    distilled = DistilledCard(
        teacher=checksum([teacher]),
        steps={name: progress.step for name, progress in done.items()},
        hours=sum(progress.seconds for progress in done.values()) / 3600,
        closed=closed_by,
    )
    card = trained.card.model_copy(update={"distilled": distilled})
    save_prior(path, replace(trained, prior=student, card=card))
    return path
