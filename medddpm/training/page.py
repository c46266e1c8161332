"""The page of a run folder: curves of each stage and what its validations looked like."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from medddpm.io import atomic_path
from medddpm.io.outputs import write_html
from medddpm.report.chart import Axis, Series, Style, chart
from medddpm.report.html import heading, html_page, image, paragraph, plots

PAGE = "training.html"
_MOST_POINTS = 400
_STAGES = ("autoencoder", "diffusion", "fidelity", "joint", "distil", "prior", "gan")
_SHOWN = 4
"""Validations whose previews are shown, from the first to the last."""
_ABOUT = (
    "Curves of the logs, by training step. Validation is on held-out patches, with the averaged "
    "weights (EMA); dots are those of the weights as they are. Each noise level is a fraction of "
    "the intensity scale. The page is written again at each validation."
)
_PARTS = {
    "psnr_": "restored, noise ",
    "psnr_plain_": "decoded, noise ",
    "psnr_noisy_": "noisy, noise ",
}
Row = Mapping[str, Any]


def write_training_page(run: Path) -> Path:
    """Write `training.html` in a run folder, of the logs and previews of its stages.

    Args:
        run: It holds a folder for each stage.
    """
    parts = [heading(f"Training: {run.name}", 1), paragraph(_ABOUT)]
    for stage in _STAGES:
        rows = _rows(run / stage / "log.jsonl")
        if rows:
            parts += [heading(f"Stage {stage}, step {rows[-1]['step']}"), *_stage(rows)]
            parts += _previews(run / stage / "previews")
    path = run / PAGE
    with atomic_path(path) as partial:
        write_html(partial, html_page(f"Training: {run.name}", parts))
    return path


def _rows(path: Path) -> list[Row]:
    """The rows of a log; a last line that is being written is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _stage(rows: Sequence[Row]) -> list[str]:
    charts = [_psnr(rows), _explained(rows)]
    for key, title, axis in (
        ("loss", "Training loss", Axis("loss", log=_positive(rows, "loss"))),
        ("closed", "Distance to the teacher that is gone", Axis("share of one step's", least=0.1)),
        ("risk", "Validation risk", Axis("squared error / sigma\u00b2")),
        ("samples_a_second", "Throughput", Axis("patches a second", 0)),
        ("lr", "Learning rate", Axis("learning rate, 1e-4", 0)),
    ):
        steps, values = _curve(rows, key)
        if steps:
            scale = 1e4 if key == "lr" else 1.0
            series = [Series("", steps, [scale * v for v in values])]
            charts.append(chart(title, series, Axis("step", 0), axis, words=f"{title} by step"))
    return [plots(c for c in charts if c)]


def _psnr(rows: Sequence[Row]) -> Markup:
    """Validation PSNR by step, a curve a noise level; of the noisy patches themselves, dashed."""
    keys = [k for row in rows for k in row if re.fullmatch(r"(raw_)?psnr(_.*)?", k)]
    levels: dict[str, int] = {}
    series = []
    for key in dict.fromkeys(keys):
        steps, values = _curve(rows, key)
        level = key.rpartition("_")[2]
        colour = levels.setdefault(level, len(levels))
        style: Style = "dashed" if "noisy" in key else "dots" if "raw" in key else "line"
        series.append(Series(_label(key), steps, values, style=style, colour=colour))
    if not series:
        return Markup("")
    axis = Axis("validation PSNR, dB", least=2)
    words = "Validation PSNR by step and noise level"
    return chart("Validation PSNR", series, Axis("step", 0), axis, words=words)


def _explained(rows: Sequence[Row]) -> Markup:
    """Of a prior: how much of held-out heads it finds again, a curve a noise level."""
    keys = dict.fromkeys(k for row in rows for k in row if k.startswith("explained_"))
    series = [
        Series(f"noise angle {key.removeprefix('explained_')}", *_curve(rows, key), colour=number)
        for number, key in enumerate(keys)
    ]
    if not series:
        return Markup("")
    axis = Axis("share of the variance among heads", least=0.1)
    words = "Share of the variance among held-out heads that is found again, by step"
    return chart("Found again of held-out heads", series, Axis("step", 0), axis, words=words)


def _label(key: str) -> str:
    if key.startswith("raw_"):
        return f"{_label(key.removeprefix('raw_'))}, not averaged"
    for start in sorted(_PARTS, key=len, reverse=True):
        if key.startswith(start):
            return _PARTS[start] + key.removeprefix(start)
    return "round trip"


def _positive(rows: Sequence[Row], key: str) -> bool:
    values = [row[key] for row in rows if key in row]
    return bool(values) and all(v > 0 for v in values if math.isfinite(v))


def _curve(rows: Sequence[Row], key: str) -> tuple[list[float], list[float]]:
    """Steps and values; of a long run the mean of neighbouring points."""
    points = [(row["step"], row[key]) for row in rows if key in row]
    points = [(s, v) for s, v in points if math.isfinite(v)]
    width = -(-len(points) // _MOST_POINTS) or 1
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return [g[-1][0] for g in groups], [sum(v for _, v in g) / len(g) for g in groups]


def _previews(folder: Path) -> list[str]:
    """Some validations from the first to the last, with the labels of their columns."""
    files = sorted(folder.glob("step-*.png"))
    chosen = np.linspace(0, len(files) - 1, min(_SHOWN, len(files))).round().astype(int)
    parts = []
    for file in (files[i] for i in chosen):
        with Image.open(file) as opened:
            columns = str(opened.info.get("Columns", "")).split("\n")
        step = int(file.stem.rpartition("-")[2])
        said = f"Held-out patches at step {step}; columns: {', '.join(filter(None, columns))}"
        parts += [paragraph(said), image(file.read_bytes(), said, fit=True)]
    return parts
