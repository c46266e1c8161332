"""How one number is spread over a group: dots along a line, and bars where dots are too many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

_MOST_DOTS = 60
_BINS = 30
_LEFT, _WIDTH = 12.0, 276.0
_BASE, _TALL = 40.0, 36.0


class Row(Protocol):
    """What is drawn of a result."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    @property
    def values(self) -> Mapping[str, float]:
        """Numbers by key."""


def strip(
    key: str, label: str, form: str, rows: Sequence[Row], apart: Sequence[bool]
) -> dict[str, Any]:
    """A drawing of 300 x 60 for the template of the page.

    Args:
        key: Which number.
        label: Its name.
        form: How it is printed.
        rows: Results.
        apart: Which of them are flagged or outlying: these keep their dot in a large group.
    """
    shown = [(row, far) for row, far in zip(rows, apart, strict=True) if key in row.values]
    values = np.array([row.values[key] for row, _ in shown])
    low, high = float(values.min()), float(values.max())
    crowd = len(shown) > _MOST_DOTS
    dots = [
        {
            "x": _place(row.values[key], low, high),
            "y": 16 + 8 * (i % 3),
            "row": row,
            "text": f"{row.name}: {form.format(row.values[key])}",
        }
        for i, (row, far) in enumerate(shown)
        if far or not crowd
    ]
    return {
        "label": label,
        "dots": dots[: 5 * _MOST_DOTS],
        "bars": _bars(values, low, high) if crowd else [],
        "low": form.format(low),
        "high": form.format(high),
        "middle": form.format(float(np.median(values))),
    }


def _place(value: float, low: float, high: float) -> float:
    return _LEFT + _WIDTH * (value - low) / (high - low) if high > low else _LEFT + _WIDTH / 2


def _bars(values: np.ndarray, low: float, high: float) -> list[dict[str, float]]:
    if not high > low:
        return []
    counts, _ = np.histogram(values, _BINS, (low, high))
    width = _WIDTH / _BINS
    tallest = counts.max()
    return [
        {"x": _LEFT + n * width, "width": width, "y": _BASE - _TALL * c / tallest,
         "height": _TALL * c / tallest}
        for n, c in enumerate(counts.tolist())
        if c
    ]  # fmt: skip
