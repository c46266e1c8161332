from __future__ import annotations

import base64
import json
import re
import zlib
from html import unescape
from typing import Any

import numpy as np
import pytest
from support.sidecars import content_of, sidecar_of

from medddpm.errors import GeometryError, ShapeError
from medddpm.metrics.scores import evaluate_arrays
from medddpm.report.cropped import crop
from medddpm.report.facts import Figure, ReportScan, measure
from medddpm.report.group import GroupRow, Missing, group_page, outlyingness
from medddpm.report.page import report_page
from medddpm.report.view import View, pack_view
from medddpm.volume import Geometry, Volume

EVIL = '</script><script>alert(1)</script>"><img src=x onerror=alert(2)>'


@pytest.fixture
def phantom_shape() -> tuple[int, int, int]:
    return (40, 44, 36)


def scan_of(before: Volume, after: Volume, **more: Any) -> ReportScan:
    told = {"name": "a scan", "facts": sidecar_of(), **more}
    return ReportScan(
        before=before.frame(0), after=after.frame(0), geometry=before.geometry, **told
    )


def test_snr_is_signal_over_noise(rng: np.random.Generator) -> None:
    """Three flat slabs of 400, 700 and 1000 with noise of 50, and the same with noise of 10."""
    clean = np.zeros((40, 40, 40), np.float32)
    for start, value in ((3, 400), (14, 700), (25, 1000)):
        clean[4:36, start : start + 11, 4:36] = value
    noise = np.where(clean > 0, rng.normal(0, 1, clean.shape), 0)
    volumes = [
        Volume((clean + s * noise).astype(np.float32), Geometry((40, 40, 40), np.eye(4)))
        for s in (50, 10)
    ]
    snr, cnr = measure(scan_of(*volumes))
    assert (snr.key, cnr.key) == ("snr", "cnr")
    assert snr.after is not None
    assert snr.before is not None
    assert snr.after / snr.before == pytest.approx(5, rel=0.1)
    assert 400 / 50 * 0.9 < snr.before < 1000 / 50 * 1.1
    assert cnr.after == pytest.approx(300 / 10, rel=0.1)


def test_with_a_reference_it_is_psnr_and_ssim(phantom: Volume, noisy_phantom: Volume) -> None:
    scan = scan_of(noisy_phantom, phantom, reference=phantom.data)
    psnr, ssim = measure(scan)
    assert (psnr.key, ssim.key) == ("psnr", "ssim")
    assert psnr.after == 200  # identical
    assert psnr.before is not None
    assert 20 < psnr.before < 35
    assert ssim.text(ssim.after) == "1.000"


@pytest.mark.parametrize("slab", [1, 7, 100])
def test_ssim_of_slabs_is_that_of_the_whole(
    phantom: Volume, noisy_phantom: Volume, slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medddpm.report.facts._SLAB", slab)
    clean, noisy = phantom.frame(0), noisy_phantom.frame(0)
    psnr, ssim = measure(scan_of(noisy_phantom, phantom, reference=clean))
    expected = evaluate_arrays(clean, noisy)
    assert psnr.before == pytest.approx(expected["psnr"], abs=1e-4)
    assert ssim.before == pytest.approx(expected["ssim"], abs=1e-6)


def test_a_page_has_a_limit_whatever_its_pictures_take(
    phantom: Volume, noisy_phantom: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = scan_of(noisy_phantom, phantom)
    whole = report_page(scan)
    limit = len(whole) - 150_000
    assert "All its planes are there" in whole
    monkeypatch.setattr("medddpm.report.page.MAX_PAGE", limit)
    small = report_page(scan)
    assert "in steps of a part of sigma" in small
    assert len(small) < limit + 100_000  # its words
    monkeypatch.setattr("medddpm.report.page.MAX_PAGE", 0)  # the pictures alone are more
    assert "only some planes: 1 of" in report_page(scan)


def test_arrays_of_another_shape_are_refused(phantom: Volume) -> None:
    with pytest.raises(GeometryError, match="std has shape"):
        scan_of(phantom, phantom, std=phantom.data[:-1])
    with pytest.raises(ShapeError, match="X, Y, Z"):
        ReportScan("a", phantom.data[0], phantom.data[0], phantom.geometry, sidecar_of())


def packed(scan: ReportScan, **limit: int) -> View:
    return pack_view(crop(scan), scan.geometry, **limit)


def signed(part: np.ndarray) -> np.ndarray:
    """Numbers of either sign from low and high bytes, the sign in the lowest bit."""
    low, high = part.reshape(2, -1).astype(np.int32)
    folded = low | (high << 8)
    return (folded >> 1) ^ -(folded & 1)


def expected(plane: np.ndarray, r: int, c: int) -> int:
    """The median edge detector: of the pixels to the left and above, and of the corner."""
    left = int(plane[r, c - 1]) if c else 0
    above = int(plane[r - 1, c]) if r else 0
    corner = int(plane[r - 1, c - 1]) if r and c else 0
    return sorted((left, above, left + above - corner))[1] if r or c else 0


def unpacked(view: View) -> dict[str, np.ndarray]:
    """What the page's script makes of its data, voxel by voxel."""
    content = view.content
    axis, quantum = content["axis"], content["quantum"]
    rows, columns = (n for a, n in enumerate(content["shape"]) if a != axis)
    after, before = [], []
    for text in view.planes:
        raw = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
        parts = raw.reshape(-1, 2 * rows * columns)
        away, plane = signed(parts[0]).reshape(rows, columns), np.zeros((rows, columns), int)
        for r, c in np.ndindex(rows, columns):
            plane[r, c] = (expected(plane, r, c) + away[r, c]) % 65536
        after.append(plane)
        other = plane + content["factor"] * signed(parts[1]).reshape(rows, columns)
        before.append(other % 65536 if content["factor"] == 1 else np.clip(other, 0, 65535))
    scans = {"after": np.stack(after), "before": np.stack(before)}
    scans = {n: content["floor"] + quantum * np.moveaxis(a, 0, axis) for n, a in scans.items()}
    return {**scans, "residual": scans["before"] - scans["after"]}


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_the_viewer_gets_the_scans_in_ras_order(
    phantom: Volume, noisy_phantom: Volume, flips: tuple[int, int, int]
) -> None:
    """Each voxel is where its millimetres say, whatever the order of the array."""
    index = tuple(slice(None, None, f) for f in flips)
    turn = np.diag([*flips, 1.0])
    turn[:3, 3] = [
        0 if f == 1 else n - 1 for f, n in zip(flips, phantom.geometry.shape, strict=True)
    ]
    geometry = Geometry(phantom.geometry.shape, phantom.affine @ turn)
    turned = [Volume(v.data[index], geometry) for v in (noisy_phantom, phantom)]
    view = packed(scan_of(*turned))
    content, found = view.content, unpacked(view)
    to_index = np.linalg.inv(phantom.affine) @ np.array(content["affine"]).reshape(4, 4)
    at = (to_index @ [5, 7, 4, 1])[:3]
    np.testing.assert_allclose(at, np.rint(at), atol=1e-3)
    x, y, z = np.rint(at).astype(int)
    step = content["quantum"]
    assert content["exact"]
    assert step < 0.05  # 16 bits
    assert found["after"][5, 7, 4] == pytest.approx(phantom.data[x, y, z], abs=0.51 * step)
    assert found["before"][5, 7, 4] == pytest.approx(noisy_phantom.data[x, y, z], abs=0.51 * step)
    i, j, k = np.array(content["to_file"]).reshape(3, 4) @ [5, 7, 4, 1]
    assert turned[1].data[i, j, k] == phantom.data[x, y, z]


def test_whole_numbers_are_kept_as_they_are(phantom: Volume, noisy_phantom: Volume) -> None:
    scans = [v.with_data(np.rint(v.data)) for v in (noisy_phantom, phantom)]
    view = packed(scan_of(*scans))
    found, whole = unpacked(view), crop(scan_of(*scans)).arrays
    assert view.note.count("Values are those of the file") == 1
    for name in ("before", "after"):
        np.testing.assert_array_equal(found[name], whole[name])


def test_where_room_is_short_values_are_near_and_the_note_says_how_near(
    phantom: Volume, noisy_phantom: Volume
) -> None:
    scan = scan_of(noisy_phantom, phantom)
    size = sum(map(len, packed(scan).planes)) * 3 // 4
    view = packed(scan, max_bytes=size // 3)
    found, whole = unpacked(view), crop(scan).arrays
    assert "All its planes are there" in view.note
    assert "in steps of a part of sigma" in view.note
    step = view.content["quantum"]
    assert view.content["factor"] > 1
    assert np.abs(found["after"] - whole["after"]).max() <= 0.501 * step
    inside = whole["after"] > 200
    away = np.abs(found["before"] - whole["before"])
    assert away[inside].max() <= (view.content["factor"] + 1) / 2 * 1.001 * step
    assert away[~inside].max() <= 4 * (view.content["factor"] + 1) / 2 * 1.001 * step
    assert sum(map(len, view.planes)) * 3 // 4 <= size // 3


def test_a_faint_residual_survives_the_eight_bits(
    phantom: Volume, rng: np.random.Generator
) -> None:
    """Sigma is a twentieth of one of 256 grey levels here."""
    noisy = phantom.with_data(phantom.data + rng.normal(0, 0.2, phantom.data.shape))
    found = unpacked(packed(scan_of(noisy, phantom, facts=sidecar_of(sigma=0.2))))
    assert found["residual"].std() == pytest.approx(0.2, rel=0.2)


def test_a_large_scan_loses_planes_and_the_note_says_so(
    phantom: Volume, noisy_phantom: Volume
) -> None:
    scan = scan_of(noisy_phantom, phantom)
    whole, small = packed(scan), packed(scan, max_bytes=9_000)
    assert "only some planes" not in whole.note
    assert "only some planes: 1 of" in small.note
    assert sum(map(len, small.planes)) < 4 / 3 * 9_000 + 100
    axis, kept = small.content["axis"], len(small.planes)
    assert kept < len(whole.planes)
    step = round(small.content["spacing"][axis] / whole.content["spacing"][axis])
    thinned = np.moveaxis(unpacked(small)["after"], axis, 0)
    all_of_it = np.moveaxis(unpacked(whole)["after"], axis, 0)
    assert thinned.shape[1:] == all_of_it.shape[1:]  # each plane at full resolution
    np.testing.assert_allclose(thinned, all_of_it[::step], atol=small.content["quantum"])


def test_the_page_is_one_file_that_runs_only_its_own_scripts(
    phantom: Volume, noisy_phantom: Volume
) -> None:
    told = content_of()
    told["frames"][0]["guard"] |= {"messages": [EVIL], "passed": False}
    told["input"]["case_id"] = told["weights"]["name"] = told["device"] = EVIL
    told["options"] = {"mode": EVIL, "seed": 0}
    card = {"limits": EVIL, "more": [EVIL]}
    scan = scan_of(
        noisy_phantom,
        phantom,
        name=EVIL,
        facts=sidecar_of(**told),
        card=card,
        std=0.1 * phantom.data,
    )
    page = report_page(scan)
    html = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "alert(1)</script>" not in page
    assert "<img src=x" not in page
    assert len(re.findall(r"<script[ >]", html)) == 2
    assert page.count("</script>") == 3  # facts, planes, and the one that runs
    assert not re.search(r"""(src|href)=["'](?!data:)""", html)
    assert "default-src 'none'" in unescape(page)
    assert html.count("&lt;/script&gt;") > 5


def test_numbers_of_the_page_are_json_without_markup(phantom: Volume) -> None:
    page = report_page(scan_of(phantom, phantom))
    [data] = re.findall(r'<script type="application/json" id="view-data">(.*?)</script>', page)
    assert json.loads(data)["sigma"] == 50


def test_the_page_has_a_table_of_checks_with_places_to_press(phantom: Volume) -> None:
    failed = {
        "name": EVIL, "value": 3.1, "low": None, "high": 2.5, "passed": False, "words": EVIL,
        "false_alarms": 0.01, "where": [10, -4.25, 33],
    }  # fmt: skip
    told = content_of()
    told["frames"][0]["guard"] |= {"passed": False, "messages": ["m"], "checks": [failed]}
    page = report_page(scan_of(phantom, phantom, facts=sidecar_of(**told)))
    assert "<img src=x" not in page
    assert '<button type="button" class="place" disabled data-mm="10.0 -4.25 33.0"' in page
    assert '<span class="chip alarm">alarm</span>' in page
    assert "at most 2.50" in page
    old = report_page(scan_of(phantom, phantom))
    assert 'class="place"' not in old
    assert "Usual" not in old


def test_an_ensemble_says_how_far_its_interval_can_be_trusted(phantom: Volume) -> None:
    level = {"mean": 0.9, "lowest": 0.8, "highest": 0.95}
    known = {"scans": 7, "subjects": 5, "coverage_of_other_subjects": {"0.05": level}}
    card = {"calibration": {**known, "reliability": [[0.5, 0.5], [0.9, 0.9]]}}
    told = sidecar_of(interval={"level": 0.9, "calibrated": True})
    page = report_page(scan_of(phantom, phantom, facts=told, card=card, std=0.1 * phantom.data))
    html = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "held 90.0 % of the voxels: from 80.0 to 95.0 %" in page
    assert page.count("<svg ") == 2 + 2  # histograms; coverage and reliability
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)  # "#": within the drawing
    assert "<metadata" not in page
    assert report_page(scan_of(phantom, phantom, card=card)).count("<svg ") == 2


def rows() -> list[GroupRow]:
    """Nine alike and one that is far; another is flagged."""
    found = [
        GroupRow(f"s{i}", f"s{i}.html", {"fraction": 0.05 + 0.001 * i, "peak": 1.0}, ())
        for i in range(9)
    ]
    found.append(GroupRow("far", "far.html", {"fraction": 0.5, "peak": 1.0}, ()))
    found.append(GroupRow("bad", "bad.html", {"fraction": 0.054, "peak": 1.0}, ("a flag",)))
    return found


def test_outliers_are_far_from_the_median() -> None:
    far = outlyingness(rows())
    assert far[9][0] > 10
    assert far[9][1] == "Noise, % of scale"
    assert max(distance for distance, _ in far[:9]) < 3.5


def test_flagged_results_come_first_and_then_outliers() -> None:
    names = re.findall(r'<th scope="row".*?<a href="[^"]*">(.*?)</a>', group_page(rows()))
    assert names[:2] == ["bad", "far"]
    assert len(names) == 11


def test_the_group_page_escapes_names_and_links() -> None:
    page = group_page([GroupRow(EVIL, f"a b/{EVIL}.html", {"fraction": 0.1}, (EVIL,))] * 2)
    assert "<img" not in page
    assert page.count("<script") == 1
    assert 'href="a%20b/' in page


def test_every_scan_is_a_dot_and_what_stands_apart_is_a_link() -> None:
    few = group_page(rows())
    assert few.count("<circle") == 2 * 11
    assert [path.count("h0") for path in re.findall(r'<path d="(.*?)"', few)] == [11, 11]
    rng = np.random.default_rng(1)
    many = [
        GroupRow(f"s{i}", f"s{i}.html", {"fraction": 0.05 + 0.001 * rng.random()}, ())
        for i in range(500)
    ]
    many[7] = GroupRow("none", "none.html", {}, ())
    many.append(GroupRow("far", "far.html", {"fraction": 0.08}, ()))
    page = group_page(many)
    assert page.count("<circle") == 1
    assert ">far: 8.0%<" in page
    [path] = re.findall(r'<path d="(.*?)"', page)
    assert path.count("h0") == 501  # in the order of the table
    assert path.count("M-99 0h0") == 1
    assert path.startswith("M288.0 ")  # the outlier, on the right
    assert page.count("<tr") == 1 + 501 == 1 + page.count('scope="row"')
    table, rest = page.split('<template id="more">')
    assert table.count('scope="row"') == 150
    assert "n = 500" in rest


def test_sentences_are_short_labels_that_hold_them() -> None:
    told = content_of()
    bad = {"name": "peak", "value": 3.0, "low": None, "high": 1.0, "passed": False, "words": "w w"}
    told["frames"][0]["guard"] |= {"messages": ["w w"], "checks": [bad], "passed": False}
    row = GroupRow.of("a", "a.html", sidecar_of(**told), [], ("data:image/jpeg;base64,AA", "data:"))
    page = group_page([row])
    assert '<span class="chip alarm" title="w w">local change</span>' in page
    assert 'data-before="data:image/jpeg;base64,AA"' in page
    long = group_page([GroupRow("a", "", {}, (), ("one two three four five",))])
    assert 'title="one two three four five">one two three four \u2026<' in long


def test_scans_without_a_result_are_listed_with_their_reason() -> None:
    page = group_page(rows(), missing=[Missing(EVIL, EVIL)], num_unreached=3, advice="Look.")
    assert "1 could not be restored, 3 were not reached" in page
    assert "Look." in page
    assert "<img" not in page
    alone = group_page([], missing=[Missing("a", "gone")])
    assert "0 restored scans" in alone
    assert "How the numbers are spread" not in alone


def test_the_row_of_a_result_has_gains_over_its_input() -> None:
    figures = [
        Figure("psnr", "PSNR", 20.0, 26.5, "{}"),
        Figure("ssim", "SSIM", None, 0.9, "{}"),
        Figure("snr", "SNR", 1.0, 2.0, "{}"),
    ]
    values = GroupRow.of("a", "a.html", sidecar_of(), figures).values
    assert values["psnr_gain"] == 6.5
    assert values["psnr"] == 26.5
    assert "ssim_gain" not in values
    assert "snr_gain" not in values
