"""The page of a lesion test: contrast kept, and detectability over that of the noisy scan."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from medddpm.lesions.summary import method_name
from medddpm.report.chart import Axis, Series, chart
from medddpm.report.html import fold, heading, html_page, paragraph, plots, statement, table

Line = Mapping[str, Any]
Three = Sequence[float | None]
_BASE = "identity"
_ABOUT = (
    "Lesions were put into clean scans, noise was added, and each method restored them. Contrast "
    "kept is the contrast of a lesion after restoration over the true one: 1 keeps it. "
    "Detectability d' is that of a channelised Hotelling observer, over its own in the noisy scan: "
    "above 1 the lesion is easier to find than before. Bars are 95 % bootstrap intervals over "
    "subjects and lesions."
)
_OWN = (
    "Bright lesions that clean scans have of their own, after noise was added and each method "
    "restored them, over the clean scan: 1 keeps them. Bars are 95 % intervals over the lesions."
)
_OWN_FIGURES = {
    "contrast": "contrast / that of the clean scan",
    "volume": "volume / that of the clean scan",
    "cnr": "contrast-to-noise with the tissue around",
}


def lesion_page(lines: Sequence[Line], facts: Mapping[str, Any]) -> str:
    """A page with two charts for each noise level and contrast, and the numbers.

    Args:
        lines: Of `lesions.summary.summarise_lesions`.
        facts: JSON-able: options, versions.
    """
    parts = []
    for sigma, contrast in sorted({(x["sigma"], x["contrast"]) for x in lines}):
        mine = [x for x in lines if (x["sigma"], x["contrast"]) == (sigma, contrast)]
        lesions = max(int(x["lesions"]) for x in mine)
        title = f"Noise {sigma:g} of the scale, contrast {contrast:g}"
        parts.append(heading(f"{title}: {lesions} lesions a size, {mine[0]['scans']} scans"))
        kept = _by_size(mine, "Contrast kept", Axis("contrast kept", 0, least=0.5), _kept)
        found = Axis("d' / that in the noisy scan", 0, least=0.5)
        parts.append(plots([kept, _by_size(mine, "Detectability", found, _against_noisy)]))
        parts.append(table(["method, diameter", "contrast kept", "d' over noisy"], _rows(mine)))
    return _page(_ABOUT, parts, facts)


def own_lesion_page(lines: Sequence[Line], facts: Mapping[str, Any]) -> str:
    """A page with the contrast, volume and contrast-to-noise of real lesions against noise.

    Args:
        lines: Of `lesions.real_trial.summarise_own_lesions`.
        facts: JSON-able: options, versions.
    """
    charts = []
    for key, label in _OWN_FIGURES.items():
        series = _series(lines, "sigma", _own(key))
        axes = Axis("added noise, sigma / intensity scale", low=0), Axis(label, least=0.5)
        charts.append(chart(label.capitalize(), series, *axes, words=label, lines=[1]))
    rows = [
        [f"{_name(x)}, {x['sigma']:g}", *(_told(_own(key)(x)) for key in _OWN_FIGURES)]
        for x in lines
    ]
    return _page(
        _OWN, [plots(charts), table(["method, noise", *_OWN_FIGURES.values()], rows)], facts
    )


def _page(about: str, parts: Sequence[str], facts: Mapping[str, Any]) -> str:
    made = escape(json.dumps(facts, indent=2, sort_keys=True))
    head = [heading("Lesion test", 1), statement("Not a medical device."), paragraph(about)]
    return html_page("Lesion test", [*head, *parts, fold("How it was made", f"<pre>{made}</pre>")])


def _by_size(
    lines: Sequence[Line], title: str, axis: Axis, figures: Callable[[Line], Three]
) -> Markup:
    series = _series(lines, "diameter", figures)
    sizes = Axis("diameter of the lesion, mm", low=0)
    return chart(title, series, sizes, axis, words=f"{axis.label} by diameter", lines=[1])


def _series(lines: Sequence[Line], key: str, figures: Callable[[Line], Three]) -> list[Series]:
    found = []
    for number, name in enumerate(dict.fromkeys(map(_name, lines))):
        mine = sorted((x for x in lines if _name(x) == name), key=lambda x: float(x[key]))
        values = [figures(x) for x in mine]
        middle = [float("nan") if v[0] is None else v[0] for v in values]
        low, high = ([v[end] for v in values] for end in (1, 2))
        found.append(Series(name, [x[key] for x in mine], middle, low, high, colour=number))
    return found


def _rows(lines: Sequence[Line]) -> list[list[str]]:
    return [
        [f"{_name(x)}, {x['diameter']:g} mm", _told(_kept(x)), _told(_against_noisy(x))]
        for x in sorted(lines, key=lambda x: (_name(x), float(x["diameter"])))
    ]


def _told(values: Three) -> str:
    middle, low, high = values
    if middle is None:
        return "n/a"
    return f"{middle:.2f}" + (f" ({low:.2f} to {high:.2f})" if None not in (low, high) else "")


def _name(line: Line) -> str:
    return method_name(line["method"], line["sigma_source"])


def _own(key: str) -> Callable[[Line], Three]:
    return lambda line: [line[f"{key}_restored{end}"] for end in ("", "_low", "_high")]


def _kept(line: Line) -> Three:
    return [line["contrast_kept"], line["contrast_kept_low"], line["contrast_kept_high"]]


def _against_noisy(line: Line) -> Three:
    if line["method"] == _BASE:
        return [1.0, None, None]
    if _BASE in line["over"]:
        ratio: Three = line["over"][_BASE]["dprime_hotelling"]
        return ratio
    return [line[f"dprime_hotelling{end}"] for end in ("", "_low", "_high")]
