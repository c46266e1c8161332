"""Figures as SVG, whose text stays text: any script, sharp on paper."""

from __future__ import annotations

import io
import warnings
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

_METADATA = ("Creator", "Date", "Format", "Type")
"""What matplotlib would tell of itself, with addresses of vocabularies; left out."""


def svg_of(figure: Figure) -> bytes:
    """The file; the same figure gives the same bytes."""
    stream = io.BytesIO()
    fixed: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "medddpm"}
    with rc_context(fixed), warnings.catch_warnings():
        # The browser draws the text with its own fonts; the one measured with may lack glyphs.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(_METADATA))
    return stream.getvalue()


def inline_svg(figure: Figure, words: str) -> Markup:
    """The figure as an element of an HTML page; `words` say what it shows to a screen reader."""
    content = svg_of(figure).decode("utf-8")
    element = content[content.index("<svg ") + len("<svg ") :]
    return Markup('<svg role="img" aria-label="{}" ').format(words) + Markup(element)
