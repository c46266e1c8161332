"""`medddpm import`: a checkpoint of others becomes a file that holds no code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medddpm.errors import CheckpointError, ConfigError
from medddpm.importing.names import as_trained, fitted, from_generative, from_medvae, set_aside
from medddpm.importing.reading import Checkpoint, read_foreign
from medddpm.importing.settings import published, read_settings, unet_spec, vae_spec
from medddpm.io.outputs import check_targets, staged
from medddpm.model.imported_file import (
    LONGEST_LINE,
    Imported,
    ImportedCard,
    Part,
    build_imported,
    load_imported,
    save_imported,
)
from medddpm.model.imported_spec import UNetSpec, VaeSpec

Kind = Literal["maisi", "generative", "medvae"]
_TELLTALE: dict[Part, str] = {"autoencoder": "encoder.", "diffusion": "time_embed."}


@dataclass(frozen=True)
class Origin:
    """Whose the weights are, as whoever imports them says; it goes into their card.

    Raises:
        ConfigError: One of them is empty or too long.
    """

    licence: str
    source: str

    def __post_init__(self) -> None:
        for name, text in asdict(self).items():
            if not text.strip() or len(text) > LONGEST_LINE:
                raise ConfigError(
                    f"say the {name} of these weights in 1 to {LONGEST_LINE} characters"
                )


def import_weights(
    path: Path,
    kind: Kind,
    out: Path,
    origin: Origin,
    *,
    settings: Path | None = None,
    scale: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> Path:
    """Convert a checkpoint of others; returns the file, `autoencoder` or `diffusion` in `out`.

    It is read in another process, which runs nothing of it; each tensor must be one of the network
    that the settings describe, and each of the network's must be there.

    Args:
        path: A checkpoint of PyTorch, or safetensors.
        kind: Whose layout it has.
        out: A folder; made if only its last part is missing.
        origin: Licence and source of the weights.
        settings: The file that came with the weights; what NV-Generate publishes by default, for
            MAISI alone.
        scale: What stands for 0 and 1 of the intensity scale where an autoencoder was trained.
        overwrite: Replace what was imported into `out` before.

    Raises:
        ConfigError: The settings are missing, or describe no such network.
        CheckpointError: The file is damaged, holds more than weights, or does not fit.
        OutputError: The result cannot be written.
    """
    given = _given(kind, settings)
    check_targets([out / "autoencoder.safetensors"], overwrite=True, inputs=[path])
    checkpoint = read_foreign(path)
    part = _part(checkpoint)
    target = out / f"{part}.safetensors"
    check_targets([target], overwrite=overwrite, inputs=[path])
    given = given or published(part, checkpoint.tensors)
    spec = vae_spec(kind, given, scale) if part == "autoencoder" else unet_spec(kind, given)
    spec = as_trained(spec, checkpoint.tensors)
    tensors, aside = _converted(spec, checkpoint)
    imported = Imported(spec, _card(kind, origin, checkpoint, aside))
    number_type = getattr(torch, imported.card.number_type)
    with staged(out, "import") as work:
        written = work / target.name
        save_imported(written, imported, {k: v.to(number_type) for k, v in tensors.items()})
        load_imported(written)
    return target


def _card(kind: Kind, origin: Origin, checkpoint: Checkpoint, aside: list[str]) -> ImportedCard:
    types = {tensor.dtype for tensor in checkpoint.tensors.values()}
    return ImportedCard(
        kind=kind,
        licence=origin.licence.strip(),
        source=origin.source.strip(),
        sha256=checkpoint.sha256,
        scale_factor=checkpoint.numbers.get("scale_factor"),
        left_out=tuple(aside),
        number_type="float16" if types == {torch.float16} else "float32",
        network_access=checkpoint.network_access,
    )


def _part(checkpoint: Checkpoint) -> Part:
    """Which network it is, by the names in it."""
    for part, start in _TELLTALE.items():
        if any(name.startswith(start) for name in checkpoint.tensors):
            return part
    names = ", ".join(list(checkpoint.tensors)[:5])
    raise CheckpointError(
        f"{checkpoint.path} is neither an autoencoder nor a diffusion U-Net: it holds {names}"
    )


def _given(kind: Kind, settings: Path | None) -> dict[str, Any]:
    """The settings that were given; none where those that are published may serve."""
    if settings is not None:
        return read_settings(settings)
    if kind != "maisi":
        raise ConfigError(
            f"weights of kind {kind} need --settings FILE: what came with them, as JSON or YAML"
        )
    return {}


def _converted(
    spec: VaeSpec | UNetSpec, checkpoint: Checkpoint
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights by the names of the network, and the names of what belongs to no part of it."""
    try:
        fresh: nn.Module = build_imported(spec)
    except ValueError as error:  # of MONAI
        raise ConfigError(f"MONAI cannot build the network of the settings: {error}") from error
    held, aside = set_aside(spec, checkpoint.tensors)
    if spec.layout == "generative":
        return from_generative(fresh, held, checkpoint), aside
    if isinstance(spec, VaeSpec) and spec.layout == "medvae":
        held = from_medvae(spec, held)
    return fitted(fresh, held, checkpoint), aside
