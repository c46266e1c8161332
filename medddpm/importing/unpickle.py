"""The process that reads a checkpoint of others: `python -m medddpm.importing.unpickle FILE OUT`.

A pickle can hold code. PyTorch is told to accept tensors and plain values only (`weights_only`),
and the process gives up the network before it opens the file, where the system lets it. What
leaves it is a safetensors file and one line of JSON, which hold no code.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # of <linux/sched.h>
_WRAPPERS = ("unet_state_dict", "state_dict", "model_state_dict")
"""Where the weights lie: NV-Generate, Lightning, and the trainers of GenerativeModels."""
_PARALLEL = "module."
"""Before each name if several devices trained."""
_MOST_SAID = 200


class RefusedError(Exception):
    """The file is not what it should be; the message is for a person."""


def leave_network() -> str:
    """Move this process into a network of its own, which leads nowhere; returns what was done.

    Linux alone, as root or where users may make namespaces (unshare(2)). It must come before
    there are threads.
    """
    if not sys.platform.startswith("linux"):
        return "not taken away: this system has no call for it"
    libc = ctypes.CDLL(None, use_errno=True)
    for flags in (_NEW_NETWORK, _NEW_USER | _NEW_NETWORK):
        if libc.unshare(flags) == 0:
            return "none"
    return f"not taken away: {os.strerror(ctypes.get_errno())}"


def read_checkpoint(path: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The tensors of a checkpoint by name, and the numbers that stand beside them.

    Raises:
        RefusedError: It is damaged, or holds other things than weights.
    """
    import torch

    content = _loaded(path)
    if not isinstance(content, dict):
        raise RefusedError(f"holds a {type(content).__name__}, not weights by name")
    wrapper = next((name for name in _WRAPPERS if isinstance(content.get(name), dict)), None)
    weights = content[wrapper] if wrapper else content
    other = [str(name) for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if wrapper and other:
        raise RefusedError(f"holds no tensor under {wrapper} as {other[0]}")
    if other or not weights:
        held = ", ".join(map(str, content))[:_MOST_SAID]
        raise RefusedError(f"holds no weights under {' or '.join(_WRAPPERS)}; it holds {held}")
    beside = {str(k): v for k, v in content.items() if wrapper and _is_number(v)}
    tensors = {str(name).removeprefix(_PARALLEL): tensor for name, tensor in weights.items()}
    return tensors, {name: float(value) for name, value in beside.items()}


def _loaded(path: str) -> Any:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    damaged = (RuntimeError, SafetensorError, EOFError, OSError, LookupError, ValueError, TypeError)
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if wanted := re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)|instruction (\w+)", str(error)):
            name = next(filter(None, wanted.groups()))
            raise RefusedError(
                f"holds more than weights: it asks for {name}. Nothing of it was run; ask its "
                "author for the weights alone, a state_dict"
            ) from error
        raise RefusedError("is no checkpoint of PyTorch, or is damaged; fetch it again") from error
    except PermissionError as error:
        raise RefusedError("may not be read by this user") from error
    except damaged as error:
        text = " ".join(str(error).split())[:_MOST_SAID]
        raise RefusedError(f"is cut short or damaged ({text}); fetch it again") from error


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | str | list | dict):
        return False
    return isinstance(value, int | float) or (hasattr(value, "numel") and value.numel() == 1)


def main(path: str, out: str) -> int:
    """Read the checkpoint and write its tensors; returns the exit status."""
    access = leave_network()
    from safetensors.torch import save_file

    try:
        tensors, numbers = read_checkpoint(path)
    except RefusedError as error:
        sys.stdout.write(json.dumps({"refused": str(error)}))
        return 1
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, out)
    sys.stdout.write(json.dumps({"numbers": numbers, "network_access": access}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
