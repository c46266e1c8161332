"""Training: three stages that fill one run folder, from the autoencoder to the fidelity decoder.

A run folder holds `cache/` (packed scans), one folder a stage (state, logs, previews) and
`model.safetensors`, which grows stage by stage and can be restored with at any time.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from medddpm.errors import ConfigError
from medddpm.restoration.model import (
    AutoencoderSpec,
    DiffusionSpec,
    FidelitySpec,
    Model,
    ModelSpec,
    load_model,
    save_model,
)
from medddpm.shrinkage import weigh
from medddpm.training.data import build_cache, find_scans
from medddpm.training.fabric import launch, on_first_process
from medddpm.training.loop import OnLog, run_stage
from medddpm.training.options import Options, spec_of
from medddpm.training.stages import AutoencoderStage, DiffusionStage, FidelityStage, Scans

if TYPE_CHECKING:
    from lightning_fabric import Fabric

StageName = Literal["autoencoder", "diffusion", "fidelity"]

__all__ = ["StageName", "train_stage"]


def train_stage(
    stage: StageName,
    options: Options,
    data: Path,
    out: Path,
    *,
    fabric: Fabric | None = None,
    resume: bool = False,
    card: dict[str, Any] | None = None,
    on_log: OnLog | None = None,
) -> Path:
    """Train one stage and write it into `out`/model.safetensors; returns that path.

    Args:
        stage: "autoencoder" first, then "diffusion", then "fidelity".
        options: All options of the run.
        data: Folder of NIfTI files; packed into `out`/cache at first use.
        out: The run folder; with several processes or nodes, all must see it.
        fabric: The processes; by default those of `options.train` are launched.
        resume: Continue this stage from its saved state.
        card: Facts for the model card.
        on_log: Called with each logged row.

    Raises:
        ConfigError: No data, no scan left for a half, or an earlier stage is missing.
    """
    fabric = fabric or launch(options.train)

    def prepare() -> None:
        if not (out / "cache" / "index.json").exists():
            for line in build_cache(find_scans(data), out / "cache"):
                if on_log:
                    on_log({"stage": "cache", "skipped": line})

    on_first_process(fabric, prepare)
    scans = Scans(out / "cache", options.data, options.train.validation_patches)
    model = _model_for(stage, options, out)
    model.requires_grad_(True)
    began = time.monotonic()
    task: AutoencoderStage | DiffusionStage | FidelityStage
    if stage == "autoencoder":
        task = AutoencoderStage(model, scans, options.autoencoder)
        if not (resume and (out / stage / "state.safetensors").exists()):
            task.start()
            task.network.load_state_dict(fabric.broadcast(task.network.state_dict()))
    elif stage == "diffusion":
        task = DiffusionStage(model, scans, options.diffusion)
    else:
        if options.train.compile:
            model.shrinkage.weigh = torch.compile(weigh, dynamic=False)
        task = FidelityStage(model, scans, options.fidelity)
    steps = run_stage(task, out / stage, options.train, fabric, resume=resume, on_log=on_log)
    task.finish(fabric)
    hours = (time.monotonic() - began) / 3600
    model.card |= card or {}
    model.card.setdefault("stages", {})[stage] = {
        "steps": steps,
        "hours": round(model.card.get("stages", {}).get(stage, {}).get("hours", 0.0) + hours, 3),
        "options": dataclasses.asdict(getattr(options, stage)),
        "data": dataclasses.asdict(options.data),
        "cases": len(scans.train.cases),
    }
    model.cpu()
    path = out / "model.safetensors"
    on_first_process(fabric, lambda: save_model(path, model, dtype=torch.float32))
    if on_log and fabric.is_global_zero:
        on_log({"stage": stage, "step": steps, "steps": task.steps, "weights": str(path)})
    return path


def _model_for(stage: StageName, options: Options, out: Path) -> Model:
    """A fresh model, with the earlier stages from the run folder's weights."""
    torch.manual_seed(options.train.seed)
    wanted = ModelSpec(
        spec_of(options.autoencoder, AutoencoderSpec),
        spec_of(options.diffusion, DiffusionSpec),
        spec_of(options.fidelity, FidelitySpec),
    )
    path = out / "model.safetensors"
    model = Model(wanted)
    if stage == "autoencoder":
        return model
    if not path.exists():
        raise ConfigError(f"{path} does not exist; train the autoencoder into {out} first")
    trained = load_model(path)
    if "diffusion" not in trained.card.get("stages", {}) and stage == "fidelity":
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
