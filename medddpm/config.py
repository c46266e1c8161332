"""One config: what is trained and how scans are restored. YAML in, frozen models out.

Defaults live in the option classes that each room owns, nowhere else; this file only composes
them, reads YAML and applies `--set a.b=c`.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medddpm.errors import ConfigError
from medddpm.generation.options import PriorOptions
from medddpm.io.dicom_write import DicomOptions
from medddpm.io.yaml_text import parse_yaml
from medddpm.reconstruction.options import ReconstructOptions
from medddpm.restoration.options import RestoreOptions, warn_of_idle
from medddpm.share import share_dir
from medddpm.training.options import (
    AutoencoderOptions,
    DataOptions,
    DiffusionOptions,
    DistilOptions,
    FidelityOptions,
    FinetuneOptions,
    JointOptions,
    ReferenceOptions,
    TrainOptions,
)


class Config(BaseModel):
    """Everything that decides a result, apart from the data itself.

    Attributes:
        schema_version: Version of this layout.
        data: Patches, augmentation, split.
        autoencoder: The network x <-> z and its losses.
        diffusion: The denoiser, its schedule and its loss.
        fidelity: The decoder that also sees the scan.
        joint: The training of the last two at once.
        distil: The distillation to few steps.
        prior: What whole heads are drawn from, and its training.
        reference: The network that takes a second contrast, and its training.
        train: Steps, optimiser, precision, logging.
        finetune: What `train --from` changes, and what it replays.
        restore: How a scan is restored.
        reconstruct: How raw data is reconstructed.
        dicom: How derived DICOM is written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    data: DataOptions = Field(default_factory=DataOptions)
    autoencoder: AutoencoderOptions = Field(default_factory=AutoencoderOptions)
    diffusion: DiffusionOptions = Field(default_factory=DiffusionOptions)
    fidelity: FidelityOptions = Field(default_factory=FidelityOptions)
    joint: JointOptions = Field(default_factory=JointOptions)
    distil: DistilOptions = Field(default_factory=DistilOptions)
    prior: PriorOptions = Field(default_factory=PriorOptions)
    reference: ReferenceOptions = Field(default_factory=ReferenceOptions)
    train: TrainOptions = Field(default_factory=TrainOptions)
    finetune: FinetuneOptions = Field(default_factory=FinetuneOptions)
    restore: RestoreOptions = Field(default_factory=RestoreOptions)
    reconstruct: ReconstructOptions = Field(default_factory=ReconstructOptions)
    dicom: DicomOptions = Field(default_factory=DicomOptions)


def load_config(
    source: str | Path | Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> Config:
    """The config of a YAML file, of a shipped name, or the defaults, with overrides applied.

    Args:
        source: A path, a shipped name without suffix ("tiny_cpu"), a mapping, or None.
        overrides: Assignments such as "restore.steps=8"; values are read as YAML.

    A warning names options of `restore` that were set and do nothing beside the others.

    Example:
        >>> load_config(None, ["restore.tile=64"]).restore.tile
        64
    """
    where = "the config" if source is None or isinstance(source, Mapping) else str(source)
    tree = _tree(source)
    for text in overrides:
        _assign(tree, text)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, where)) from None
    names = [text.partition("=")[0].strip().removeprefix("restore.") for text in overrides]
    warn_of_idle(config.restore.idle(names))
    return config


def dump_config(config: Config) -> str:
    """The resolved config as YAML; `load_config` reads it back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def config_path(name: str | Path) -> Path:
    """The file of a config: an existing path, or a shipped name without suffix."""
    path = Path(name)
    if path.is_file():
        return path
    folder = share_dir() / "configs"
    shipped = folder / f"{name}.yaml"
    if path.suffix == "" and path.name == str(name) and shipped.is_file():
        return shipped
    known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
    raise ConfigError(f"no config {str(name)!r}: neither a file nor one of the shipped ({known})")


def _tree(source: str | Path | Mapping[str, Any] | None) -> dict[str, Any]:
    if source is None:
        return {}
    if isinstance(source, Mapping):
        return _copied(source)
    path = config_path(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable as YAML: {error}") from None
    tree = parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping such as 'train:', not {reprlib.repr(tree)}")
    return tree


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _copied(value) if isinstance(value, Mapping) else value for key, value in tree.items()
    }


def _assign(tree: dict[str, Any], text: str) -> None:
    """Apply one "a.b=c" to the tree."""
    field, equals, value = text.partition("=")
    names = field.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"--set takes FIELD=VALUE such as restore.steps=8, got {text!r}")
    parsed = parse_yaml(value, f"--set {field}")
    for name in names[:-1]:
        if tree.get(name) is None:
            tree[name] = {}
        tree = tree[name]
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {field}: {name} is a value, it has no fields")
    tree[names[-1]] = parsed


def _explain(error: ValidationError, where: str) -> str:
    """One line a fault: the path of the field, what is wrong, what was meant."""
    lines = []
    for fault in error.errors(include_url=False):
        path = ".".join(str(part) for part in fault["loc"])
        if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            lines.append(f"{path}: unknown field{_suggestion(fault['loc'])}")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            lines.append(f"{path}: {message} (got {reprlib.repr(fault['input'])})")
    return f"{where}: " + "; ".join(lines)


def _suggestion(location: tuple[int | str, ...]) -> str:
    schema: Any = Config().model_dump()
    for part in location[:-1]:
        schema = schema.get(part, {}) if isinstance(schema, dict) else {}
    close = difflib.get_close_matches(str(location[-1]), list(schema), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(schema)}"
