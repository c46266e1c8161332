"""Train one stage of the model on a folder of scans."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from medddpm.config import Config, dump_config
from medddpm.errors import ConfigError, MedddpmError, OutputError
from medddpm.generation.distil import PriorDistilStage, Teaching, distil_prior
from medddpm.generation.learning import PriorStage
from medddpm.generation.prior_file import find_prior
from medddpm.generation.train import PRIOR_FILE, train_prior
from medddpm.io import atomic_path
from medddpm.io.outputs import check_targets, write_json
from medddpm.io.provenance import versions
from medddpm.model.model import find_weights, load_model
from medddpm.training.fabric import end_others, launch, leave, on_first_process
from medddpm.training.options import Options
from medddpm.training.reference_run import REFERENCE_FILE, train_reference
from medddpm.training.run import StageName, begin_from, train_stage


def train(
    stage: StageName | Literal["prior", "reference"],
    *,
    data: str | Path,
    out: str | Path,
    config: Config | None = None,
    resume: bool = False,
    start: str | Path | None = None,
    replay: str | Path | None = None,
    prior: str | Path | None = None,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train one stage; returns the weights file, which grows stage by stage.

    The resolved config and the versions are written beside the state of the stage.

    Args:
        stage: "autoencoder" first, then "diffusion" and "fidelity", or both at once as "joint";
            "distil" teaches the diffusion network to draw in few steps; "prior" learns whole
            heads, see `generation.train.train_prior`; "reference" what a second contrast adds, see
            `training.reference_run.train_reference`.
        data: What `medddpm prepare` wrote, or a folder of NIfTI scans, searched through.
        out: Run folder that the three stages share.
        config: The defaults if not given.
        resume: Go on from the saved state, if there is one.
        start: Weights to fine-tune, a shipped name or a file: all networks are theirs. The run
            folder keeps them, so that later stages and a resumed run need not be told. Of "prior":
            a prior to go on from.
        replay: Folder of scans that share the training, so that what was learned is not forgotten.
        prior: A prior to distil in place of the diffusion network, see `distil_prior`.
        on_log: Called with each logged row.
    """
    data, out = Path(data), Path(out)
    replay = None if replay is None else Path(replay)
    config = config or Config()
    if prior is not None and stage != "distil":
        raise ConfigError(f"--prior is what `train distil` distils; leave it out of {stage}")
    if stage == "prior" or prior is not None:
        teacher = None if prior is None else Path(prior)
        return _train_prior(data, out, config, teacher, resume=resume, start=start, on_log=on_log)
    if stage == "reference":
        return _train_reference(data, out, config, resume=resume, start=start, on_log=on_log)
    fabric = launch(config.train)
    options = options_of(config)
    try:
        on_first_process(fabric, lambda: _open(out, stage, config, resume=resume, start=start))
        path = train_stage(
            stage, options, data, out, fabric=fabric, replay=replay, resume=resume, on_log=on_log
        )
    except BaseException:
        end_others(fabric)
        raise
    fabric.barrier()
    leave()
    return path


def _train_prior(
    data: Path,
    out: Path,
    config: Config,
    teacher: Path | None,
    *,
    resume: bool,
    start: str | Path | None,
    on_log: Callable[[dict[str, Any]], None] | None,
) -> Path:
    """Train a prior, or distil one."""
    if start is not None and teacher is not None:
        raise ConfigError("the prior that is distilled is given with --prior; leave out --from")
    stage = PriorStage.name if teacher is None else PriorDistilStage.name
    folder = out / stage
    _refuse_second_run(folder, resume=resume)
    check_targets([out / PRIOR_FILE], overwrite=True)
    _write_record(folder, stage, config, {})
    if teacher is not None:
        teaching = Teaching(config.prior, config.distil, config.train, config.data.holdout)
        return distil_prior(data, out, teacher, teaching, resume=resume, on_log=on_log)
    return train_prior(
        data,
        out,
        config.prior,
        config.train,
        holdout=config.data.holdout,
        start=None if start is None else find_prior(start),
        resume=resume,
        on_log=on_log,
    )


def _train_reference(
    data: Path,
    out: Path,
    config: Config,
    *,
    resume: bool,
    start: str | Path | None,
    on_log: Callable[[dict[str, Any]], None] | None,
) -> Path:
    """Train the reference network beside the shipped weights, or those of `start`."""
    folder = out / "reference"
    _refuse_second_run(folder, resume=resume)
    check_targets([out / REFERENCE_FILE], overwrite=True)
    model = load_model(find_weights("default" if start is None else start))
    _write_record(folder, "reference", config, {})
    return train_reference(
        data,
        out,
        model,
        config.reference,
        config.data,
        config.train,
        resume=resume,
        on_log=on_log,
    )


def _open(
    out: Path, stage: StageName, config: Config, *, resume: bool, start: str | Path | None
) -> None:
    """Make the folder of the stage, with what it is trained by, and the weights it starts from."""
    folder = out / stage
    _refuse_second_run(folder, resume=resume)
    check_targets([out / "model.safetensors"], overwrite=True)
    _write_record(folder, stage, config, _seen(folder, start))
    if start is not None and not (out / "model.safetensors").exists():
        begin_from(find_weights(start), out / "model.safetensors")


def _refuse_second_run(folder: Path, *, resume: bool) -> None:
    if (folder / "state.safetensors").exists() and not resume:
        raise OutputError(
            f"{folder} holds a run already; go on with --resume, or take another --out"
        )


def _write_record(folder: Path, stage: str, config: Config, seen: dict[str, list[str]]) -> None:
    """Write what a stage is trained by, and whom it or its start were trained on."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        with atomic_path(folder / "run.json") as partial:
            write_json(partial, {"stage": stage, "versions": versions(), "subjects": seen})
    except OSError as error:
        if isinstance(error, MedddpmError):
            raise
        raise OutputError(f"cannot write into {folder}: {error.strerror}") from None


def _seen(folder: Path, start: str | Path | None) -> dict[str, list[str]]:
    """Subjects, with their scans, that this stage or the weights it starts from were trained on."""
    places = [folder / "run.json"]
    if start is not None:
        places += sorted(find_weights(start).parent.glob("*/run.json"))
    seen: dict[str, list[str]] = {}
    for path in places:
        if path.is_file():
            subjects = json.loads(path.read_text(encoding="utf-8")).get("subjects", {})
            for subject, scans in subjects.items():
                seen[subject] = sorted({*seen.get(subject, []), *scans})
    return seen


def options_of(config: Config) -> Options:
    """The sections of a config that a training needs."""
    return Options(
        config.data,
        config.autoencoder,
        config.diffusion,
        config.fidelity,
        config.joint,
        config.distil,
        config.train,
        config.finetune,
    )
