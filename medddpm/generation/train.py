"""Train a prior on a folder of scans of one contrast."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medddpm.data.cache import find_scans
from medddpm.data.consent import for_generators
from medddpm.data.manifest import bids_subject, read_manifest
from medddpm.errors import ConfigError
from medddpm.generation.align import straightened
from medddpm.generation.cascade import Cascade
from medddpm.generation.copies import Memory, memory_of, threshold_of
from medddpm.generation.faces import check_faces
from medddpm.generation.heads import BOTH_SIDES, Head, packed_heads, placed, random_pose
from medddpm.generation.learning import DetailStage, FinerStage, PriorStage
from medddpm.generation.options import PriorOptions, PriorSpec
from medddpm.generation.prior_file import PriorCard, TrainedPrior, load_prior, save_prior
from medddpm.io.outputs import file_stem
from medddpm.training.data import add_subjects
from medddpm.training.fabric import launch
from medddpm.training.loop import OnLog, run_stage
from medddpm.training.options import TrainOptions
from medddpm.training.state import Progress, saved_progress

PRIOR_FILE = "prior.safetensors"
_POSES, _OWN_POSES = 20, 4
"""Of each head, to measure how like training scans other heads are, and these themselves."""


@dataclass(frozen=True)
class _Scan:
    name: str
    path: Path
    contrast: str
    subject: str
    held: bool = False
    consent: str = "not asked"


@dataclass(frozen=True)
class Halves:
    """The heads of one contrast.

    Attributes:
        train: That are learned.
        held: That training never sees.
        subjects: Subject and name of each scan that is learned.
        consent: How many of these subjects said what to synthetic scans.
        files: The scans that `train` and `held` are of.
        cache: Where they are packed.
    """

    train: list[Head]
    held: list[Head]
    subjects: list[tuple[str, str]]
    consent: dict[str, int]
    files: tuple[list[Path], list[Path]]
    cache: Path

    def at(self, spacing: float) -> Halves:
        """The same heads, as they lie, packed for a grid of another spacing."""
        train, held = (
            [
                replace(head, turn=own.turn, shift=own.shift)
                for head, own in zip(packed_heads(files, self.cache, spacing), heads, strict=True)
            ]
            for files, heads in zip(self.files, (self.train, self.held), strict=True)
        )
        return replace(self, train=train, held=held)


@dataclass(frozen=True)
class Known:
    """What tells copies.

    Attributes:
        memory: Of the training scans and their mirror images.
        mean: (1, 1, *shape), the mean head.
        threshold: Similarity above which a draw is a copy.
    """

    memory: Memory
    mean: Tensor
    threshold: float


def train_prior(
    data: Path,
    out: Path,
    options: PriorOptions,
    train: TrainOptions,
    *,
    holdout: Sequence[str],
    start: Path | None = None,
    resume: bool = False,
    on_log: OnLog | None = None,
) -> Path:
    """Train the prior into `out`/prior.safetensors; returns that path.

    Args:
        data: A folder of NIfTI scans, those whose name ends in the contrast are taken; or what
            `medddpm prepare` wrote, where consent to synthetic scans and the split are known.
        out: Run folder; `out`/heads holds the packed scans, `out`/prior, `out`/detail and
            `out`/finer the states.
        options: Of the prior.
        train: Of the loop.
        holdout: Patterns (fnmatch) of scans that training never sees; at least one is needed.
        start: File of a prior to go on from, where its state is lost; it learned no other scans.
        resume: Go on from the saved state.
        on_log: Called with each logged row.

    Raises:
        ConfigError: No scan of that contrast, none held out, a subject on both sides, or a face;
            `start` has another network or learned other scans.
        CheckpointError: `start` cannot be read.
    """
    halves = heads_of(data, out / "heads", options, holdout)
    torch.manual_seed(train.seed)
    prior, before = Cascade(options), None
    if start is not None:
        before = _begun(start, halves, options)
        prior.load_state_dict(
            before.prior.state_dict(), strict=options.finer == before.prior.spec.finer
        )
    stages: list[PriorStage] = [
        PriorStage(prior.coarse, halves.train, halves.held, options),
        DetailStage(prior.fine, halves.train, halves.held, options),
    ]
    if prior.finer is not None:
        finer = halves.at(prior.finer.spec.spacing)
        stages.append(FinerStage(prior.finer, finer.train, finer.held, options))
    done = []
    for stage in stages:
        folder = out / stage.name
        add_subjects(folder, halves.subjects)
        if not (resume and (folder / "state.safetensors").exists()):
            stage.start()
        run_stage(stage, folder, train, launch(train), resume=resume, on_log=on_log)
        done.append(saved_progress(folder / "state.safetensors"))
    prior.cpu().eval()
    path = out / PRIOR_FILE
    trained = _measured(prior, stages, halves, done)
    save_prior(path, trained if before is None else _with_past(trained, before.card))
    return path


def _begun(start: Path, halves: Halves, options: PriorOptions) -> TrainedPrior:
    """The prior that is gone on from."""
    before = load_prior(start)
    own, told = before.prior.spec, PriorSpec(**{k: getattr(options, k) for k in vars(PriorSpec())})
    if told not in (own, replace(own, finer=True)):  # that scale can be added
        raise ConfigError(f"{start} has the network and grid {own}; set prior.* to the same")
    missing = sorted(set(before.card.scans) - {head.name for head in halves.train})
    if missing:
        raise ConfigError(
            f"{start} learned {missing[0]} ({len(missing)} scans in all), which is not among the "
            "training scans here, so a copy of it would not be known; give the same folder and "
            "data.holdout"
        )
    return before


def _with_past(trained: TrainedPrior, past: PriorCard) -> TrainedPrior:
    """The prior with the steps and hours of the one that it began from."""
    steps = {name: count + past.steps.get(name, 0) for name, count in trained.card.steps.items()}
    card = trained.card.model_copy(
        update={"steps": steps, "hours": trained.card.hours + past.hours}
    )
    return replace(trained, card=card)


def known_heads(halves: Halves, options: PriorOptions) -> Known:
    """The memory of the training scans, and how like them held-out heads are in random poses."""
    mean = torch.cat([placed(head, options) for head in halves.train]).mean(0, keepdim=True)
    sides = [placed(head, options, pose) for head in halves.train for pose in BOTH_SIDES]
    memory = memory_of(torch.cat(sides), mean)
    near = _likeness(halves.held, options, memory, mean, _POSES)
    return Known(memory, mean, threshold_of(near))


def _likeness(
    heads: Sequence[Head], options: PriorOptions, memory: Memory, mean: Tensor, poses: int
) -> Tensor:
    """To the training scans, of heads in random poses, (N,)."""
    rng, found = np.random.default_rng(3), []
    for head in heads:
        posed = [placed(head, options, random_pose(options, rng)) for _ in range(poses)]
        found.append(memory.nearest(torch.cat(posed), mean))
    return torch.cat(found)


def _measured(
    prior: Cascade, stages: Sequence[PriorStage], halves: Halves, done: Sequence[Progress]
) -> TrainedPrior:
    """The prior with its memory of the training scans, and what tells copies."""
    stage = stages[0]
    options = stage.options
    known = known_heads(halves, options)
    near = _likeness(halves.train, options, known.memory, known.mean, _OWN_POSES)
    recognised = float((near > known.threshold).float().mean())
    with torch.no_grad():
        explained = {s.name: s.explained(torch.device("cpu")) for s in stages}
    card = PriorCard(
        contrast=options.contrast,
        scans=tuple(h.name for h in halves.train),
        held=tuple(h.name for h in halves.held),
        consent=halves.consent,
        steps={s.name: p.step for s, p in zip(stages, done, strict=True)},
        hours=sum(p.seconds for p in done) / 3600,
        explained=explained,
        threshold=known.threshold,
        recognised=recognised,
    )
    return TrainedPrior(prior, known.memory, card)


def heads_of(data: Path, cache: Path, options: PriorOptions, holdout: Sequence[str]) -> Halves:
    """The scans of one contrast below a folder, packed into `cache` as heads.

    Raises:
        ConfigError: No scan of that contrast, none held out, a subject on both sides, or a scan
            with a face where `faces` is "refuse".
    """
    scans = _consented(data) if (data / "manifest.csv").is_file() else _found(data)
    chosen = [scan for scan in scans if scan.contrast.casefold() == options.contrast.casefold()]
    if not chosen:
        known = sorted({scan.contrast for scan in scans})
        raise ConfigError(
            f"no scan in {data} is of contrast {options.contrast!r}, there are {known[:8]}; set "
            "prior.contrast to one of them"
        )
    held = [s for s in chosen if s.held or any(fnmatch.fnmatch(s.name, p) for p in holdout)]
    train = [scan for scan in chosen if scan not in held]
    if not held or not train:
        raise ConfigError(
            f"data.holdout {list(holdout)} leaves {len(train)} scans to train on and {len(held)} "
            "held out; at least one of each is needed"
        )
    both = {scan.subject for scan in held} & {scan.subject for scan in train} - {""}
    if both:
        raise ConfigError(f"{sorted(both)[0]} is trained on and held out; mend data.holdout")
    files = [scan.path for scan in train], [scan.path for scan in held]
    learned, unseen = (packed_heads(paths, cache, options.spacing) for paths in files)
    if options.faces == "refuse":
        check_faces([*learned, *unseen])
    mean = torch.cat([placed(head, options) for head in learned]).mean(0, keepdim=True)
    return Halves(
        straightened(learned, options, mean),
        straightened(unseen, options, mean),
        [(scan.subject, scan.name) for scan in train],
        dict(Counter(scan.consent for scan in train)),
        files,
        cache,
    )


def _found(data: Path) -> list[_Scan]:
    """The scans of a plain folder; BIDS names say their contrast and subject."""
    named = [(file_stem(path), path) for path in find_scans(data)]
    return [_Scan(n, p, n.rpartition("_")[2], bids_subject(n)) for n, p in named]


def _consented(data: Path) -> list[_Scan]:
    """The scans of a prepared folder whose subjects were not asked, or allowed synthetic scans."""
    rows = [row for row in for_generators(read_manifest(data / "manifest.csv")) if row.split]
    return [
        _Scan(
            row.scan,
            data / row.file,
            row.contrast,
            row.subject,
            held=row.split != "train",
            consent=row.synthetic or "not asked",
        )
        for row in rows
        if row.split != "test"
    ]
