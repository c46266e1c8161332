"""A restoration in the number type that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from medddpm.io import NumberType, Stored, stored_as
from medddpm.restoration.blank import shown_frame
from medddpm.restoration.restorer import Restored
from medddpm.volume import Volume


def in_type(
    restored: Restored, source: Volume, wanted: NumberType
) -> tuple[Restored, dict[str, Any] | None]:
    """The restoration with the values that its file will hold, and what that cost.

    Maps stay float32: a standard deviation is often below one step.

    Args:
        restored: As it was computed.
        source: The scan as it was read.
        wanted: Number type of the output.
    """
    stored = stored_as(source, wanted)
    if stored is None:
        return restored, None
    data, clipped = stored.rounded(restored.volume.data)
    facts = {"dtype": stored.dtype, "step": abs(stored.slope), "clipped_voxels": clipped}
    return replace(restored, volume=restored.volume.with_data(data)), facts


def type_of(facts: Mapping[str, Any], source: Volume) -> Stored | None:
    """How the image that a sidecar describes is stored; sidecars of before were all float32."""
    return stored_as(source, facts.get("run", {}).get("dtype") or "float32")


def rounding_text(facts: Mapping[str, Any]) -> str:
    """What the number type cost, in words; "" for float32."""
    found = facts.get("rounding")
    if not found:
        return ""
    text = f"rounded to {found['dtype']} in steps of {found['step']:.4g}"
    sigma = facts["frames"][shown_frame(facts)]["sigma"]["sigma"]
    if sigma > 0:
        text += f" ({found['step'] / sigma:.2g} of sigma)"
    if found["step"] > sigma > 0:
        text += "; that is coarser than the noise was, so take float32"
    if found["clipped_voxels"]:
        text += f"; {found['clipped_voxels']} voxels lay beyond the type and were clipped"
    return text
