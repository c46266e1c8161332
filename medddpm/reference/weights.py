"""The weights file of a reference network: float16, with its card in the header."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from medddpm.errors import CheckpointError
from medddpm.io import atomic_path
from medddpm.io.tensors import save_tensors
from medddpm.model.blocks import channels_last
from medddpm.model.weights_file import read_network
from medddpm.reference.network import ReferenceNetwork, ReferenceSpec

REFERENCE_VERSION = 1
SHIPPED = "reference"
_KEY = "medddpm_reference"


class ReferenceCard(BaseModel):
    """What a reference network is, and what was measured of it.

    Attributes:
        version: Of this layout.
        model: SHA-256 of the networks whose `mean` it helps, see `Model.networks_digest`.
        scans: What it was trained on, by name.
        labels: Number of label maps beside them.
        held: Held-out scans, by name.
        licences: Of the training data.
        steps: Of the training.
        hours: Of its steps.
        figures: Of the last validation: gain over `mean` in dB, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = REFERENCE_VERSION
    model: str
    scans: tuple[str, ...]
    labels: int
    held: tuple[str, ...]
    licences: str = ""
    steps: int
    hours: float
    figures: dict[str, float]


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid")

    spec: ReferenceSpec
    card: ReferenceCard


@dataclass(frozen=True)
class TrainedReference:
    """A reference network that can be used.

    Attributes:
        network: In float32 on the CPU, for inference.
        card: What it is.
        digest: SHA-256 of its file, "" where it is of none.
    """

    network: ReferenceNetwork
    card: ReferenceCard
    digest: str = ""


def save_reference(path: Path, trained: TrainedReference) -> None:
    """Write the file by atomic rename."""
    tensors = {
        name: value.to(torch.float16).contiguous().cpu()
        for name, value in trained.network.state_dict().items()
    }
    header = _Header(spec=trained.network.spec, card=trained.card).model_dump_json()
    with atomic_path(path) as partial:
        save_tensors(partial, tensors, {_KEY: header})


def find_reference_weights(name: str | Path) -> Path:
    """The shipped file by its name, "reference", or the path itself."""
    if str(name) != SHIPPED:
        return Path(name)
    return Path(str(files("medddpm") / "weights" / SHIPPED / "default.safetensors"))


def load_reference(path: Path) -> TrainedReference:
    """The network of a file, for inference.

    Raises:
        CheckpointError: It is missing, damaged, no reference network, or does not fit its header.
    """
    text, tensors = read_network(path, _KEY, "reference")
    try:
        header = _Header.model_validate_json(text)
        network = ReferenceNetwork(header.spec)
        network.load_state_dict(tensors)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"reference network {path} does not fit its own header ({type(error).__name__}); "
            "train it again or fetch it again"
        ) from error
    channels_last(network)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return TrainedReference(network.eval().requires_grad_(False), header.card, digest)
