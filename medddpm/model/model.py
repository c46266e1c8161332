"""The three networks as one object, and the weights file that holds them.

A weights file is safetensors (no pickle) with one JSON text in its metadata: format version,
the specification that rebuilds the networks, the schedule, and the model card.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medddpm.diffusion.prediction import TERMINAL_SHARE
from medddpm.errors import CheckpointError, ConfigError
from medddpm.guard import check_guards
from medddpm.io.tensors import save_tensors
from medddpm.model.blocks import colour_features, log_spacing, scaled_log_sigma, space_to_depth
from medddpm.model.codec import LatentCodec
from medddpm.model.fidelity import FidelityDecoder
from medddpm.model.shrinkage import Evidence
from medddpm.model.spec import AutoencoderSpec, DiffusionSpec, ModelSpec
from medddpm.model.unet import LatentUNet
from medddpm.model.vae import CompactVae
from medddpm.model.weights_file import Header, header_text, open_weights, read_header

if TYPE_CHECKING:
    from medddpm.model.monai_unet import MonaiLatentUNet

_ARRAYS = "guard."
_LONGEST = 300
"""Characters of what torch says; it lists every tensor."""


def build_codec(spec: AutoencoderSpec) -> LatentCodec:
    """A fresh autoencoder behind its codec."""
    vae: nn.Module
    if spec.imported is not None:
        from medddpm.model.imported_vae import ImportedVae

        vae = ImportedVae(spec.imported)
    elif spec.kind == "monai":
        from medddpm.model.monai_vae import StemmedAutoencoderKL

        vae = StemmedAutoencoderKL(
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


def build_unet(spec: DiffusionSpec, auto: AutoencoderSpec) -> LatentUNet | MonaiLatentUNet:
    """A fresh conditional U-Net for the latents of an autoencoder."""
    blocks = auto.factor**3 * (2 if spec.coloured else 1)
    seen = blocks + 2 * auto.latent_channels
    share, known = TERMINAL_SHARE[spec.prediction], 11 if spec.coloured else 4
    if spec.kind == "monai":
        from medddpm.model.monai_unet import MonaiLatentUNet

        return MonaiLatentUNet(
            auto.latent_channels, seen, spec.channels, spec.num_blocks, share, known
        )
    return LatentUNet(spec, auto.latent_channels, seen, share, known)


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
        self.unet = build_unet(diff, auto)
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
    def networks_digest(self) -> str:
        """SHA-256 of the networks alone: a card, or a calibration, does not change it."""
        found = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            found.update(name.encode())
            found.update(value.float().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    @property
    def own_sampler(self) -> str:
        """The sampler that the U-Net was distilled for; empty if it was not distilled."""
        return str(self.card.get("sampler", ""))

    @property
    def multiple(self) -> int:
        """Tiles must be multiples of this many voxels along each axis."""
        latent: int = self.spec.autoencoder.factor * 2 ** (len(self.spec.diffusion.channels) - 1)
        image: int = 2 * 2 ** (len(self.spec.fidelity.channels) - 1)
        return max(latent, image)

    def observe(
        self,
        y: Tensor,
        sigma: Tensor,
        spacing: Tensor,
        coils: Tensor | int,
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
    metadata = header_text(model.spec, model.card)
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(partial, tensors, metadata)
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
    with open_weights(path) as file:
        header = read_header(file, path)
        tensors = {
            k: file.get_tensor(k)
            for k in file.keys()  # noqa: SIM118
            if not k.startswith(_ARRAYS) or "guard" in card
        }
    tensors |= {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in (arrays or {}).items()}
    save_tensors(target, tensors, header_text(header.spec, card))


def load_model(path: Path) -> Model:
    """The model of a weights file, in float32, on the CPU, for inference.

    Raises:
        CheckpointError: The file is missing, cut short, foreign or of another version.
    """
    with open_weights(path) as file:
        header = read_header(file, path)
        tensors = {k: _real(k, file.get_tensor(k)) for k in file.keys()}  # noqa: SIM118
    held = sum(tensor.numel() for tensor in tensors.values())
    if header.spec.least_weights > held:
        raise CheckpointError(
            f"weights file {path} does not fit its own header: it holds {held} numbers, and the "
            f"networks that it describes have {header.spec.least_weights} or more"
        )
    unsound = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if unsound:
        raise CheckpointError(
            f"weights file {path} is damaged: {unsound[0]} holds NaN or infinity; fetch it again"
        )
    arrays = {name: tensors.pop(name).numpy() for name in list(tensors) if name.startswith(_ARRAYS)}
    check_guards(header.card, arrays, header.spec.autoencoder.latent_channels)
    model = _built(header, tensors, path)
    model.arrays = arrays
    model.digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return model.eval().requires_grad_(False)


def _real(name: str, tensor: Tensor) -> Tensor:
    """The tensor in float32."""
    if tensor.is_complex():
        raise ValueError(f"{name} is complex")
    return tensor.float()


def _built(header: Header, tensors: dict[str, Tensor], path: Path) -> Model:
    """The networks of a header with these weights in them."""
    try:
        model = Model(header.spec, header.card)
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:  # of torch, and of MONAI
        text = " ".join(str(error).split())
        raise CheckpointError(
            f"weights file {path} does not fit its own header: {text[:_LONGEST]}"
        ) from error
    return model


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """The card of a weights file, and the file's SHA-256, without building the networks."""
    with open_weights(path) as file:
        header = read_header(file, path)
    with path.open("rb") as raw:
        return header.card, hashlib.file_digest(raw, "sha256").hexdigest()


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
