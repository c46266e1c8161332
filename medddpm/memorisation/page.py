"""The page of a search for copies: each patch beside the training patch nearest to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.report.html import (
    Flag,
    Picture,
    data_uri,
    fold,
    heading,
    html_page,
    paragraph,
    pictures,
)
from medddpm.report.planes import cut, png, shades

Image = NDArray[np.float32]
Pair = tuple[str, Image, Image]
_SIZE = 3
"""Pixels of the page for one of a patch."""
_ABOUT = (
    "A sample is called a copy if it is nearer to a training patch, at any place and in any "
    "orientation, than held-out patches are, but for a share alpha = {alpha:g} of them."
)


def memorisation_page(
    blocks: Sequence[tuple[str, Sequence[Pair]]], facts: Mapping[str, Any]
) -> str:
    """A page with the pairs, the verdict on top.

    Args:
        blocks: Title of each, and its (caption, patch, nearest patch).
        facts: JSON-able: copies, samples, how many are expected, and how it was made.
    """
    found, expected = facts["copies"], facts["copies_expected_by_chance"]
    said = f"{found} of {facts['samples']} samples are called copies; {expected:.1f} are expected"
    said += f" by chance, {facts['training_subjects']} subjects in training."
    verdict = Flag(said) if found > expected else said
    parts = [heading("Copies of training scans", 1), paragraph(verdict)]
    parts.append(paragraph(_ABOUT.format(**facts)))
    for title, pairs in blocks:
        shown = [_picture(patch, caption) for caption, patch, _ in pairs]
        nearest = [_picture(patch, "nearest in training") for _, _, patch in pairs]
        across = max(len(pairs), 1)
        parts += [heading(title), pictures(shown, across), pictures(nearest, across)]
    made = escape(json.dumps(facts, indent=2, sort_keys=True))
    parts.append(fold("How it was made", f"<pre>{made}</pre>"))
    return html_page("Copies of training scans", parts)


def _picture(patch: Image, label: str) -> Picture:
    """Its middle axial plane, up to its own brightest value."""
    plane = cut(patch, 2, patch.shape[2] // 2)
    large = np.repeat(np.repeat(plane, _SIZE, axis=0), _SIZE, axis=1)
    levels = shades(large, 0.0, max(float(plane.max()), 1e-3))
    return Picture(data_uri(png(levels)), label, f"{label}, middle plane")
