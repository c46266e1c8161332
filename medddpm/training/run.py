"""One stage of a training, from the options to the weights file that it adds to."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from medddpm.errors import ConfigError
from medddpm.model.model import Model, load_model, save_model, with_card
from medddpm.model.shrinkage import weigh
from medddpm.training.adapters import add_adapters, freeze, merge_adapters
from medddpm.training.codec import adopt_codec, described, fresh_model
from medddpm.training.data import open_cache, record_subjects
from medddpm.training.distil import DistilStage, keep_teacher, load_teacher
from medddpm.training.fabric import launch, on_first_process
from medddpm.training.loop import OnLog, run_stage
from medddpm.training.measured import MeasuredScans, pack_repeats
from medddpm.training.options import FinetuneOptions, Options
from medddpm.training.scans import Scans
from medddpm.training.selfsupervised import MeasuredStage
from medddpm.training.stages import (
    AutoencoderStage,
    DiffusionStage,
    FidelityStage,
    JointStage,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

StageName = Literal["autoencoder", "diffusion", "fidelity", "joint", "distil"]

_FROM = "finetuned_from"
"""Of a card: the weights that a run started from."""
_OF_OTHER_WEIGHTS = ("measured", "calibration", "guard")
"""Of a card: what does not hold once the weights change."""


def train_stage(
    stage: StageName,
    options: Options,
    data: Path,
    out: Path,
    *,
    fabric: Fabric | None = None,
    replay: Path | None = None,
    resume: bool = False,
    on_log: OnLog | None = None,
) -> Path:
    """Train one stage and write it into `out`/model.safetensors; returns that path.

    Args:
        stage: "autoencoder" first, then "diffusion", then "fidelity"; "distil" after "diffusion".
        options: All options of the run.
        data: A prepared folder, which `out`/cache links to, or a folder of NIfTI files, which are
            packed into it at first use.
        out: The run folder; with several processes or nodes, all must see it.
        fabric: The processes; by default those of `options.train` are launched.
        replay: Folder of scans that share the training; packed into `out`/replay.
        resume: Continue this stage from its saved state.
        on_log: Called with each logged row.

    Raises:
        ConfigError: No data, no scan left for a half, or an earlier stage is missing.
    """
    fabric = fabric or launch(options.train)
    options = described(options)
    if stage == "distil":
        on_first_process(fabric, lambda: keep_teacher(out))
    scans = _open_scans(fabric, stage, options, out, {"cache": data, "replay": replay}, on_log)
    if _begins_with_codec(stage, options, out) and isinstance(scans, Scans):
        adopt_codec(options, out, scans, fabric)
    model = _model_for(stage, options, out)
    model.requires_grad_(True)
    began = time.monotonic()
    task = _task(stage, model, scans, options, out)
    tuned = _FROM in model.card
    if tuned:
        _narrow(task.network, stage, options.finetune)
    elif isinstance(task, AutoencoderStage) and not (
        resume and (out / stage / "state.safetensors").exists()
    ):
        task.start()
        task.network.load_state_dict(fabric.broadcast(task.network.state_dict()))
    steps = run_stage(task, out / stage, options.train, fabric, resume=resume, on_log=on_log)
    merge_adapters(task.network)
    task.finish(fabric)
    stages = model.card.setdefault("finetuned" if tuned else "stages", {})
    hours = stages.get(stage, {}).get("hours", 0.0) + (time.monotonic() - began) / 3600
    stages[stage] = {
        "steps": steps,
        "hours": round(hours, 3),
        "options": dataclasses.asdict(getattr(options, stage)),
        "data": dataclasses.asdict(options.data),
        "cases": scans.num_cases,
    }
    if tuned:
        stages[stage]["finetune"] = dataclasses.asdict(options.finetune)
    _note_sampler(model, stage)
    model.cpu()
    path = out / "model.safetensors"
    on_first_process(fabric, lambda: save_model(path, model, dtype=torch.float32))
    if on_log and fabric.is_global_zero:
        on_log({"stage": stage, "step": steps, "steps": task.steps, "weights": str(path)})
    return path


def _begins_with_codec(stage: StageName, options: Options, out: Path) -> bool:
    """Whether an imported autoencoder stands for the first stage, which was not trained here."""
    new = stage in ("diffusion", "joint") and not (out / "model.safetensors").exists()
    return new and options.autoencoder.kind == "imported"


def _open_scans(
    fabric: Fabric,
    stage: StageName,
    options: Options,
    out: Path,
    folders: dict[str, Path | None],
    on_log: OnLog | None,
) -> Scans | MeasuredScans:
    """The scans of a run, packed at first use: clean ones, or noisy ones with what is known."""
    objective, patches = options.fidelity.objective, options.train.validation_patches
    if objective != "supervised" and stage != "fidelity":
        raise ConfigError(
            f"the {stage} learns from clean scans and fidelity.objective is {objective}: keep the "
            "shipped one and train only the fidelity decoder, or set it to supervised"
        )
    if objective != "supervised" and folders["replay"] is not None:
        raise ConfigError(
            f"--replay mixes in clean scans, and fidelity.objective is {objective}: leave one out"
        )
    pairs = objective == "pairs"

    def measured() -> MeasuredScans:
        return MeasuredScans(out / "cache", out / "measured", options.data, patches, repeats=pairs)

    def prepare() -> None:
        for line in _packed(out, folders, pairs=pairs):
            if on_log:
                on_log({"stage": "cache", "skipped": line})
        if objective != "supervised":
            measured()  # the noise is estimated here once, and read by the others

    on_first_process(fabric, prepare)
    if objective != "supervised":
        noisy = measured()
        on_first_process(fabric, lambda: record_subjects(out / stage, noisy.train.packed))
        return noisy
    scans = Scans(out / "cache", options.data, patches)
    if folders["replay"] is not None:
        scans.replay(out / "replay", options.finetune.replay)
    on_first_process(fabric, lambda: record_subjects(out / stage, scans.train))
    return scans


def _packed(out: Path, folders: dict[str, Path | None], *, pairs: bool) -> list[str]:
    """Pack what is not packed yet; returns a line for each scan that is left out."""
    left_out: list[str] = []
    for name, folder in folders.items():
        if folder is not None:
            left_out += open_cache(folder, out / name)
    if pairs and folders["cache"] is not None:
        left_out += pack_repeats(folders["cache"], out / "measured")
    return left_out


def _task(
    stage: StageName, model: Model, scans: Scans | MeasuredScans, options: Options, out: Path
) -> AutoencoderStage | DiffusionStage | FidelityStage | JointStage | MeasuredStage | DistilStage:
    if stage in ("fidelity", "joint") and options.train.compile:
        model.shrinkage.weigh = torch.compile(weigh, dynamic=False)
    if isinstance(scans, MeasuredScans):
        return MeasuredStage(model, scans, options.fidelity)
    if stage == "autoencoder":
        return AutoencoderStage(model, scans, options.autoencoder)
    if stage == "diffusion":
        return DiffusionStage(model, scans, options.diffusion)
    if stage == "joint":
        return JointStage(model, scans, options.joint)
    if stage == "distil":
        return DistilStage(model, load_teacher(out), scans, options.distil)
    return FidelityStage(model, scans, options.fidelity)


def _note_sampler(model: Model, stage: StageName) -> None:
    """Write into the card which sampler the U-Net is for, now that this stage has trained."""
    if stage == "distil":
        model.card["sampler"] = "consistency"
    elif stage in ("diffusion", "joint"):
        model.card.pop("sampler", None)


def begin_from(weights: Path, target: Path) -> None:
    """Put weights to fine-tune into a run folder; its card says whose they were.

    What was measured with them does not hold for what becomes of them, so it is left out.

    Raises:
        CheckpointError: They cannot be read.
    """
    model = load_model(weights)
    card = {k: v for k, v in model.card.items() if k not in _OF_OTHER_WEIGHTS}
    origin = {"name": model.card.get("name", ""), "sha256": model.digest}
    with_card(weights, target, card | {"name": "", _FROM: origin})


def _narrow(network: nn.Module, stage: StageName, options: FinetuneOptions) -> None:
    """Leave only what is to be tuned open to training."""
    if options.rank and stage not in ("diffusion", "distil"):
        raise ConfigError(
            f"finetune.rank is {options.rank}, but adapters are for diffusion and distil; the "
            "filters of the others have a unit norm or few weights: use finetune.freeze there"
        )
    if options.rank and options.freeze:
        raise ConfigError("finetune.rank freezes all weights already; leave finetune.freeze empty")
    if options.rank:
        add_adapters(network, options.rank)
    elif options.freeze:
        freeze(network, options.freeze)


def _model_for(stage: StageName, options: Options, out: Path) -> Model:
    """A fresh model, with the earlier stages from the run folder's weights.

    Where the run fine-tunes, all of it is that of the weights, and so are its options.
    """
    torch.manual_seed(options.train.seed)
    path = out / "model.safetensors"
    if path.exists():
        given = load_model(path)
        if _FROM in given.card or stage == "distil":
            return given
    model = fresh_model(options)
    wanted = model.spec
    if stage == "autoencoder":
        return model
    if not path.exists():
        raise ConfigError(f"{path} does not exist; train the autoencoder into {out} first")
    trained = load_model(path)
    if not {"diffusion", "joint"} & set(trained.card.get("stages", {})) and stage == "fidelity":
        raise ConfigError(f"{path} has no trained diffusion network; train that stage first")
    if trained.spec.autoencoder != wanted.autoencoder or (
        stage == "fidelity" and trained.spec.diffusion != wanted.diffusion
    ):
        raise ConfigError(f"the networks of {path} were trained with other options than the config")
    model.codec.load_state_dict(trained.codec.state_dict())
    if stage == "fidelity":
        model.unet.load_state_dict(trained.unet.state_dict())
    model.card = trained.card
    return model
