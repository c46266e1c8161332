"""A pipeline folder of diffusers: a component a folder, safetensors, and code that loads it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from medddpm.errors import ConfigError, missing_extra
from medddpm.io.tensors import save_tensors
from medddpm.model.model import Model
from medddpm.version import __version__

_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
_PREDICTIONS = {"v": "v_prediction", "eps": "epsilon", "x0": "sample"}
_PIPELINE = '''"""Loaded by DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)."""

from medddpm.export.diffusers_pipeline import MedddpmPipeline  # noqa: F401
'''
_COMPONENT = '''"""Loaded by DiffusionPipeline.from_pretrained; the network is medddpm's."""

from medddpm.export.diffusers_pipeline import {name}  # noqa: F401
'''
COMPONENTS = {"vae": "MedddpmCodec", "unet": "MedddpmUNet", "fidelity": "MedddpmFidelity"}


def write_diffusers(model: Model, weights: Path, folder: Path) -> None:
    """Write the folder.

    Args:
        model: Of the weights.
        weights: Their file.
        folder: An empty one.

    Raises:
        ConfigError: The schedule or the prediction is none that diffusers has.
    """
    del weights
    diffusion = model.spec.diffusion
    kind, predicted = (
        _SCHEDULES.get(diffusion.schedule.kind),
        _PREDICTIONS.get(diffusion.prediction),
    )
    if kind is None or predicted is None:
        raise ConfigError(
            f"diffusers has no schedule {diffusion.schedule.kind} with prediction "
            f"{diffusion.prediction}; train with one of {sorted(_SCHEDULES)} and "
            f"{sorted(_PREDICTIONS)}, or export to onnx"
        )
    try:
        import diffusers
    except ImportError as error:
        raise ConfigError(missing_extra("diffusers", "peers")) from error

    given: dict[str, Any] = {"num_train_timesteps": diffusion.schedule.num_timesteps}
    if kind == "linear":
        given |= {"beta_start": 1e-4, "beta_end": 0.02}
    if kind == "scaled_linear":
        given |= {"beta_start": 0.0015, "beta_end": 0.0195}
    scheduler = diffusers.DDIMScheduler(
        **given,
        beta_schedule=kind,
        prediction_type=predicted,
        rescale_betas_zero_snr=diffusion.schedule.zero_terminal_snr,
        clip_sample=False,
        timestep_spacing="trailing",
    )
    scheduler.save_pretrained(folder / "scheduler")
    parts: dict[str, nn.Module] = {
        "vae": model.codec,
        "unet": model.unet,
        "fidelity": model.fidelity,
    }
    spec = asdict(model.spec)
    for name, network in parts.items():
        (folder / name).mkdir()
        tensors = {f"network.{k}": v.contiguous() for k, v in network.state_dict().items()}
        file = folder / name / "diffusion_pytorch_model.safetensors"
        save_tensors(file, tensors, {"format": "pt"})
        config = {
            "_class_name": COMPONENTS[name],
            "_diffusers_version": diffusers.__version__,
            "spec": spec,
        }
        (folder / name / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (folder / name / f"{name}.py").write_text(_COMPONENT.format(name=COMPONENTS[name]))
    index = {
        "_class_name": ["pipeline", "MedddpmPipeline"],
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "DDIMScheduler"],
    } | {name: [name, kind] for name, kind in COMPONENTS.items()}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "pipeline.py").write_text(_PIPELINE)
    card = {
        "medddpm": __version__,
        "weights": model.card.get("name", ""),
        "sha256": model.digest,
        "training_data": model.card.get("training_data", []),
        "intended_use": model.card.get("intended_use", ""),
        "limits": model.card.get("limits", ""),
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
