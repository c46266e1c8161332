"""A restoration in the number type that was asked for."""

from __future__ import annotations

from dataclasses import replace

from medddpm.io import NumberType, Stored, stored_as
from medddpm.io.sidecar import RoundingFacts, Sidecar
from medddpm.restoration.restorer import Restored
from medddpm.volume import Volume


def in_type(
    restored: Restored, source: Volume, wanted: NumberType
) -> tuple[Restored, RoundingFacts | None]:
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
    facts = RoundingFacts(dtype=stored.dtype, step=abs(stored.slope), clipped_voxels=clipped)
    return replace(restored, volume=restored.volume.with_data(data)), facts


def type_of(facts: Sidecar, source: Volume) -> Stored | None:
    """How the image that a sidecar describes is stored."""
    return stored_as(source, facts.run.dtype)


def rounding_text(facts: Sidecar) -> str:
    """What the number type cost, in words; "" for float32."""
    found = facts.rounding
    if not found:
        return ""
    text = f"rounded to {found.dtype} in steps of {found.step:.4g}"
    sigma = facts.shown.sigma.sigma
    if sigma > 0:
        text += f" ({found.step / sigma:.2g} of sigma)"
    if found.step > sigma > 0:
        text += "; that is coarser than the noise was, so take float32"
    if found.clipped_voxels:
        text += f"; {found.clipped_voxels} voxels lay beyond the type and were clipped"
    return text
