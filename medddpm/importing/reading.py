"""Reading a checkpoint of others in a process of its own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from medddpm.errors import CheckpointError


@dataclass(frozen=True)
class Checkpoint:
    """What a file of others holds.

    Attributes:
        path: The file.
        tensors: By the name that they have there.
        numbers: What stands beside them, such as `scale_factor`.
        sha256: Of the file.
        network_access: Of the process that read it: "none", or why it still had some.
    """

    path: Path
    tensors: dict[str, Tensor]
    numbers: dict[str, float]
    sha256: str
    network_access: str


def read_foreign(path: Path) -> Checkpoint:
    """The checkpoint; nothing that it holds is run.

    Raises:
        CheckpointError: It is missing, damaged, holds more than weights, or holds NaN.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist, or is no file; give a checkpoint")
    with tempfile.TemporaryDirectory(prefix="medddpm-") as folder:
        out = Path(folder) / "tensors.safetensors"
        said = _unpickled(path, out)
        tensors = load_file(out)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds NaN, infinity or no real numbers")
    with path.open("rb") as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
    return Checkpoint(path, tensors, said["numbers"], digest, said["network_access"])


def _unpickled(path: Path, out: Path) -> dict[str, Any]:
    """Run the other process; returns what it said."""
    # -P: no module is taken from the folder that the command runs in
    reader = [sys.executable, "-P", "-m", "medddpm.importing.unpickle"]
    command = [*reader, str(path.absolute()), str(out)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise CheckpointError(
            f"{path} could not be read: the process that reads it ended with status "
            f"{done.returncode} ({''.join(last)[:200]})"
        ) from None
    if "refused" in said:
        raise CheckpointError(f"{path} {said['refused']}")
    return said
