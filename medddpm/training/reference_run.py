"""Train a reference network on scans of several contrasts, label maps and single scans."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from medddpm.model.blocks import channels_last
from medddpm.model.model import Model
from medddpm.reference.network import ReferenceNetwork, ReferenceSpec
from medddpm.reference.weights import ReferenceCard, TrainedReference, save_reference
from medddpm.training.data import PackedScans, add_subjects, check_split, open_cache
from medddpm.training.fabric import launch
from medddpm.training.labels import LabelMaps
from medddpm.training.loop import OnLog, run_stage
from medddpm.training.options import DataOptions, ReferenceOptions, TrainOptions, spec_of
from medddpm.training.reference_scenes import PairedScans, SceneMaker, Sources
from medddpm.training.reference_stage import ReferenceStage
from medddpm.training.state import saved_progress

REFERENCE_FILE = "reference.safetensors"


@dataclass(frozen=True)
class ReferenceData:
    """What a reference network learns from, and what it is validated on.

    Attributes:
        train: Sources of the patches that are learned.
        held: Sources of those that it is validated on.
        subjects: Subject, "" if not known, and name of each scan that is learned.
        held_names: Of the scans that are not.
    """

    train: Sources
    held: Sources
    subjects: list[tuple[str, str]]
    held_names: tuple[str, ...]


def train_reference(
    data: Path,
    out: Path,
    model: Model,
    options: ReferenceOptions,
    of_data: DataOptions,
    train: TrainOptions,
    *,
    resume: bool = False,
    on_log: OnLog | None = None,
) -> Path:
    """Train the network into `out`/reference.safetensors; returns that path.

    Args:
        data: A folder of scans: each of them, with another intensity curve, is its own reference.
        out: Run folder; `out`/scenes holds the restored patches, `out`/reference the state.
        model: Whose `mean` is helped; it stays as it is.
        options: Of the network, its pairs and its scenes.
        of_data: Patches, label maps, and what is held out.
        train: Of the loop.
        resume: Go on from the saved state.
        on_log: Called with each logged row.

    Raises:
        ConfigError: No scan is left to train on, or none is held out.
    """
    scans = data_of(data, out, options, of_data)
    add_subjects(out / ReferenceStage.name, scans.subjects)
    fabric = launch(train)
    channels_last(model.to(fabric.device).eval())
    learn, held = (SceneMaker(model, s, options, fabric.device) for s in (scans.train, scans.held))
    folder = out / "scenes"
    torch.manual_seed(train.seed)
    network = ReferenceNetwork(spec_of(options, ReferenceSpec))
    stage = ReferenceStage(
        network,
        learn.made(folder, "train", options.scenes, train.seed),
        held.made(folder, "held", options.held_scenes, train.seed),
        options,
    )
    state = out / stage.name
    run_stage(stage, state, train, fabric, resume=resume, on_log=on_log)
    network.cpu().eval()
    with torch.no_grad():
        figures = stage.validate(torch.device("cpu"), state / "last.png")
    progress = saved_progress(state / "state.safetensors")
    card = ReferenceCard(
        model=model.networks_digest,
        scans=tuple(sorted({name for _, name in scans.subjects})),
        labels=0 if scans.train.labels is None else len(scans.train.labels.paths),
        held=scans.held_names,
        steps=progress.step,
        hours=progress.seconds / 3600,
        figures=figures,
    )
    save_reference(out / REFERENCE_FILE, TrainedReference(network, card))
    return out / REFERENCE_FILE


def data_of(
    data: Path, out: Path, options: ReferenceOptions, of_data: DataOptions
) -> ReferenceData:
    """The scans of a folder, the pairs of the table and the label maps, in two halves.

    Where there are pairs, those that are held out alone are validated on.
    """
    patch, holdout = of_data.patch, of_data.holdout
    open_cache(data, out / "cache")
    scans = PackedScans(out / "cache", holdout, patch)
    singles = PackedScans(out / "cache", holdout, patch, validation=True)
    check_split(scans, singles)
    subjects = [(scans.subject(case), case.name) for case in scans.cases]
    labels = None
    if of_data.labels:
        labels = LabelMaps(Path(of_data.labels), out / "labels", patch)
    train, held = Sources(of_data, None, labels, scans), Sources(of_data, scans=singles)
    names = [case.name for case in singles.cases]
    if options.pairs:
        table, cache = Path(options.pairs), out / "pairs"
        pairs = PairedScans(table, cache, patch, holdout)
        kept = PairedScans(table, cache, patch, holdout, validation=True)
        train, held = replace(train, pairs=pairs), Sources(of_data, pairs=kept)
        subjects += [("", name) for name in pairs.names]
        names += kept.names
    return ReferenceData(train, held, subjects, tuple(sorted(set(names))))
