"""The page of a lesion test, from lines made by hand."""

from __future__ import annotations

from typing import Any

from medddpm.lesions.page import lesion_page, own_lesion_page


def line(method: str, diameter: float, **more: Any) -> dict[str, Any]:
    told = {"method": method, "sigma_source": "none" if method == "identity" else "oracle"}
    told |= {"sigma": 0.05, "contrast": 0.2, "diameter": diameter, "lesions": 48, "scans": 4}
    told |= {f"contrast_kept{end}": v for end, v in (("", 0.8), ("_low", 0.7), ("_high", 0.9))}
    return {**told, "over": {"identity": {"dprime_hotelling": [1.2, 1.1, 1.3]}}, **more}


def test_each_contrast_has_its_charts_and_its_numbers_with_sample_sizes() -> None:
    lines = [line(m, d) for m in ("identity", "<b>mean") for d in (3.0, 6.0)]
    page = lesion_page(lines, {"options": {"evil": "<b>"}})
    assert page.count("<svg ") == 2
    assert "48 lesions a size, 4 scans" in page
    assert "0.80 (0.70 to 0.90)" in page
    assert "1.20 (1.10 to 1.30)" in page
    assert "diameter of the lesion, mm" in page
    assert "<b>" not in page
    assert page == lesion_page(lines, {"options": {"evil": "<b>"}})


def test_a_lesion_that_no_one_finds_has_no_ratio() -> None:
    missing = line("mean", 3.0, over={"identity": {"dprime_hotelling": [None, None, None]}})
    assert "<td>n/a</td>" in lesion_page([line("identity", 3.0), missing], {})


def test_own_lesions_are_shown_against_noise() -> None:
    own = {
        f"{key}_restored{end}": 0.9
        for key in ("contrast", "volume", "cnr")
        for end in ("", "_low", "_high")
    }
    page = own_lesion_page([line("mean", 3.0, **own)], {})
    assert page.count("<svg ") == 3
    assert page.count("<circle") == 3
