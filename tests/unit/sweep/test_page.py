"""The page of a sweep, from rows made by hand."""

from __future__ import annotations

import re

from medddpm.sweep.page import sweep_page


def rows(*scores: float) -> list[dict[str, object]]:
    return [
        {"cell": f"c{i}", "state": "done", "diffusion.channels": f"<b>{i}", "psnr": psnr,
         "psnr_0.05": psnr, "ssim": 0.9, "train_seconds": 10.0 * i, "restore_seconds": 0.1}
        for i, psnr in enumerate(scores)
    ]  # fmt: skip


def test_the_best_is_on_top_and_named_by_what_was_tried() -> None:
    page = sweep_page([*rows(30.0, 33.0), {"cell": "late", "state": "failed", "error": "x"}])
    names = re.findall(r"</title>|>(channels[^<]*|late[^<]*)</text>", page.split("</svg>")[0])
    assert [n for n in names if n] == [
        "channels &lt;b&gt;1",
        "channels &lt;b&gt;0",
        "late (failed)",
    ]
    assert "<b>" not in page
    assert page.count("<svg ") == 4
    cells = re.findall(r'<tr><th scope="row">(.*?)</th>', page)
    assert cells == ["c1", "c0", "late"]


def test_the_axis_spans_a_decibel_at_least() -> None:
    spans = []
    for scores in ((30.0, 30.01), (30.0, 33.0)):
        drawing = sweep_page(rows(*scores)).split("</svg>")[0]
        dots = [float(x) for x in re.findall(r'<circle cx="(.*?)"', drawing)]
        spans.append(max(dots) - min(dots))
    assert spans[0] < 5
    assert spans[1] > 100


def test_what_was_not_measured_has_no_chart() -> None:
    page = sweep_page([{"cell": "a", "state": "failed", "error": "x"}])
    assert "<svg" not in page
    assert "failed" in page
