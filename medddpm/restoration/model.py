"""The three networks as one object, and the weights file that holds them.

A weights file is safetensors (no pickle) with one JSON text in its metadata: format version,
the specification that rebuilds the networks, the schedule, and the model card.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from pydantic import BeforeValidator, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medddpm.autoencoder.codec import LatentCodec
from medddpm.autoencoder.fidelity import FidelityDecoder
from medddpm.autoencoder.vae import CompactVae
from medddpm.diffusion.prediction import TERMINAL_SHARE, Prediction
from medddpm.diffusion.schedule import Schedule
from medddpm.diffusion.unet import LatentUNet
from medddpm.errors import CheckpointError, ConfigError
from medddpm.networks import colour_features, log_spacing, scaled_log_sigma, space_to_depth
from medddpm.shrinkage import Evidence

FORMAT_VERSION = 3
_ARRAYS = "guard."
_FORBID: dict[str, str] = {"extra": "forbid"}
_Positive = Annotated[int, Ge(1)]


def _named_schedule(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class AutoencoderSpec:
    """What rebuilds the autoencoder; `kind` "monai" is MONAI's AutoencoderKL behind the stem."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    kind: Literal["compact", "monai"] = "compact"
    latent_channels: _Positive = 16
    factor: Literal[2, 4, 8] = 4
    encoder_channels: _Positive = 64
    decoder_channels: _Positive = 96
    encoder_blocks: _Positive = 3
    decoder_blocks: _Positive = 5


@dataclass(frozen=True)
class DiffusionSpec:
    """What rebuilds the conditional U-Net, its schedule and what it predicts.

    A config may name the kind of the schedule alone: `schedule: cosine`. A `coloured` network has
    filters of unit norm, sees the voxels of the scan itself, and is told the colour of its noise.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    channels: tuple[_Positive, ...] = (96, 96, 96)
    num_blocks: _Positive = 2
    embedding_width: _Positive = 128
    coloured: bool = False
    prediction: Prediction = "v"
    schedule: Annotated[Schedule, BeforeValidator(_named_schedule)] = field(
        default_factory=Schedule
    )


@dataclass(frozen=True)
class FidelitySpec:
    """What rebuilds the fidelity decoder; without `prior` it is a plain supervised denoiser."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    channels: tuple[_Positive, ...] = (64, 96, 128)
    num_blocks: _Positive = 2
    embedding_width: _Positive = 128
    prior: bool = True
    coloured: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """The whole model."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    autoencoder: AutoencoderSpec = field(default_factory=AutoencoderSpec)
    diffusion: DiffusionSpec = field(default_factory=DiffusionSpec)
    fidelity: FidelitySpec = field(default_factory=FidelitySpec)


def build_codec(spec: AutoencoderSpec) -> LatentCodec:
    """A fresh autoencoder behind its codec."""
    if spec.kind == "monai":
        from medddpm.autoencoder.monai_vae import StemmedAutoencoderKL

        vae: nn.Module = StemmedAutoencoderKL(
            spec.latent_channels, spec.factor, (spec.encoder_channels, spec.decoder_channels)
        )
    else:
        vae = CompactVae(
            spec.latent_channels,
            spec.factor,
            spec.encoder_channels,
            spec.decoder_channels,
            spec.encoder_blocks,
            spec.decoder_blocks,
        )
    return LatentCodec(vae, spec.latent_channels, spec.factor)


class Model(nn.Module):
    """Codec, conditional U-Net and fidelity decoder, with what is known about them.

    `arrays` are what a calibration keeps with the weights, by name; "guard.mean.features".

    Args:
        spec: Rebuilds the networks.
        card: Training data, licences, hours, measured numbers; free-form JSON.
    """

    def __init__(self, spec: ModelSpec, card: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.card = card or {}
        self.arrays: dict[str, NDArray[np.float32]] = {}
        self.digest = ""
        auto, diff, fid = spec.autoencoder, spec.diffusion, spec.fidelity
        self.codec = build_codec(auto)
        blocks = auto.factor**3 * (2 if diff.coloured else 1)
        self.unet = LatentUNet(
            auto.latent_channels,
            blocks + 2 * auto.latent_channels,
            diff.channels,
            diff.num_blocks,
            diff.embedding_width,
            TERMINAL_SHARE[diff.prediction],
            11 if diff.coloured else 4,
            normed=diff.coloured,
        )
        self.fidelity = FidelityDecoder(
            auto.latent_channels,
            auto.factor,
            fid.channels,
            fid.num_blocks,
            fid.embedding_width,
            prior=fid.prior,
            coloured=fid.coloured,
        )
        self.shrinkage = self.fidelity.shrinkage

    @property
    def multiple(self) -> int:
        """Tiles must be multiples of this many voxels along each axis (noise blocks included)."""
        latent: int = self.spec.autoencoder.factor * 2 ** (len(self.spec.diffusion.channels) - 1)
        image: int = 2 * 2 ** (len(self.spec.fidelity.channels) - 1)
        return max(latent, image, 4 * self.spec.autoencoder.factor)

    def observe(
        self,
        y: Tensor,
        sigma: Tensor,
        spacing: Tensor,
        coils: Tensor,
        colour: Tensor | None = None,
    ) -> Evidence:
        """The scan with its shrunk estimate; shapes as in `Evidence` and `Shrinkage`."""
        evidence: Evidence = self.shrinkage(y, sigma, spacing, coils, colour)
        return evidence

    def conditions(self, sigma: Tensor, spacing: Tensor, colour: Tensor) -> Tensor:
        """(B, N), the numbers that the U-Net is told of a scan.

        Args:
            sigma: (B, 1, ...) on the intensity scale; of a map its mean counts.
            spacing: (B, 3) mm.
            colour: (B, 64), as in `Evidence`.
        """
        # In float64 the mean of a map does not depend on how many tiles run together.
        level = sigma.double().flatten(1).mean(dim=1, keepdim=True).float()
        known = [scaled_log_sigma(level), log_spacing(spacing)]
        if self.spec.diffusion.coloured:
            known.append(colour_features(colour))
        return torch.cat(known, dim=1)

    def condition(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """What the U-Net sees of the scan, and the latent of the noisy scan itself.

        Returns:
            (B, f^3 + 2 C, X/f, Y/f, Z/f): voxel blocks of the shrunk scan, the latent of the noisy
            one and that of the shrunk one; before them, for a coloured network, f^3 channels of
            what was shrunk away, in units of sigma; and the latent of the noisy one.
        """
        z_y = self.codec.encode(evidence.y)
        factor = self.spec.autoencoder.factor
        seen = [
            2 * space_to_depth(evidence.base, factor) - 1,
            z_y,
            self.codec.encode(evidence.base),
        ]
        if self.spec.diffusion.coloured:
            noise = (evidence.y - evidence.base) / evidence.sigma.clamp_min(1e-4)
            seen.insert(0, space_to_depth(torch.asinh(noise), factor))
        return torch.cat(seen, dim=1), z_y

    def decode(
        self, evidence: Evidence, z0: Tensor, angle: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """The image of z0 that agrees with the scan, by the fidelity decoder; see there."""
        image: Tensor = self.fidelity(evidence, z0, self.codec.decode(z0), angle, noise)
        return image


def save_model(path: Path, model: Model, *, dtype: torch.dtype = torch.float16) -> None:
    """Write a weights file by atomic rename; statistics of the codec stay float32."""
    tensors = {
        name: (value if name.startswith("codec.latent_") else value.to(dtype)).contiguous().cpu()
        for name, value in model.state_dict().items()
    }
    header = {"version": FORMAT_VERSION, "spec": asdict(model.spec), "card": model.card}
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={"medddpm": json.dumps(header, sort_keys=True)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def with_card(
    path: Path,
    target: Path,
    card: dict[str, Any],
    arrays: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:
    """Write the same weights, in the same precision, with another card and, if given, arrays."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["medddpm"]) | {"card": card}
        tensors = {
            k: file.get_tensor(k)
            for k in file.keys()  # noqa: SIM118
            if not k.startswith(_ARRAYS) or "guard" in card
        }
    tensors |= {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in (arrays or {}).items()}
    save_file(tensors, target, metadata={"medddpm": json.dumps(header, sort_keys=True)})


def load_model(path: Path) -> Model:
    """The model of a weights file, in float32, on the CPU, for inference.

    Raises:
        CheckpointError: The file is missing, cut short, foreign or of another version.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give a .safetensors file in it")
    if not path.is_file():
        raise CheckpointError(f"weights file {path} does not exist; see `medddpm info default`")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("medddpm", "null"))
            tensors = {k: file.get_tensor(k).float() for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"weights file {path} is damaged or cut short ({error}); fetch it again"
        ) from error
    if header is None:
        raise CheckpointError(f"{path} is a safetensors file, but not one of medddpm")
    if header.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"weights file {path} has format version {header.get('version')}, this release "
            f"reads {FORMAT_VERSION}; use matching weights or another release of medddpm"
        )
    try:
        spec = TypeAdapter(ModelSpec).validate_python(header["spec"])
        model = Model(spec, header["card"])
        kept = [name for name in tensors if name.startswith(_ARRAYS)]
        model.arrays = {name: tensors.pop(name).numpy() for name in kept}
        model.load_state_dict(tensors)
    except (ValidationError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"weights file {path} does not fit its own header: {error}"
        ) from error
    model.digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return model.eval().requires_grad_(False)


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """The card of a weights file, and the file's SHA-256, without building the networks."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("medddpm", "{}"))
        with path.open("rb") as raw:
            return dict(header.get("card", {})), hashlib.file_digest(raw, "sha256").hexdigest()
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"weights file {path} cannot be read ({error})") from error


def find_weights(name: str | Path) -> Path:
    """The file of a shipped name such as "default", or the path itself."""
    path = Path(name)
    if path.suffix or path.exists():
        return path
    shipped = Path(str(files("medddpm") / "weights" / f"{name}.safetensors"))
    if not shipped.is_file():
        known = sorted(p.stem for p in shipped.parent.glob("*.safetensors"))
        raise ConfigError(f"no weights are called {str(name)!r}; shipped: {known}, or give a path")
    return shipped
