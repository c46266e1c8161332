"""A weights file as it lies on the disk: its header is checked before anything is built from it.

The file is safetensors, which holds no code; one of its metadata is a JSON text. Whoever made the
file may have written anything there, so types, sizes and depth are checked first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medddpm.errors import CheckpointError
from medddpm.io.files import named_in_utf8
from medddpm.model.card import Card
from medddpm.model.interval import interval_table
from medddpm.model.spec import ModelSpec

FORMAT_VERSION = 3
_KEY = "medddpm"
IMPORTED = "medddpm-imported"
"""The metadata of a network that was imported; see `imported_file`."""
_DEEPEST = 32
_MOST_SAID = 3


@dataclass(frozen=True)
class Header:
    """What stands in front of the weights.

    Attributes:
        spec: Rebuilds the networks.
        card: As it was written; `card.Card` says what it holds at least.
    """

    spec: ModelSpec
    card: dict[str, Any]


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int
    spec: ModelSpec
    card: Card


def header_text(spec: ModelSpec, card: dict[str, Any]) -> dict[str, str]:
    """The metadata of a weights file."""
    header = {"version": FORMAT_VERSION, "spec": asdict(spec), "card": card}
    return {_KEY: json.dumps(header, sort_keys=True)}


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """The safetensors file, open.

    Raises:
        CheckpointError: It is missing, a folder, cut short or damaged.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give a .safetensors file in it")
    if not path.is_file():
        raise CheckpointError(f"weights file {path} does not exist; see `medddpm info default`")
    try:
        with named_in_utf8(path) as name, safe_open(name, framework="pt") as file:
            yield file
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"weights file {path} is damaged or cut short ({error}); fetch it again"
        ) from error


def read_network(path: Path, key: str, what: str) -> tuple[str, dict[str, Tensor]]:
    """The header and the float32 tensors of a file that holds one network beside the model.

    Args:
        path: The file.
        key: Of its header in the metadata.
        what: What it holds, which is also the stage that trains it: "prior", "reference".

    Raises:
        CheckpointError: It is missing, damaged, of another kind, or holds NaN.
    """
    train = f"`medddpm train {what}`"
    if not path.is_file():
        raise CheckpointError(f"{what} {path} does not exist; {train} makes one")
    with open_weights(path) as file:
        text = (file.metadata() or {}).get(key)
        if text is None:
            raise CheckpointError(f"{path} holds no {what} of medddpm; see {train}")
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise CheckpointError(f"{what} {path} is damaged: it holds NaN or infinity; fetch it again")
    return text, tensors


def read_header(file: Any, path: Path) -> Header:
    """The header of an open weights file.

    Args:
        file: Of `open_weights`.
        path: For messages.

    Raises:
        CheckpointError: It is foreign, of another version, or holds what no header may hold.
    """
    metadata = file.metadata() or {}
    text = metadata.get(_KEY)
    if IMPORTED in metadata:
        raise CheckpointError(
            f"{path} is one imported network, not a whole model; `medddpm train diffusion --codec` "
            "trains a model around an autoencoder"
        )
    if text is None:
        raise CheckpointError(f"{path} is a safetensors file, but not one of medddpm")
    header = parsed_header(text, path)
    if not isinstance(header, dict):
        raise damaged(path, f"its header is a {type(header).__name__}, not a mapping")
    version = header.get("version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"weights file {path} has format version {str(version)[:20]}, this release "
            f"reads {FORMAT_VERSION}; use matching weights or another release of medddpm"
        )
    try:
        checked = _Header.model_validate(header)
    except ValidationError as error:
        raise damaged(path, faults(error)) from error
    interval_table(header["card"])
    return Header(checked.spec, header["card"])


def parsed_header(text: str, path: Path) -> Any:
    """The JSON of a header, not deeper than any header is.

    Raises:
        CheckpointError: It is none.
    """
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"its header is no JSON: {type(error).__name__}") from error
    if _depth(header) > _DEEPEST:
        raise damaged(path, f"its header is nested more than {_DEEPEST} deep")
    try:
        text.encode("utf-8")
        json.dumps(header, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise damaged(path, "its header holds half a character") from error
    return header


def _depth(value: Any) -> int:
    """Levels of lists and mappings, counted only until there are too many."""
    level, depth = [value], 0
    while level and depth <= _DEEPEST:
        inside = [v.values() if isinstance(v, dict) else v for v in level if _holds(v)]
        level, depth = [item for part in inside for item in part], depth + 1
    return depth


def _holds(value: Any) -> bool:
    return isinstance(value, dict | list)


def faults(error: ValidationError) -> str:
    """What a header holds that it may not hold, the first few of it."""
    found = error.errors(include_url=False)
    told = [
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in found[:_MOST_SAID]
    ]
    more = len(found) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "")


def damaged(path: Path, why: str) -> CheckpointError:
    """The error that a file cannot be used as it is."""
    return CheckpointError(f"weights file {path} does not fit this release: {why}; fetch it again")
