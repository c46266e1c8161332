"""What runs the networks of `mean`: PyTorch as it is, compiled, ONNX Runtime or OpenVINO."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medddpm.errors import ConfigError, missing_extra
from medddpm.restoration.graph import INPUTS, TileFunction, TileMean, write_onnx
from medddpm.restoration.options import Backend
from medddpm.version import __version__

_NEEDS = {"onnx": ("onnxscript", "onnxruntime"), "openvino": ("onnxscript", "openvino")}


def tile_function(
    name: Backend, graph: TileMean, device: torch.device, digest: str
) -> TileFunction:
    """The function of a graph, run by a backend.

    Args:
        name: Of the backend.
        graph: What to run.
        device: Where PyTorch runs; the others run on the CPU.
        digest: SHA-256 of the weights, by which an exported file is found again; may be empty.

    Raises:
        ConfigError: A package is missing, or the backend does not run there.
    """
    if name == "torch":
        return graph
    if name == "compile":
        compiled: TileFunction = torch.compile(graph, dynamic=False)
        return compiled
    if device.type != "cpu":
        raise ConfigError(f"restore.backend {name} runs on the CPU; use --device cpu, or compile")
    require_packages(name, f"restore.backend {name}")
    run = _runner(name, exported_file(graph, digest))

    def restored(*inputs: Tensor) -> Tensor:
        # Sigma as a map, whatever it is: one file serves both.
        y, sigma, *others = inputs
        whole = (y, sigma.expand_as(y), *others)
        arrays = [np.ascontiguousarray(t.numpy()) for t in whole]
        return torch.from_numpy(run(dict(zip(INPUTS, arrays, strict=True))))

    return restored


def cache_folder() -> Path:
    """Where exported networks are kept: MEDDDPM_CACHE, or the user's cache folder."""
    given = os.environ.get("MEDDDPM_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medddpm"


def exported_file(graph: TileMean, digest: str) -> Path:
    """The ONNX file of a graph, made at first use, which takes a minute or two.

    Raises:
        ConfigError: The cache folder cannot be written.
    """
    name = f"mean-{__version__}-{digest[:16] or 'unsaved'}-coils{graph.coils}.onnx"
    try:
        folder = cache_folder() if digest else Path(tempfile.mkdtemp(prefix="medddpm-"))
        path = folder / name
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            try:
                write_onnx(graph, partial)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the exported networks cannot be kept in {folder} ({error.strerror}); set "
            "MEDDDPM_CACHE to a folder that can be written"
        ) from error
    return path


def require_packages(name: str, what: str) -> None:
    """Refuse a runtime whose packages are missing.

    Args:
        name: "onnx" or "openvino".
        what: Needs it, in words.

    Raises:
        ConfigError: With the command that installs them.
    """
    for package in _NEEDS[name]:
        if not _is_there(package):
            raise ConfigError(f"{what}: " + missing_extra(package, "export"))


def _is_there(package: str) -> bool:
    try:
        import_module(package)
    except ImportError:
        return False
    return True


Run = Callable[[dict[str, Any]], Any]


def onnx_runner(path: Path) -> Run:
    """A function of the inputs of an ONNX file, by name."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]


def openvino_runner(path: Path) -> Run:
    """The same by OpenVINO, of an ONNX file or its own."""
    import openvino

    # Float32, as PyTorch computes: by itself it takes bfloat16 where the processor has it.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    return lambda inputs: compiled(inputs)[0].copy()


_RUNNERS: dict[str, Callable[[Path], Run]] = {"onnx": onnx_runner, "openvino": openvino_runner}


@lru_cache(maxsize=1)
def _runner(name: str, path: Path) -> Run:
    """The runtime of a kept file, loaded once for all frames of a scan."""
    return _RUNNERS[name](path)
