"""The plot of a lesion test: contrast kept, and detectability over that of the noisy scan."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medddpm.evaluation.lesion_summary import method_name

Line = Mapping[str, Any]
_BASE = "identity"


def lesion_plot(lines: Sequence[Line]) -> bytes:
    """A PNG: a column a noise level, two rows a contrast, a curve a method, with 95 % intervals.

    The second row is d' of the Hotelling observer over that in the noisy scan; without the method
    "identity" it is d' itself.

    Args:
        lines: Of `lesion_summary.summarise_lesions`.
    """
    sigmas = sorted({line["sigma"] for line in lines})
    contrasts = sorted({line["contrast"] for line in lines})
    size = (1 + 2.9 * len(sigmas), 0.8 + 5.0 * len(contrasts))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(2 * len(contrasts), len(sigmas), sharex=True, squeeze=False)
    for column, sigma in enumerate(sigmas):
        for row, contrast in enumerate(contrasts):
            mine = [x for x in lines if (x["sigma"], x["contrast"]) == (sigma, contrast)]
            upper, lower = panels[2 * row][column], panels[2 * row + 1][column]
            upper.set_title(f"sigma {sigma:g}, contrast {contrast:g}", fontsize=9)
            _curves(upper, mine, _kept)
            _curves(lower, mine, _against_noisy)
            upper.set_ylim(0, 1.2)
            lower.set_ylim(bottom=0)
    for row in range(len(contrasts)):
        panels[2 * row][0].set_ylabel("contrast kept")
        panels[2 * row + 1][0].set_ylabel("d', over the noisy scan's")
    for panel in panels[-1]:
        panel.set_xlabel("diameter, mm")
    panels[0][0].legend(fontsize=7)
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=95, facecolor="white")
    return stream.getvalue()


def _curves(panel: Any, lines: Sequence[Line], figures: Any) -> None:
    names = dict.fromkeys((line["method"], line["sigma_source"]) for line in lines)
    for name in names:
        mine = [x for x in lines if (x["method"], x["sigma_source"]) == name]
        mine.sort(key=lambda line: float(line["diameter"]))
        values = np.array([figures(line) for line in mine], np.float64)  # None becomes NaN
        sizes = [line["diameter"] for line in mine]
        [curve] = panel.plot(
            sizes, values[:, 0], marker="o", markersize=3, label=method_name(*name)
        )
        panel.fill_between(
            sizes, values[:, 1], values[:, 2], color=curve.get_color(), alpha=0.15, linewidth=0
        )
    panel.axhline(1.0, color="#888888", linewidth=0.8)
    panel.grid(axis="both", alpha=0.3)


def _kept(line: Line) -> list[float | None]:
    return [line["contrast_kept"], line["contrast_kept_low"], line["contrast_kept_high"]]


def _against_noisy(line: Line) -> Any:
    if line["method"] == _BASE:
        return [1.0, 1.0, 1.0]
    if _BASE in line["over"]:
        return line["over"][_BASE]["dprime_hotelling"]
    return [line[f"dprime_hotelling{end}"] for end in ("", "_low", "_high")]
