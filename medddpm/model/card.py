"""The parts of a weights' card that a program reads, checked; the rest of a card is free-form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medddpm.guard.card import GuardCards, Number
from medddpm.model.interval import IntervalCard

_OPEN = ConfigDict(extra="allow", frozen=True)
_Positive = Annotated[Number, Field(gt=0)]


class CalibrationCard(IntervalCard):
    """What `medddpm calibrate` found: the table of intervals, and how well it held."""

    options: dict[str, Any] = Field(default_factory=dict)
    scans: int | None = None
    subjects: int | None = None
    coverage_of_other_subjects: dict[_Positive, dict[str, Number]] = Field(default_factory=dict)
    reliability: tuple[tuple[Number, Number], ...] = ()
    risk_coverage: tuple[tuple[Number, Number, Number], ...] = ()

    @model_validator(mode="after")
    def _counted(self) -> CalibrationCard:
        if self.coverage_of_other_subjects and None in (self.scans, self.subjects):
            raise ValueError("a coverage without the number of scans and subjects")
        return self


class _StageOptions(BaseModel):
    model_config = _OPEN

    cond_dropout: Number = 0.0


class StageCard(BaseModel):
    """How one stage was trained."""

    model_config = _OPEN

    hours: Number = 0.0
    data: dict[str, Any] = Field(default_factory=dict)
    options: _StageOptions = _StageOptions()


OwnSampler = Literal["", "consistency"]
"""Sampler that a network was distilled for; empty if it was not distilled."""


class Card(BaseModel):
    """A card; what it does not name may hold anything."""

    model_config = _OPEN

    name: str = ""
    description: str = ""
    sampler: OwnSampler = ""
    calibration: CalibrationCard | None = None
    guard: GuardCards | None = None
    stages: dict[str, StageCard] = Field(default_factory=dict)
    finetuned: dict[str, StageCard] = Field(default_factory=dict)
