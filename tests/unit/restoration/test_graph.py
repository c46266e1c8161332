"""`mean` of a tile as one function: that of the restorer, traced for any tile, by any runtime."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medddpm.errors import ConfigError
from medddpm.model.model import Model, find_weights, load_model
from medddpm.preprocess.noise_law import RICIAN, NoiseLaw
from medddpm.restoration import backends
from medddpm.restoration.backends import cache_folder, exported_file, tile_function
from medddpm.restoration.graph import TileMean, example_inputs, traced
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.tile import TileRestorer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> Model:
    return load_model(tiny_weights)


def restored(model: Model, law: NoiseLaw, **options: Any) -> np.ndarray:
    tiles = np.random.default_rng(0).random((2, 32, 32, 48), dtype=np.float32)
    chosen = RestoreOptions(bf16="off", shifts=1, **options)
    run = TileRestorer(model, CPU, law, (1.0, 1.0, 2.0), 7, chosen)
    return run.restore(tiles, [(0, 0, 0), (16, 0, 0)], 0)


@pytest.mark.parametrize("law", [replace(RICIAN, sigma=0.05), NoiseLaw("gaussian", 1, 0.1)])
def test_the_graph_is_what_the_networks_compute_one_after_another(
    model: Model, law: NoiseLaw
) -> None:
    """Guidance of a weight that changes nothing takes the way around the graph."""
    around = restored(model, law, cfg_weight=1 + 1e-12)
    np.testing.assert_allclose(restored(model, law), around, atol=1e-6)


def test_sigma_as_a_map_of_one_value_is_sigma(model: Model) -> None:
    y, sigma, *others = example_inputs(model, (32, 32, 32))
    graph = TileMean(model, 1)
    with torch.inference_mode():
        one = graph(y, sigma[:, :, :1, :1, :1], *others)
        torch.testing.assert_close(graph(y, sigma, *others), one, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_traced_graph_serves_other_tiles(model: Model) -> None:
    graph = TileMean(model, 1)
    program = traced(graph).module()
    for edges, tiles in (((32, 48, 64), 1), ((48, 32, 32), 3)):
        inputs = example_inputs(model, edges, tiles)
        with torch.inference_mode():
            expected = graph(*inputs)
            torch.testing.assert_close(program(*inputs), expected, atol=1e-5, rtol=0)
    assert type(graph(*example_inputs(model, (32, 32, 32)))) is torch.Tensor  # no tracer is left


def test_what_a_backend_cannot_run_is_refused(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="runs mode mean"):
        RestoreOptions(mode="sample", backend="onnx")
    with pytest.raises(ConfigError, match="runs on the CPU"):
        tile_function("onnx", TileMean(model, 1), torch.device("cuda"), "")

    def without(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(backends, "import_module", without)
    with pytest.raises(
        ConfigError, match=r"backend openvino: onnxscript is not installed.*\[export\]"
    ):
        tile_function("openvino", TileMean(model, 1), CPU, "")


def test_a_cache_that_cannot_be_written_is_named(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDDDPM_CACHE", str(tmp_path / "file"))
    assert cache_folder() == tmp_path / "file"
    with pytest.raises(ConfigError, match="MEDDDPM_CACHE"):
        exported_file(TileMean(model, 1), "a" * 64)
    monkeypatch.delenv("MEDDDPM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "medddpm"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_other_runtimes_restore_the_same(
    model: Model, backend: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if importlib.util.find_spec({"onnx": "onnxruntime"}.get(backend, backend)) is None:
        pytest.skip(f"{backend} is not installed")
    monkeypatch.setenv("MEDDDPM_CACHE", str(tmp_path))
    law = replace(RICIAN, sigma=0.05)
    found = restored(model, law, backend=backend)
    np.testing.assert_allclose(found, restored(model, law), atol=1e-4)
    before = next(tmp_path.glob("*.onnx")).stat().st_mtime_ns
    restored(model, law, backend=backend)
    assert [p.stat().st_mtime_ns for p in tmp_path.iterdir()] == [before]  # kept, whole


def test_the_second_restoration_may_take_over_the_plain_decoding(head: Any) -> None:
    """It is what all networks make of the moved tile, to a fiftieth of the noise."""
    model = load_model(find_weights("default"))
    noise = np.random.default_rng(0).normal(0, 0.05, (1, 32, 32, 32))
    tiles = (head((32, 32, 32))[None] / 1000 + noise).astype(np.float32)
    law = NoiseLaw("gaussian", 1, 0.05)

    def moved(**options: Any) -> np.ndarray:
        chosen = RestoreOptions(bf16="off", **options)
        run = TileRestorer(model, CPU, law, (1.0, 1.0, 1.0), 7, chosen)
        return run.restore(tiles, [(0, 0, 0)], 0)

    quick, all_anew = moved(), moved(cfg_weight=1 + 1e-12)
    apart = float(np.sqrt(np.mean((quick - all_anew) ** 2)))
    assert 0 < apart < 0.02 * 0.05
