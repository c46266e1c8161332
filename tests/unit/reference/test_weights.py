"""The weights file of a reference network: what is written is read, and what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from medddpm.errors import CheckpointError
from medddpm.reference.network import ReferenceNetwork, ReferenceSpec
from medddpm.reference.weights import (
    ReferenceCard,
    TrainedReference,
    find_reference_weights,
    load_reference,
    save_reference,
)


@pytest.fixture
def trained() -> TrainedReference:
    torch.manual_seed(0)
    card = ReferenceCard(
        model="0" * 64, scans=("a",), labels=0, held=("b",), steps=1, hours=0.1, figures={"gain": 1}
    )
    return TrainedReference(ReferenceNetwork(ReferenceSpec((8, 8))), card)


def test_what_is_written_is_read(trained: TrainedReference, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_reference(path, trained)
    again = load_reference(find_reference_weights(path))
    assert again.card == trained.card
    assert len(again.digest) == 64
    for name, value in trained.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], value.half().float())


def test_the_shipped_one_is_small_and_belongs_to_the_shipped_weights() -> None:
    from medddpm.model.model import find_weights, load_model

    path = find_reference_weights("reference")
    assert path.stat().st_size < 4e6
    shipped = load_reference(path)
    assert shipped.card.model == load_model(find_weights("default")).networks_digest
    assert shipped.card.figures["gain"] > 0
    assert not any("patient12" in name for name in shipped.card.scans)


def test_what_is_wrong_is_said(trained: TrainedReference, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="train reference"):
        load_reference(tmp_path / "none.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(CheckpointError, match="holds no reference of medddpm"):
        load_reference(foreign)
    path = tmp_path / "own.safetensors"
    with torch.no_grad():
        trained.network.gates.bias.fill_(float("nan"))
    save_reference(path, trained)
    with pytest.raises(CheckpointError, match="NaN"):
        load_reference(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_reference(path)
