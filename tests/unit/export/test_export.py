"""Weights in the formats of others, each run by its own library."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from medddpm.errors import ConfigError, OutputError, ShapeError
from medddpm.export import KINDS, export_weights, graph_files
from medddpm.model.model import load_model
from medddpm.restoration.graph import INPUTS, TileMean, example_inputs
from medddpm.volume import Volume
from medddpm.workflows import restore

Cli = Callable[..., Any]


@pytest.fixture
def bundle(tiny_weights: Path, tmp_path: Path) -> Path:
    return export_weights(tiny_weights, "monai-bundle", tmp_path / "bundle")


@pytest.mark.slow
def test_a_program_of_torch_export(cli: Cli, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "pt2"
    assert cli("export", tiny_weights, "--to", "pt2", "--out", out).exit_code == 0
    program = torch.export.load(out / "restored.pt2").module()
    model = load_model(tiny_weights)
    inputs = example_inputs(model, (48, 32, 32), 2)
    with torch.inference_mode():
        expected = TileMean(model, 1)(*inputs)
        torch.testing.assert_close(program(*inputs), expected, atol=1e-5, rtol=0)
    card = json.loads((out / "card.json").read_text())
    assert card["sha256"] == model.digest
    assert list(card["inputs"]) == list(INPUTS)
    assert "restored.pt2" in (out / "README.md").read_text()


def test_a_file_that_computes_something_else_is_not_kept(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(graph: TileMean, kind: str, path: Path) -> Any:
        path.write_bytes(b"")
        return lambda inputs: inputs["y"] * 0

    monkeypatch.setattr(graph_files, "_written", wrong)
    with pytest.raises(OutputError, match="something else"):
        export_weights(tiny_weights, "pt2", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bad_wishes_are_named(cli: Cli, tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="monai-bundle, diffusers"):
        export_weights(tiny_weights, "keras", tmp_path / "out")  # type: ignore[arg-type]
    done = cli("export", tmp_path / "no.safetensors", "--to", "pt2", "--out", tmp_path / "out")
    assert done.exit_code == 3
    (tmp_path / "file").write_text("")
    done = cli("export", tiny_weights, "--to", "pt2", "--out", tmp_path / "file" / "out")
    assert done.exit_code == 5
    assert not (tmp_path / "out").exists()
    assert "diffusers" in KINDS
    (tmp_path / "mine").mkdir()
    done = cli("export", tiny_weights, "--to", "pt2", "--out", tmp_path / "mine")
    assert done.exit_code == 2
    assert "exists already" in done.stderr
    done = cli(
        "export", tiny_weights, "--to", "monai-bundle", "--out", tmp_path / "mine", "--overwrite"
    )
    assert done.exit_code == 0
    assert (tmp_path / "mine" / "configs").is_dir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds thesis\.txt"):
        export_weights(tiny_weights, "monai-bundle", tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"
    with pytest.raises(ConfigError, match="is a file"):
        export_weights(tiny_weights, "monai-bundle", tmp_path / "file", overwrite=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_graphs_for_other_runtimes(
    tiny_weights: Path, tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(kind, kind))
    pytest.importorskip("onnxscript")
    out = export_weights(tiny_weights, kind, tmp_path / "out", coils=0)
    card = json.loads((out / "card.json").read_text())
    assert card["coils"] == 0
    assert 0 < card["largest_difference_from_torch"] < 1e-4
    if kind == "onnx":  # by nothing but numpy and a runtime, as the page says
        tile = np.random.default_rng(0).random((32, 48, 32)) * 900
        np.save(out / "tile.npy", tile)
        block = (out / "README.md").read_text().split("```python")[1].split("```")[0]
        monkeypatch.chdir(out)
        told = {"scale": 900.0, "sigma": 0.05}
        exec(block, told)
        graph = TileMean(load_model(tiny_weights), 0)
        inputs = [torch.from_numpy(told["given"][name]) for name in INPUTS]  # type: ignore[index]
        with torch.inference_mode():
            expected = 900 * graph(*inputs).numpy()
        np.testing.assert_allclose(told["restored"], expected, atol=0.1)


@pytest.mark.filterwarnings("ignore:NvImgCodec")  # of a reader that is not asked for
def test_a_transform_of_monai_restores_as_the_command_does(
    tiny_weights: Path, noisy_nifti: Path, noisy_phantom: Volume, tmp_path: Path
) -> None:
    from monai.transforms import Compose, LoadImaged

    from medddpm.export.monai import RestoreMRId

    restore(noisy_nifti, tmp_path / "ours.nii.gz", weights=tiny_weights)
    ours = nib.load(tmp_path / "ours.nii.gz")
    load = LoadImaged("image", reader="NibabelReader", ensure_channel_first=True)
    chain = Compose([load, RestoreMRId("image", weights=tiny_weights)])
    found = chain({"image": str(noisy_nifti), "age": 41})
    assert found["age"] == 41
    assert found["image"].shape == (1, *noisy_phantom.data.shape)
    np.testing.assert_array_equal(found["image"].numpy()[0], ours.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(found["image"].affine, ours.affine, atol=1e-6)
    with pytest.raises(ShapeError, match="ensure_channel_first"):
        RestoreMRId("image", weights=tiny_weights)._restored(None, torch.zeros(3, 4, 5))  # type: ignore[arg-type]


def test_the_network_of_a_bundle_fits_what_it_says(bundle: Path) -> None:
    from monai.bundle import ConfigParser, verify_net_in_out

    files = bundle / "configs" / "inference.json", bundle / "configs" / "metadata.json"
    verify_net_in_out(
        net_id="network_def",
        config_file=str(files[0]),
        meta_file=str(files[1]),
        device="cpu",
        n=2,
        bundle_root=str(bundle),
    )
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "train.json"))
    assert parser["steps"] == 1000
    assert (bundle / "LICENSE").read_text().lstrip().startswith("Apache License")


def test_a_bundle_restores_a_folder(
    bundle: Path, tiny_weights: Path, noisy_nifti: Path, tmp_path: Path
) -> None:
    pytest.importorskip("fire")
    restore(noisy_nifti, tmp_path / "ours.nii.gz", weights=tiny_weights)
    scans = tmp_path / "scans"
    scans.mkdir()
    noisy_nifti.rename(scans / noisy_nifti.name)
    named = {
        "config_file": bundle / "configs" / "inference.json",
        "meta_file": bundle / "configs" / "metadata.json",
        "bundle_root": bundle,
        "dataset_dir": scans,
        "output_dir": tmp_path / "restored",
    }
    told = [str(part) for name, value in named.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", *told]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = nib.load(tmp_path / "restored" / "noisy_desc-denoised.nii.gz")
    ours = nib.load(tmp_path / "ours.nii.gz")
    np.testing.assert_array_equal(theirs.get_fdata(), ours.get_fdata())
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-6)
