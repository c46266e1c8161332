"""What a weights' card says of the guard, checked field by field."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]


def _rising(ends: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    low, high = ends
    if low is not None and high is not None and low > high:
        raise ValueError(f"a range from {low} to {high}")
    return ends


_Reach = tuple[Annotated[Number, Field(ge=0)] | None, Annotated[Number, Field(ge=0)] | None]
_Ends = Annotated[tuple[Number | None, Number | None], AfterValidator(_rising)]


class GuardCard(BaseModel):
    """What `medddpm calibrate-guard` found for one mode.

    Attributes:
        options: Of the restorations that it was measured with.
        checks: Names of the columns of the known findings.
        reach: By check, how far below and above what is expected is usual.
        ranges: By check, what is usual for any scan.
        false_alarms: By check, share of good restorations that it flags.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    options: dict[str, Any]
    checks: Annotated[list[str], Field(min_length=1)]
    reach: dict[str, _Reach]
    ranges: Annotated[dict[str, _Ends], Field(min_length=1)]
    false_alarms: dict[str, Share]


GuardCards = Annotated[dict[str, GuardCard], Field(min_length=1)]
"""By mode of the restoration."""
