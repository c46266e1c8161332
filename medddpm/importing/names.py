"""Names of tensors: from those of others to those of the network that is built."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from medddpm.errors import CheckpointError
from medddpm.importing.reading import Checkpoint
from medddpm.model.imported_spec import UNetSpec, VaeSpec

_MOST_SAID = 5
_OLD_PROJECTION = ".proj_attn."
_OF_TRAINING = ("channel_ds.", "channel_proj.", "loss.", "discriminator.")
"""Of a MedVAE checkpoint: what serves its training, or other tasks, and no image."""


def as_trained(spec: VaeSpec | UNetSpec, tensors: Mapping[str, Tensor]) -> VaeSpec | UNetSpec:
    """The network as the weights' own library computed it.

    MONAI GenerativeModels made a projection at the end of attention and never applied it (its
    issue 503, MONAI's issue 7991), so its weights were never trained. MONAI applies it.
    """
    unused = spec.layout == "generative" and any(_OLD_PROJECTION in name for name in tensors)
    return replace(spec, include_fc=False) if unused else spec


def set_aside(
    spec: VaeSpec | UNetSpec, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights without what an image does not pass through, and the names of that."""
    starts = _OF_TRAINING if spec.layout == "medvae" else ()
    aside = [
        name
        for name in tensors
        if name.startswith(starts) or (_OLD_PROJECTION in name and not spec.include_fc)
    ]
    return {name: t for name, t in tensors.items() if name not in aside}, aside


def fitted(
    network: nn.Module, tensors: Mapping[str, Tensor], checkpoint: Checkpoint
) -> dict[str, Tensor]:
    """The tensors, if they are those of the network, each and all.

    Raises:
        CheckpointError: It names those that are missing, unknown or of another shape.
    """
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    faults = {
        "missing": [name for name in wanted if name not in tensors],
        "unknown to this network": [name for name in tensors if name not in wanted],
        "of another shape": [
            f"{name} is {_size(tensors[name].shape)}, not {_size(shape)}"
            for name, shape in wanted.items()
            if name in tensors and tensors[name].shape != shape
        ],
    }
    said = [f"{what}: {_listed(names)}" for what, names in faults.items() if names]
    if said:
        raise CheckpointError(
            f"{checkpoint.path} does not fit the network that its settings describe. "
            f"{'; '.join(said)}. Give --settings FILE, what came with these weights"
        )
    return {name: tensors[name] for name in wanted}


def from_generative(
    network: nn.Module, tensors: Mapping[str, Tensor], checkpoint: Checkpoint
) -> dict[str, Tensor]:
    """Weights of MONAI GenerativeModels by the names that MONAI has now.

    MONAI's own `load_old_state_dict` renames. It passes over what is missing or left, so the
    network holds NaN before, and both are looked for.

    Raises:
        CheckpointError: It names what is missing, unknown or of another shape.
    """
    known = network.state_dict()
    if set(known) == set(tensors):
        return fitted(network, tensors, checkpoint)
    with torch.no_grad():
        for value in known.values():
            value.fill_(torch.nan)
    left = {name: tensor.float() for name, tensor in tensors.items()}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            network.load_old_state_dict(left)  # type: ignore[operator]
    except KeyError as error:
        raise _unfit(checkpoint, f"missing: {error.args[0]}") from error
    except RuntimeError as error:  # of torch: sizes
        raise _unfit(checkpoint, " ".join(str(error).split())[:500]) from error
    missing = [name for name, value in network.state_dict().items() if value.isnan().any()]
    said = {"missing": missing, "unknown to this network": list(left)}
    if missing or left:
        text = "; ".join(f"{what}: {_listed(names)}" for what, names in said.items() if names)
        raise _unfit(checkpoint, text)
    return {name: value.clone() for name, value in network.state_dict().items()}


def _unfit(checkpoint: Checkpoint, why: str) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint.path} does not fit the network that its settings describe. {why}. Give "
        "--settings FILE, what came with these weights"
    )


def from_medvae(spec: VaeSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of MedVAE by the names of the network that is built; unknown names stay.

    Both are latent diffusion's autoencoder (Rombach et al. 2022): theirs is a tree of levels,
    MONAI's a list of blocks. Their attention has convolutions of one voxel, MONAI's linear maps,
    and their mean and log variance come from one convolution.
    """
    table = dict(_pairs("encoder", _encoder_blocks(spec)))
    table |= dict(_pairs("decoder", _decoder_blocks(spec)))
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, _, last = name.rpartition(".")
        if stem == "quant_conv":
            parts = tensor.chunk(2)
            found[f"quant_conv_mu.conv.{last}"] = parts[0].contiguous()
            found[f"quant_conv_log_sigma.conv.{last}"] = parts[1].contiguous()
        elif stem == "post_quant_conv":
            found[f"post_quant_conv.conv.{last}"] = tensor
        else:
            new = table.get(stem, stem)
            linear = ".attn." in new and tensor.ndim > 1
            found[f"{new}.{last}"] = tensor.flatten(1) if linear else tensor
    return found


_RESIDUAL = {
    "norm1": "norm1",
    "conv1": "conv1.conv",
    "norm2": "norm2",
    "conv2": "conv2.conv",
    "nin_shortcut": "nin_shortcut.conv",
}
_ATTENTION = {
    "norm": "norm",
    "q": "attn.to_q",
    "k": "attn.to_k",
    "v": "attn.to_v",
    "proj_out": "attn.out_proj",
}
_MIDDLE = [("mid.block_1", _RESIDUAL), ("mid.attn_1", _ATTENTION), ("mid.block_2", _RESIDUAL)]
_Block = tuple[str, dict[str, str]]


def _encoder_blocks(spec: VaeSpec) -> Iterator[_Block]:
    """Theirs, in the order of MONAI's list, with what lies within each."""
    yield "conv_in", {"": "conv"}
    for level, count in enumerate(spec.num_res_blocks):
        yield from _level(f"down.{level}", count, attention=spec.attention_levels[level])
        if level < len(spec.num_res_blocks) - 1:
            yield f"down.{level}.downsample", {"conv": "conv.conv"}
    yield from _MIDDLE
    yield from _END


def _decoder_blocks(spec: VaeSpec) -> Iterator[_Block]:
    yield "conv_in", {"": "conv"}
    yield from _MIDDLE
    for level, count in reversed(list(enumerate(spec.num_res_blocks))):
        yield from _level(f"up.{level}", count + 1, attention=spec.attention_levels[level])
        if level > 0:
            yield f"up.{level}.upsample", {"conv": "postconv.conv"}
    yield from _END


_END: list[_Block] = [("norm_out", {"": ""}), ("", {}), ("conv_out", {"": "conv"})]
"""The one without a name is the activation."""


def _level(name: str, count: int, *, attention: bool) -> Iterator[_Block]:
    for number in range(count):
        yield f"{name}.block.{number}", _RESIDUAL
        if attention:
            yield f"{name}.attn.{number}", _ATTENTION


def _pairs(half: str, blocks: Iterator[_Block]) -> Iterator[tuple[str, str]]:
    """Their name and MONAI's of each thing that holds weights."""
    for number, (theirs, inside) in enumerate(blocks):
        for old, new in inside.items():
            before = ".".join(filter(None, (half, theirs, old)))
            yield before, ".".join(filter(None, (half, "blocks", str(number), new)))


def _size(shape: torch.Size) -> str:
    return " x ".join(map(str, shape))


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_SAID
    return ", ".join(names[:_MOST_SAID]) + (f" and {more} more" if more > 0 else "")
