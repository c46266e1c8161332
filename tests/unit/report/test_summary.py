"""The one sentence of a report, built from what the guard found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from medddpm.io.frame_facts import GuardFacts
from medddpm.report.planes import tissue_windows
from medddpm.report.summary import bright_signal, percent, summarise
from medddpm.volume import Volume


def check(name: str, passed: bool = True, tier: str = "alarm", high: float | None = 1.0) -> Any:
    told = {"name": name, "words": name, "value": 0.5, "high": high}
    return told | {"passed": passed, "tier": tier}


def told(*checks: Any, sigma: float = 42.0, signal: float | None = 1000.0) -> tuple[str, str]:
    words = [c["words"] for c in checks if not c["passed"] and c["tier"] == "alarm"]
    notices = [c["words"] for c in checks if not c["passed"] and c["tier"] == "notice"]
    content = {"passed": not words, "messages": words, "notices": notices, "checks": checks}
    guard = GuardFacts.model_validate(content)
    found = summarise(guard, sigma, signal, blank=False)
    return found.text, found.level


def test_noise_notices_alarms_and_anatomy_are_in_one_sentence() -> None:
    assert told(check("anatomy"), check("peak"), check("sharpness", False, "notice")) == (
        "Removed noise of 4.2 % of the signal of bright tissue; one notice, no alarm; nothing that "
        "looks like anatomy was removed.",
        "notice",
    )
    text, level = told(check("anatomy", False), check("peak", False))
    assert "two alarms" in text
    assert "may hold anatomy" in text
    assert level == "alarm"
    assert told(check("anatomy")) == (
        "Removed noise of 4.2 % of the signal of bright tissue; no alarm, no notice; nothing that "
        "looks like anatomy was removed.",
        "good",
    )


def test_what_was_not_checked_is_not_claimed() -> None:
    assert "was not checked" in told()[0]
    assert "was not checked" in told(check("anatomy", high=None))[0]
    assert "no structure stands out" in told(check("peak"), check("anatomy", high=None))[0]


def test_without_noise_or_tissue_the_sentence_says_so() -> None:
    assert told(sigma=0.0)[0].startswith("No noise was found to remove;")
    assert told(signal=None)[0].startswith("Removed noise of sigma 42 in scan units;")
    guard = GuardFacts.model_validate({"messages": []})
    assert "one value only" in summarise(guard, 1.0, 1.0, blank=True).text


def test_percents_have_two_digits() -> None:
    shown = [percent(share) for share in (0.5, 0.0421, 0.00123, 0.0)]
    assert shown == ["50 %", "4.2 %", "0.12 %", "0 %"]


def test_tissue_is_away_from_bright_skin(phantom: Volume) -> None:
    """Skin of two voxels, three times as bright as the brain, moves neither signal nor window."""
    plain = phantom.frame(0)
    within = ndimage.binary_erosion(plain > 0, iterations=2)
    skin = np.where((plain > 0) & ~within, 3000, plain).astype(np.float32)
    assert np.percentile(skin[plain > 0], 90) == 3000  # it would set a window over all of it
    for image in (plain, skin):
        signal = bright_signal(image, phantom.geometry.spacing)
        assert signal == pytest.approx(950, rel=0.2)
        assert tissue_windows(image, phantom.geometry.spacing)[0].high < 1500
