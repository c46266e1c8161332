from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medddpm.errors import CheckpointError, ConfigError
from medddpm.model.model import find_weights, load_model, save_model


def test_a_model_comes_back_as_it_was_saved(tiny_weights: Path, tmp_path: Path) -> None:
    model = load_model(tiny_weights)
    again = tmp_path / "again.safetensors"
    save_model(again, model)
    assert again.read_bytes() == tiny_weights.read_bytes()
    other = load_model(again)
    assert other.spec == model.spec
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)
    assert not list(tmp_path.glob("*.partial"))


def test_the_condition_sees_the_scan_and_its_shrunk_estimate(tiny_weights: Path) -> None:
    model = load_model(tiny_weights)
    y = torch.rand(1, 1, 16, 16, 16)
    column = torch.ones(1, 1, 1, 1, 1)
    evidence = model.observe(y, 0.05 * column, torch.ones(1, 3), torch.tensor([1]))
    cond, z_y = model.condition(evidence)
    assert cond.shape == (1, 64 + 4 + 4, 4, 4, 4)
    torch.testing.assert_close(cond[:, 64:68], model.codec.encode(y))
    torch.testing.assert_close(cond[:, 68:], model.codec.encode(evidence.base))
    torch.testing.assert_close(cond[:, 64:68], z_y)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(tmp_path / "no.safetensors")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_model(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 200, 5000])
def test_a_file_cut_short_is_said(tiny_weights: Path, tmp_path: Path, keep: int) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(tiny_weights.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cut short"):
        load_model(cut)


def test_foreign_and_other_versions_are_said(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not one of medddpm"):
        load_model(path)
    save_file({"a": torch.zeros(1)}, path, metadata={"medddpm": '{"version": 99}'})
    with pytest.raises(CheckpointError, match="version 99"):
        load_model(path)


def test_weights_that_do_not_fit_their_header_are_said(tiny_weights: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / "wrong.safetensors"
    tensors = load_file(tiny_weights)
    tensors.pop("codec.latent_mean")
    with safe_open(tiny_weights, framework="pt") as file:
        save_file(tensors, path, metadata=file.metadata())
    with pytest.raises(CheckpointError, match="does not fit"):
        load_model(path)


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="shipped"):
        find_weights("nonsense")
