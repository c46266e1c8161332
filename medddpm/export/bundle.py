"""A MONAI bundle: the weights with what MONAI needs to run, check and fine-tune them."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import files, version
from pathlib import Path
from typing import Any

from medddpm.model.model import Model
from medddpm.share import share_dir
from medddpm.version import __version__

_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
_HERE = "medddpm.export.monai"
_TEXT = """# {name}

{description}

    python -m monai.bundle run --bundle_root . --config_file configs/inference.json \\
        --meta_file configs/metadata.json --dataset_dir scans --output_dir restored

restores every NIfTI file of a folder with the voxels of `medddpm restore`: the same scan, cleaner,
in the same place. `configs/train.json` fine-tunes the fidelity decoder on clean scans of your own.
In a Python program `medddpm.export.monai.RestoreMRId` is a transform like any other.

{use} {limits}
"""


def write_bundle(model: Model, weights: Path, folder: Path) -> None:
    """Write the folder of a bundle.

    Args:
        model: Of the weights.
        weights: Their file, which is copied.
        folder: An empty one.
    """
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir()
    shutil.copyfile(weights, folder / "models" / "model.safetensors")
    texts = {"metadata": _metadata(model), "inference": _inference(), "train": _train()}
    for name, content in texts.items():
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content, indent=4) + "\n")
    card = model.card
    page = _TEXT.format(
        name=card.get("name", "") or "medddpm",
        description=card.get("description", ""),
        use=card.get("intended_use", ""),
        limits=card.get("limits", ""),
    )
    (folder / "docs" / "README.md").write_text(page)
    shutil.copyfile(_licence(), folder / "LICENSE")


def _licence() -> Path:
    """The licence text, in the repository or among the files of the installed package."""
    beside = share_dir() / "LICENSE"
    if beside.is_file():
        return beside
    found = files("medddpm") or []
    return next(Path(str(f.locate())) for f in found if f.name == "LICENSE")


def _metadata(model: Model) -> dict[str, Any]:
    edges = [f"{model.multiple}*n"] * 3
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "spatial_shape": edges,
        "dtype": "float32",
        "value_range": [0, 2],
        "is_patch_data": True,
    }
    noisy = {"0": "noisy scan over its intensity scale", "1": "sigma of its noise, likewise"}
    return {
        "schema": _SCHEMA,
        "version": __version__,
        "changelog": {__version__: f"weights {model.card.get('version', '')}".strip()},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"medddpm": __version__, "nibabel": version("nibabel")},
        "task": "MRI denoising",
        "description": model.card.get("description", "") or "Latent diffusion restoration of MRI",
        "authors": "The medddpm authors",
        "copyright": "Copyright (c) the medddpm authors",
        "data_source": "; ".join(d.get("source", d.get("licence", "")) for d in _data(model)),
        "intended_use": model.card.get("intended_use", ""),
        "network_data_format": {
            "inputs": {"image": image | {"num_channels": 2, "channel_def": noisy}},
            "outputs": {
                "pred": image | {"num_channels": 1, "channel_def": {"0": "restored scan, likewise"}}
            },
        },
    }


def _data(model: Model) -> list[dict[str, Any]]:
    found = model.card.get("training_data", [])
    return [entry for entry in found if isinstance(entry, dict)]


def _network() -> dict[str, Any]:
    return {
        "_target_": f"{_HERE}.BundleNetwork",
        "weights": "$@bundle_root + '/models/model.safetensors'",
    }


def _inference() -> dict[str, Any]:
    each = ["$[@postprocessing(@preprocessing(scan)) for scan in @datalist]"]
    scans = "$[{'image': str(p)} for p in sorted(pathlib.Path(@dataset_dir).glob('*.nii*'))]"
    return {
        "imports": ["$import pathlib"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/restored'",
        "device": "auto",
        "mode": "mean",
        "datalist": scans,
        "network_def": _network(),
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "LoadImaged",
                    "keys": "image",
                    "reader": "NibabelReader",
                    "ensure_channel_first": True,
                }
            ],
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": f"{_HERE}.RestoreMRId",
                    "keys": "image",
                    "weights": "$@bundle_root + '/models/model.safetensors'",
                    "device": "@device",
                    "mode": "@mode",
                },
                {
                    "_target_": "SaveImaged",
                    "keys": "image",
                    "output_dir": "@output_dir",
                    "output_postfix": "desc-denoised",
                    "separate_folder": False,
                    "resample": False,
                },
            ],
        },
        "initialize": [],
        "run": each,
        "inference": each,  # `run` is what MONAI takes if it is told no name
    }


def _train() -> dict[str, Any]:
    return {
        "imports": [
            "$from medddpm.config import load_config",
            "$from medddpm.workflows.training import train",
        ],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/finetuned'",
        "steps": 1000,
        "network_def": _network(),
        "config": "$load_config('default', ['fidelity.steps=' + str(@steps)])",
        "start": "$@bundle_root + '/models/model.safetensors'",
        "initialize": [],
        "run": [
            "$train('fidelity', data=@dataset_dir, out=@output_dir, config=@config, start=@start)"
        ],
    }
