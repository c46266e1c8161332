"""How one number is spread over a group: a dot a scan along a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from markupsafe import Markup

_MOST_LINKS = 60
_LEFT, _WIDTH = 12.0, 276.0
_TOP, _TALL = 8.0, 30.0
_GOLDEN = 0.618
"""Of the height, from each dot to the next: neighbours of a crowd do not lie on each other."""
_NOWHERE = "M-99 0h0"


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

    Every scan is a dot of one path, in the order of the rows; those that stand apart, or all of a
    small group, are links on top of it.

    Args:
        key: Which number.
        label: Its name.
        form: How it is printed.
        rows: Results, in the order of the table.
        apart: Which of them are flagged or outlying.
    """
    known = {i: row.values[key] for i, row in enumerate(rows) if key in row.values}
    values = np.array(list(known.values()))
    low, high = float(values.min()), float(values.max())
    few = len(known) <= _MOST_LINKS
    spots = {i: (_place(v, low, high), _TOP + _TALL * (i * _GOLDEN % 1)) for i, v in known.items()}
    links = [i for i in known if few or apart[i]][: 5 * _MOST_LINKS]
    dots = [
        {
            "x": spots[i][0],
            "y": spots[i][1],
            "row": rows[i],
            "text": f"{rows[i].name}: {form.format(known[i])}",
        }
        for i in links
    ]
    path = "".join(
        f"M{spots[i][0]:.1f} {spots[i][1]:.1f}h0" if i in spots else _NOWHERE
        for i in range(len(rows))
    )
    return {
        "key": key,
        "label": label,
        "dots": dots,
        "path": Markup(path),
        "number": len(known),
        "low": form.format(low),
        "high": form.format(high),
        "middle": form.format(float(np.median(values))),
    }


def _place(value: float, low: float, high: float) -> float:
    return _LEFT + _WIDTH * (value - low) / (high - low) if high > low else _LEFT + _WIDTH / 2
