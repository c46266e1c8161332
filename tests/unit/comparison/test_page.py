"""The page and its table, from rows made by hand; features by hand."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from medddpm.comparison.features import regional_features
from medddpm.comparison.page import Facts, comparison_page

FACTS = Facts("T1w", "3 minutes", learned=33, held=3, count=16, threshold=0.42, made={"a": "<b>"})


def row(method: str, value: float, **more: Any) -> dict[str, Any]:
    figures = {
        f"{name}{end}": value + shift
        for name in ("frechet", "kernel", "nearest", "ms_ssim")
        for end, shift in (("", 0.0), ("_low", -0.1), ("_high", 0.1))
    }
    return {"method": method, "state": "done", **figures, **more}


def page(*rows: dict[str, Any]) -> str:
    image = np.random.default_rng(0).random((2, 20, 24, 20)).astype(np.float32)
    return comparison_page(rows, [("held-out real heads", image), ("gan", image)], FACTS)


def test_table_holds_what_the_rows_hold() -> None:
    measured = {"steps": 120, "train_minutes": 3.04, "weights": 1234567, "copies": 0.25}
    text = page(row("real heads", 0.5), row("gan", 2.0, about="GAN <x>", **measured))
    lines = re.findall(r"<tr><th scope=\"row\">(.*?)</th>(.*?)</tr>", text, re.DOTALL)
    cells = {name: re.findall(r"<td[^>]*>(.*?)</td>", rest) for name, rest in lines}
    assert list(cells) == ["real heads", "gan"]
    assert cells["gan"][:2] == ["120", "3.0"]
    assert "1,234,567" in cells["gan"]
    assert cells["gan"][-1] == "GAN &lt;x&gt;"
    assert "25%" in cells["gan"]
    assert cells["real heads"][0] == ""  # real heads are not trained
    assert "33 scans of T1w (3 more are held out)" in text
    assert "above 0.42" in text
    assert "<b>" not in text.split("How it was made")[1]


def test_pictures_and_charts_are_there() -> None:
    text = page(row("real heads", 0.5), row("gan", 2.0))
    assert text.count("<img ") == 8  # two planes of two heads, twice
    assert text.count("<svg ") == 3
    assert "lacks" not in text


def test_what_failed_and_what_collapsed_stands_out() -> None:
    text = page(
        row("real heads", 0.5),
        row("gan", 0.9, lacks_variety=True, copies=0.5),
        {"method": "flow", "state": "diverged", "error": "flow went up"},
    )
    assert "gan: its draws are more alike (MS-SSIM 0.90) than real heads are (0.50)" in text
    assert "gan: 50% of its draws are copies" in text
    assert "flow: flow went up" in text


def test_features_are_means_and_details_of_quarters() -> None:
    head = torch.zeros(1, 1, 64, 64, 64)
    head[..., :32, 32:] = 0.5  # back (low in A), high
    head += 0.1
    flat = regional_features(head)
    assert flat.shape == (16,)
    assert flat[:4].tolist() == pytest.approx([0.1, 0.6, 0.1, 0.1], abs=0.02)
    rough = head + 0.2 * torch.randn(head.shape, generator=torch.Generator().manual_seed(0)) * (
        torch.arange(64) < 28
    )
    more = regional_features(rough)
    assert float((more - flat)[4]) > 2  # fine detail, back and low
    assert float((more - flat)[5]) == pytest.approx(0, abs=0.2)  # not on top
    assert torch.allclose(more[:4], flat[:4], atol=0.02)


def test_finest_band_is_the_noise_itself() -> None:
    """Averages of 8 keep 1/8 of the power of white noise, spread over the voxels they fill."""
    noise = torch.randn(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    bands = regional_features(noise)[4:].reshape(3, 4).exp().mean(1)
    assert 0.9 < float(bands[0]) < 1.05
    assert float(bands[1] / bands[0]) == pytest.approx(8**-0.5, rel=0.1)
