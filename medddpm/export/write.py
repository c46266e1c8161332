"""`medddpm export`: one folder, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from medddpm.errors import ConfigError, MedddpmError, OutputError
from medddpm.export.bundle import write_bundle
from medddpm.export.diffusers_folder import write_diffusers
from medddpm.export.graph_files import write_graph
from medddpm.model.model import Model, find_weights, load_model

Kind = Literal["monai-bundle", "diffusers", "onnx", "openvino", "pt2"]
KINDS: tuple[str, ...] = get_args(Kind)
_WRITERS: dict[str, Callable[[Model, Path, Path], None]] = {
    "monai-bundle": write_bundle,
    "diffusers": write_diffusers,
}


def export_weights(
    weights: str | Path, kind: Kind, out: Path, *, coils: int = 1, overwrite: bool = False
) -> Path:
    """Write weights in a format of others; returns the folder.

    What was written is read again by its own runtime and compared with PyTorch before it is kept.

    Args:
        weights: A shipped name or a file.
        kind: The format.
        out: A folder, which must not exist.
        coils: Of the magnitude that a graph is for: 1 is Rician noise, 0 Gaussian.
        overwrite: Replace an existing folder, if it is such an export.

    Raises:
        ConfigError: No such format, a package is missing, or `out` exists.
        CheckpointError: The weights cannot be read.
        OutputError: It cannot be written, or what was written computes something else.
    """
    if kind not in KINDS:
        raise ConfigError(f"no format is called {kind!r}; there are {', '.join(KINDS)}")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already; give another folder or --overwrite")
    path = find_weights(weights)
    model = load_model(path)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write into {out.parent}: {error.strerror}") from error
    try:
        if kind in _WRITERS:
            _WRITERS[kind](model, path, partial)
        else:
            write_graph(model, kind, partial, coils)
        partial.chmod(0o777 & ~_umask())
        if out.exists():
            _check_ours(out, partial)
            shutil.rmtree(out)
        os.replace(partial, out)
    except MedddpmError:  # some of these are errors of the system too
        raise
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _check_ours(out: Path, new: Path) -> None:
    """Refuse to replace a folder that holds other things than an export of this kind."""
    if not out.is_dir():
        raise ConfigError(f"{out} is a file; give a folder")
    other = {p.name for p in out.iterdir()} - {p.name for p in new.iterdir()}
    if other:
        raise ConfigError(
            f"{out} holds {sorted(other)[0]}, which is no part of such an export, so it is not "
            "replaced; give another folder"
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
