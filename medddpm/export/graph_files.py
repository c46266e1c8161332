"""`mean` of a tile as a graph that needs no medddpm: ONNX, OpenVINO or `torch.export`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medddpm.errors import ConfigError, OutputError
from medddpm.model.model import Model
from medddpm.restoration.backends import onnx_runner, openvino_runner, require_packages
from medddpm.restoration.graph import INPUTS, OUTPUT, TileMean, example_inputs, traced, write_onnx
from medddpm.version import __version__

Array = NDArray[np.float32]
Run = Callable[[dict[str, Array]], Array]
_SAME = 1e-3
"""Of the intensity scale: what the file computes may be so far from PyTorch."""
_EDGES = ((32, 48, 64), (48, 32, 32), (32, 32, 32))
_SIGMAS = (0.01, 0.05, 0.15)
_TEXT = """# {name}, `mean` of a tile

`{file}` restores tiles of an MR magnitude that lie on the intensity scale (0 air, about 1 the
brightest tissue). For research; not a medical device.

| input | shape | what |
|---|---|---|
{rows}

Output `{output}`: (B, 1, X, Y, Z). X, Y and Z are multiples of {multiple}, at least {least}.
The noise is {law}.

{how}
"""
_HOW = {
    "onnx": """```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("restored.onnx")
y = np.load("tile.npy").astype("float32")[None, None] / scale  # (1, 1, X, Y, Z), magnitudes
small = [n // {factor} for n in y.shape[2:]]
noise = np.random.default_rng(0).standard_normal((1, {channels}, *small))
given = {{"y": y, "sigma": np.full_like(y, sigma), "spacing": np.float32([[1, 1, 1]]),
         "colour": np.ones((1, 64), "float32"), "noise": noise.astype("float32")}}
restored = session.run(None, given)[0] * scale
```""",
    "openvino": """```python
import openvino

exact = {{"INFERENCE_PRECISION_HINT": "f32"}}
compiled = openvino.Core().compile_model("restored.xml", "CPU", exact)
restored = compiled(given)[0]  # given: a dictionary of the inputs above
```""",
    "pt2": """```python
import torch

graph = torch.export.load("restored.pt2").module()
restored = graph(y, sigma, spacing, colour, noise)
```""",
}
_FILES = {"onnx": "restored.onnx", "openvino": "restored.xml", "pt2": "restored.pt2"}


def write_graph(model: Model, kind: str, folder: Path, coils: int) -> None:
    """Write the graph, a card and a page on how to call it; checked on three tiles.

    Args:
        model: The networks.
        kind: "onnx", "openvino" or "pt2".
        folder: An empty one.
        coils: Of the magnitude: 1 is Rician noise, 0 Gaussian.

    Raises:
        ConfigError: A package is missing, or the networks are none that can be traced.
        OutputError: The file computes something else than PyTorch.
    """
    if kind != "pt2":
        require_packages(kind, "export")
    if coils < 0:
        raise ConfigError(f"coils is {coils}; give 1 for a magnitude, 0 for Gaussian noise")
    graph = TileMean(model, coils).eval()
    path = folder / _FILES[kind]
    run = _written(graph, kind, path)
    apart = largest_difference(graph, run)
    if not apart < _SAME:
        raise OutputError(
            f"the {kind} file computes something else than PyTorch (by {apart:.2g} of the "
            "intensity scale); nothing was kept"
        )
    (folder / "card.json").write_text(json.dumps(_card(model, kind, coils, apart), indent=1) + "\n")
    (folder / "README.md").write_text(_page(model, kind, coils))


def largest_difference(graph: TileMean, run: Run) -> float:
    """Largest difference of a runtime from PyTorch, of the intensity scale, in three tiles."""
    found = []
    for edges, sigma in zip(_EDGES, _SIGMAS, strict=True):
        y, level, *others = example_inputs(graph.model, edges)
        inputs = (y, torch.full_like(level, sigma), *others)
        with torch.inference_mode():
            expected = graph(*inputs).numpy()
        got = run({n: t.numpy() for n, t in zip(INPUTS, inputs, strict=True)})
        found.append(float(np.abs(got - expected).max()))
    return max(found)


def _written(graph: TileMean, kind: str, path: Path) -> Run:
    if kind == "pt2":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No complete tensor")  # a slice of another
            torch.export.save(traced(graph), path)
        loaded = torch.export.load(path).module()
        return lambda inputs: _called(loaded, [torch.from_numpy(inputs[n]) for n in INPUTS])
    if kind == "onnx":
        write_onnx(graph, path)
        return onnx_runner(path)
    import openvino

    between = path.with_suffix(".onnx")
    write_onnx(graph, between)
    openvino.save_model(openvino.Core().read_model(between), path, compress_to_fp16=False)
    between.unlink()
    return openvino_runner(path)


def _called(module: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Array:
    with torch.inference_mode():
        out: Array = module(*inputs).numpy()
    return out


def _shapes(model: Model) -> dict[str, tuple[str, str]]:
    """What each input is, and its shape."""
    auto = model.spec.autoencoder
    small = ", ".join(f"{axis}/{auto.factor}" for axis in "XYZ")
    return {
        "y": ("(B, 1, X, Y, Z)", "noisy tile over the intensity scale of its scan"),
        "sigma": ("(B, 1, X, Y, Z)", "standard deviation of the noise, likewise, at each voxel"),
        "spacing": ("(B, 3)", "voxel edges in mm"),
        "colour": ("(B, 64)", "standard deviation of the noise in each DCT coefficient; 1: white"),
        "noise": (f"(B, {auto.latent_channels}, {small})", "white, of unit variance, any seed"),
    }


def _card(model: Model, kind: str, coils: int, apart: float) -> dict[str, object]:
    return {
        "format": kind,
        "weights": model.card.get("name", ""),
        "sha256": model.digest,
        "medddpm": __version__,
        "coils": coils,
        "inputs": {name: {"shape": s, "what": w} for name, (s, w) in _shapes(model).items()},
        "output": OUTPUT,
        "multiple": model.multiple,
        "largest_difference_from_torch": apart,
        "training_data": model.card.get("training_data", []),
        "intended_use": model.card.get("intended_use", ""),
        "limits": model.card.get("limits", ""),
    }


def _page(model: Model, kind: str, coils: int) -> str:
    auto = model.spec.autoencoder
    return _TEXT.format(
        name=model.card.get("name", "") or "medddpm",
        file=_FILES[kind],
        rows="\n".join(f"| `{n}` | {s} | {w} |" for n, (s, w) in _shapes(model).items()),
        output=OUTPUT,
        multiple=model.multiple,
        least=2 * model.multiple,
        law={0: "Gaussian", 1: "Rician"}.get(coils, f"non-central chi of {coils} coils"),
        how=_HOW[kind].format(channels=auto.latent_channels, factor=auto.factor),
    )
