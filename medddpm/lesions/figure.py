"""The plot of a lesion test: contrast kept, and detectability over that of the noisy scan."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medddpm.lesions.summary import method_name

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
    return _png(figure)


def own_lesion_plot(lines: Sequence[Line]) -> bytes:
    """A PNG with the contrast, volume and contrast-to-noise of real lesions against noise.

    Args:
        lines: Of `real_lesion_trial.summarise_own_lesions`.
    """
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    names = dict.fromkeys((line["method"], line["sigma_source"]) for line in lines)
    shown = (("contrast", "contrast kept"), ("volume", "volume over the clean scan's"))
    for panel, (key, label) in zip(panels, (*shown, ("cnr", "contrast over shell")), strict=True):
        for name in names:
            mine = [x for x in lines if (x["method"], x["sigma_source"]) == name]
            values = np.array(
                [[x[f"{key}_restored{end}"] for end in ("", "_low", "_high")] for x in mine]
            )
            _curve(panel, [x["sigma"] for x in mine], values, method_name(*name))
        panel.set(xlabel="sigma", ylabel=label)
        panel.grid(axis="both", alpha=0.3)
    panels[0].legend(fontsize=7)
    return _png(figure)


def _curves(panel: Any, lines: Sequence[Line], figures: Any) -> None:
    names = dict.fromkeys((line["method"], line["sigma_source"]) for line in lines)
    for name in names:
        mine = [x for x in lines if (x["method"], x["sigma_source"]) == name]
        mine.sort(key=lambda line: float(line["diameter"]))
        values = np.array([figures(line) for line in mine], np.float64)  # None becomes NaN
        sizes = [line["diameter"] for line in mine]
        _curve(panel, sizes, values, method_name(*name))
    panel.axhline(1.0, color="#888888", linewidth=0.8)
    panel.grid(axis="both", alpha=0.3)


def _curve(panel: Any, places: Sequence[float], values: Any, name: str) -> None:
    """A line through the first column, and a band between the two others."""
    [curve] = panel.plot(places, values[:, 0], marker="o", markersize=3, label=name)
    panel.fill_between(
        places, values[:, 1], values[:, 2], color=curve.get_color(), alpha=0.15, linewidth=0
    )


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=95, facecolor="white")
    return stream.getvalue()


def _kept(line: Line) -> list[float | None]:
    return [line["contrast_kept"], line["contrast_kept_low"], line["contrast_kept_high"]]


def _against_noisy(line: Line) -> Any:
    if line["method"] == _BASE:
        return [1.0, 1.0, 1.0]
    if _BASE in line["over"]:
        return line["over"][_BASE]["dprime_hotelling"]
    return [line[f"dprime_hotelling{end}"] for end in ("", "_low", "_high")]
