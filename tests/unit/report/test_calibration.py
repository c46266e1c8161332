"""What a report says of its interval, from cards with and without curves."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from support.sidecars import content_of

from medddpm.io.sidecar import Sidecar
from medddpm.report.calibration import calibration_part

LEVELS = {
    "0.03": {"mean": 0.90, "lowest": 0.78, "highest": 0.92},
    "0.09": {"mean": 0.895, "lowest": 0.85, "highest": 0.93},
}
CARD = {"scans": 7, "subjects": 5, "coverage_of_other_subjects": LEVELS}
CURVES = {
    "reliability": [[0.1, 0.12], [0.5, 0.52], [0.9, 0.9]],
    "risk_coverage": [[0.05, 0.01, 0.001], [0.5, 0.02, 0.01], [1.0, 0.03, 0.03]],
}
INTERVAL = {"level": 0.9, "calibrated": True, "calibrated_for_other_options": {}}


def part_of(sigma: float = 0.08, interval: Any = INTERVAL, **card: Any) -> Any:
    return calibration_part(facts_of(sigma, interval), {"calibration": {**CARD, **card}})


def facts_of(sigma: float, interval: Any = INTERVAL) -> Sidecar:
    told = content_of(interval=interval)
    told["frames"][0]["sigma"]["fraction"] = sigma
    return Sidecar.model_validate(told)


def test_a_card_without_curves_gives_coverage_by_sigma() -> None:
    part = part_of()
    assert part.rows == [
        ("0.03", "90.0 %", "78.0 %", "92.0 %"),
        ("0.09", "89.5 %", "85.0 %", "93.0 %"),
    ]
    assert "held 89.5 %" in part.summary
    assert "outside" not in part.summary
    assert len(part.notes) == 1
    assert "Reliability" not in part.plot


def test_curves_are_drawn_where_the_card_has_them() -> None:
    whole = part_of(**CURVES)
    assert len(whole.notes) == 3
    root = ElementTree.fromstring(f"<div>{whole.plot}</div>")
    drawn = [e for e in root.iter() if e.tag.endswith("svg")]
    titles = [next(t.text for t in e.iter() if t.get("class") == "title") for e in drawn]
    assert titles == ["Coverage", "Reliability", "Error by certainty"]
    assert all(e.get("role") == "img" for e in drawn)
    assert drawn[0].get("aria-label") == "Coverage of the 90 % interval by noise: 89.5 to 90.0 %"
    assert len(whole.plot) < 60_000
    moved = part_of(**{**CURVES, "reliability": [[0.1, 0.4], [0.5, 0.52], [0.9, 0.9]]})
    assert moved.plot != whole.plot


def test_noise_that_was_not_calibrated_and_other_options_are_said() -> None:
    assert "outside of what was calibrated" in part_of(0.3).summary
    other = {**INTERVAL, "calibrated_for_other_options": {"samples": 8, "steps": 4}}
    assert "with samples 8, steps 4, which this scan" in part_of(interval=other).summary


def test_a_result_without_interval_has_no_such_section() -> None:
    assert part_of(interval=None) is None


def test_a_card_without_calibration_has_none_either() -> None:
    facts = facts_of(0.1)
    assert calibration_part(facts, {}) is None
    assert calibration_part(facts, {"calibration": {"level": 0.9, "sigmas": [0.1]}}) is None
