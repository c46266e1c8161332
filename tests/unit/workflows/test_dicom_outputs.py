"""The report in words, for the page in the study."""

from __future__ import annotations

from support.sidecars import content_of

from medddpm.io.sidecar import Sidecar
from medddpm.workflows.dicom_outputs import report_lines


def facts_of(*messages: str) -> Sidecar:
    checks = [{"name": "residual_ratio", "value": 0.9871}, {"name": "peak", "value": 0.3}]
    frame = {
        "sigma": {"sigma": 12.5, "fraction": 0.05, "method": "background"},
        "guard": {"checks": checks, "messages": messages},
        "vae_ceiling_db": 39.0,
    }
    told = content_of(frames=[frame, frame])
    told["input"] |= {"spacing_mm": [1.0, 1.1, 1.3], "orientation": "LPS", "num_files": 36}
    told["options"] |= {"mode": "ensemble", "sigma": None}
    return Sidecar.model_validate(told)


def test_flags_are_said_once_and_loudly() -> None:
    text = "\n".join(report_lines(facts_of("too much was removed")))
    assert "LOOK AT THIS SCAN" in text
    assert text.count("too much was removed") == 1
    for words in (
        "sigma 12.5",
        "40 x 44 x 36",
        "mode ensemble",
        "tiny abc123",
        "36 files",
        "39.0 dB",
        "peak 0.3",
    ):
        assert words in text
    assert "None" not in text


def test_a_good_scan() -> None:
    text = "\n".join(report_lines(facts_of()))
    assert "nothing was flagged" in text
    assert "LOOK" not in text
