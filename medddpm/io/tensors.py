"""Tensors in a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from medddpm.io.files import named_in_utf8


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write the file in place; whoever may read what the user makes may read it.

    Args:
        path: In a folder that exists; callers rename it to its last name.
        tensors: Contiguous, on the CPU.
        metadata: Text by name.

    Raises:
        OSError, SafetensorError: It cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode
    with named_in_utf8(path.parent) as folder:
        save_file(dict(tensors), folder / path.name, metadata=metadata)
    path.chmod(mode)  # the library leaves it to the owner alone
