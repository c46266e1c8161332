"""The processes of a training and their precision."""

from __future__ import annotations

import pytest
import torch

from medddpm.training import fabric
from medddpm.training.options import TrainOptions


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_taken_where_the_processor_has_it(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fabric, "has_bf16", lambda device: fast)
    with fabric.launch(TrainOptions(device="cpu")).autocast():
        out = torch.ones(2, 2) @ torch.ones(2, 2)
    assert out.dtype == (torch.bfloat16 if fast else torch.float32)


def test_bfloat16_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "has_bf16", lambda device: False)
    with fabric.launch(TrainOptions(device="cpu", bf16="on")).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
