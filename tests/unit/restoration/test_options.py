"""What of the options a calibration depends on."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from medddpm.restoration.options import RestoreOptions

ENSEMBLE = RestoreOptions(mode="ensemble")
OF_THE_RUN = {"seed": 5, "memory_gb": 2.0, "tile": 64, "overlap": 8, "bf16": "off", "sigma": 3.0}


def test_a_calibration_holds_on_any_machine_and_for_any_level() -> None:
    assert ENSEMBLE.other_than({}) == {}
    assert replace(ENSEMBLE, **OF_THE_RUN).other_than(ENSEMBLE.method) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 4},
        {"texture": 0.5},
        {"guidance_scale": 0.7},
        {"cfg_weight": 1.5},
        {"start": 1.0},
    ],
)
def test_an_option_that_changes_the_spread_is_named_with_the_calibrated_value(
    change: dict[str, Any],
) -> None:
    name = next(iter(change))
    assert replace(ENSEMBLE, **change).other_than({}) == {name: getattr(ENSEMBLE, name)}
    assert ENSEMBLE.other_than(change) == change


def test_what_a_mode_does_not_use_is_no_part_of_its_method() -> None:
    names = {f.name for f in fields(RestoreOptions)}
    assert {"steps", "samples"} & set(RestoreOptions().method) == set()
    assert "shifts" not in ENSEMBLE.method
    assert set(ENSEMBLE.method) < names - set(OF_THE_RUN)
