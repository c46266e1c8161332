"""Describe weights or a scan, without patient data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from medddpm.errors import ConfigError, VolumeReadError
from medddpm.io import OnError, read_volumes
from medddpm.preprocess.intensity import intensity_scale
from medddpm.preprocess.values import look, measure_noise
from medddpm.volume import Volume
from medddpm.workflows.provenance import describe_input


def info(subject: str | Path, *, on_error: OnError | None = None) -> dict[str, Any]:
    """What is known of a shipped model, a weights file, or a scan; JSON-able.

    Args:
        subject: A shipped name such as "default", a .safetensors file, or a scan.
        on_error: Called with the error of each bad series of a folder, and the others are
            described; without it the first error is raised.
    """
    path = Path(subject)
    is_name = path.suffix == "" and path.name == str(subject) and not path.exists()
    if is_name or path.suffix == ".safetensors":
        return _describe_weights(subject)
    volumes = read_volumes(path, force=True, on_error=on_error)
    return {"scans": [_describe_scan(volume) for volume in volumes]}


def _describe_weights(subject: str | Path) -> dict[str, Any]:
    from medddpm.restoration.model import find_weights, load_model

    path = find_weights(subject)
    model = load_model(path)
    networks = {"codec": model.codec, "unet": model.unet, "fidelity": model.fidelity}
    parameters = {
        name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()
    }
    return {
        "weights": path.stem,
        "sha256": model.digest,
        "parameters": parameters,
        "spec": asdict(model.spec),
        "card": model.card,
    }


def _describe_scan(volume: Volume) -> dict[str, Any]:
    try:
        seen = look(volume.frame(0), "rician")
        noise = measure_noise(seen, spacing=volume.spacing)
        facts: dict[str, Any] = {
            "intensity_scale": intensity_scale(seen.image),
            "noise": asdict(noise),
            "values": seen.summary,
        }
    except (ConfigError, VolumeReadError) as error:
        facts = {"noise": None, "note": str(error)}
    return {
        **describe_input(volume),
        "modality": volume.modality,
        "affine": volume.affine.tolist(),
        "num_frames": volume.num_frames,
        **facts,
    }
