"""The file of an imported network: safetensors, with what rebuilds the network and its card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from torch import Tensor, nn

from medddpm.errors import CheckpointError
from medddpm.io.tensors import save_tensors
from medddpm.model.imported_spec import UNetSpec, VaeSpec
from medddpm.model.weights_file import IMPORTED, damaged, faults, open_weights, parsed_header

Part = Literal["autoencoder", "diffusion"]
LONGEST_LINE = 500
_Line = Annotated[str, StringConstraints(max_length=LONGEST_LINE, pattern=r"\S")]


class ImportedCard(BaseModel):
    """What is known of an imported network.

    Attributes:
        kind: Whose layout it had.
        licence: As whoever imported it said.
        source: As whoever imported it said.
        sha256: Of the file that was imported.
        scale_factor: By which its latents were multiplied for its diffusion network, if it says so.
        left_out: Names of tensors that belong to no part of the network: a discriminator, a loss.
        number_type: Of the weights: "float16", "float32".
        network_access: Whether the process that read the file could reach the network.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["maisi", "generative", "medvae"]
    licence: _Line
    source: _Line
    sha256: str
    scale_factor: float | None = None
    left_out: tuple[str, ...] = ()
    number_type: Literal["float16", "float32"] = "float32"
    network_access: str = ""


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    autoencoder: VaeSpec | None = None
    diffusion: UNetSpec | None = None
    card: ImportedCard


@dataclass(frozen=True)
class Imported:
    """An imported network without its weights."""

    spec: VaeSpec | UNetSpec
    card: ImportedCard

    @property
    def part(self) -> Part:
        """What it is."""
        return "autoencoder" if isinstance(self.spec, VaeSpec) else "diffusion"


def save_imported(path: Path, imported: Imported, tensors: Mapping[str, Tensor]) -> None:
    """Write the file; the folder exists."""
    header = {
        "version": 1,
        imported.part: asdict(imported.spec),
        "card": imported.card.model_dump(mode="json"),
    }
    save_tensors(path, tensors, {IMPORTED: json.dumps(header, sort_keys=True)})


def is_imported(path: Path) -> bool:
    """Whether a safetensors file is an imported network.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    with open_weights(path) as file:
        return IMPORTED in (file.metadata() or {})


def read_imported(path: Path) -> Imported:
    """What stands in front of the weights.

    Raises:
        CheckpointError: It is missing, damaged, or no imported network.
    """
    with open_weights(path) as file:
        text = (file.metadata() or {}).get(IMPORTED)
    if text is None:
        raise CheckpointError(f"{path} is no imported network; `medddpm import` writes those")
    try:
        header = _Header.model_validate(parsed_header(text, path))
    except ValidationError as error:
        raise damaged(path, faults(error)) from error
    spec = header.autoencoder or header.diffusion
    if spec is None or (header.autoencoder and header.diffusion):
        raise damaged(path, "its header describes no network, or two")
    return Imported(spec, header.card)


def load_imported(path: Path) -> tuple[Imported, nn.Module]:
    """The network of MONAI's with its weights, in float32, on the CPU, for inference.

    Raises:
        CheckpointError: As `read_imported`, or its weights do not fit.
    """
    imported = read_imported(path)
    with open_weights(path) as file:
        tensors = {k: file.get_tensor(k).float() for k in file.keys()}  # noqa: SIM118
    held = sum(tensor.numel() for tensor in tensors.values())
    if imported.spec.least_weights > held:
        raise damaged(
            path, f"it holds {held} numbers, and its network {imported.spec.least_weights} or more"
        )
    try:
        network = build_imported(imported.spec)
        network.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:  # of torch, and of MONAI
        raise damaged(path, " ".join(str(error).split())[:300]) from error
    return imported, network.eval().requires_grad_(False)


def build_imported(spec: VaeSpec | UNetSpec) -> nn.Module:
    """A fresh network.

    Raises:
        ValueError: MONAI cannot build it.
    """
    if isinstance(spec, VaeSpec):
        from medddpm.model.imported_vae import build_vae

        vae: nn.Module = build_vae(spec)
        return vae
    from medddpm.model.imported_unet import build_unet

    unet: nn.Module = build_unet(spec)
    return unet
