"""The report in words, for the page in the study."""

from __future__ import annotations

from typing import Any

import pytest

from medddpm.workflows.dicom_outputs import report_lines


@pytest.fixture
def facts() -> dict[str, Any]:
    checks = [{"name": "residual_ratio", "value": 0.9871}, {"name": "peak", "value": 0.3}]
    frame = {
        "sigma": {"sigma": 12.5, "fraction": 0.05, "method": "background"},
        "guard": {"checks": checks, "messages": ["too much was removed"]},
        "vae_ceiling_db": 39.0,
    }
    return {
        "statement": "For research.",
        "input": {
            "shape": [40, 44, 36],
            "spacing_mm": [1.0, 1.1, 1.3],
            "orientation": "LPS",
            "num_files": 36,
            "sha256": "feed",
        },
        "frames": [frame, frame],
        "options": {"mode": "ensemble", "sigma": None},
        "weights": {"name": "tiny", "sha256": "abc"},
        "versions": {"medddpm": "1"},
    }


def test_flags_are_said_once_and_loudly(facts: dict[str, Any]) -> None:
    text = "\n".join(report_lines(facts))
    assert "LOOK AT THIS SCAN" in text
    assert text.count("too much was removed") == 1
    for words in (
        "sigma 12.5",
        "40 x 44 x 36",
        "mode ensemble",
        "tiny abc",
        "36 files",
        "39.0 dB",
        "peak 0.3",
    ):
        assert words in text
    assert "None" not in text


def test_a_good_scan(facts: dict[str, Any]) -> None:
    for frame in facts["frames"]:
        frame["guard"]["messages"] = []
    text = "\n".join(report_lines(facts))
    assert "nothing was flagged" in text
    assert "LOOK" not in text
