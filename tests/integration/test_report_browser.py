"""The pages in headless Chromium: they draw, nothing is cut or faint, and they stay at home.

Needs `pip install -e '.[browser]'` and a Chromium of the system (apt-get install chromium).
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.sidecars import content_of

from medddpm.io.sidecar import Sidecar
from medddpm.report.chart import Axis, Series, chart, row_chart
from medddpm.report.facts import ReportScan
from medddpm.report.group import COLUMNS, GroupRow, group_page
from medddpm.report.html import (
    Flag,
    Picture,
    bullets,
    chips,
    fold,
    heading,
    html_page,
    paragraph,
    pictures,
    plots,
    statement,
    table,
)
from medddpm.report.page import report_page
from medddpm.volume import Geometry

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e '.[browser]'"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SCRIPTS = Path(__file__).parents[1] / "js"
CUT, FAINT = ((SCRIPTS / name).read_text() for name in ("cut.js", "faint.js"))
LAPTOP, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
COS, SIN = np.cos(0.3), np.sin(0.3)
AFFINE = np.array([[COS, -1.2 * SIN, 0, 5], [SIN, 1.2 * COS, 0, -20], [0, 0, 0.9, 7], [0, 0, 0, 1]])
PLACE = AFFINE[:3] @ [9, 21, 30, 1]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCB"
    "d81ytgAAAABJRU5ErkJggg=="
)
EVIL = '</title></script><img src="https://example.org/x.png" onerror="alert(1)">'


def _scans() -> tuple[np.ndarray, np.ndarray]:
    rng, shape = np.random.default_rng(5), (32, 36, 40)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    clean = np.where(x**2 + y**2 + z**2 < 0.8, 500 + 300 * (x + 0.3 > y) + 200 * z, 0)
    before = np.hypot(clean + rng.normal(0, 60, shape), rng.normal(0, 60, shape))
    return before.astype(np.float32), clean.astype(np.float32)


BEFORE, CLEAN = _scans()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with uncertainty, whose name and facts hold markup; 32 x 36 x 40 voxels."""
    shape, x = BEFORE.shape, np.linspace(-1, 1, 32)[:, None, None]
    places = [PLACE.tolist(), [-900, 900, 0], None]  # the second lies far outside
    checks = [
        {"name": f"check {n} {EVIL}", "value": 1.0, "low": None, "high": 0.5, "passed": False,
         "words": EVIL, "false_alarms": None, "where": where}
        for n, where in enumerate(places)
    ]  # fmt: skip
    guard = {"passed": False, "messages": [EVIL], "checks": checks}
    told = content_of(60.0)
    told["frames"][0]["guard"] = guard
    told["frames"][0]["sigma"]["fraction"] = 0.06
    told["input"] |= {"case_id": EVIL, "shape": shape}
    told["weights"]["name"] = EVIL
    scan = ReportScan(
        EVIL,
        BEFORE,
        CLEAN,
        Geometry(shape, AFFINE),
        Sidecar.model_validate(told),
        std=(20 + 20 * (x > 0) + 0 * CLEAN).astype(np.float32),
        card={"limits": EVIL},
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report_page(scan), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def group_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page over 400 scans: one with an alarm and one with a notice, both with markup."""
    rng = np.random.default_rng(2)
    rows = [
        GroupRow(
            f"sub-{i:03d}/anat/sub-{i:03d}_T1w_desc-denoised",
            f"s{i}.html",
            {
                key: float(v)
                for key, v in zip(COLUMNS, rng.normal(1, 0.1, len(COLUMNS)), strict=True)
            },
            (f"an alarm {EVIL}",) if i == 5 else (),
            (f"a notice {EVIL}",) if i == 6 else (),
            (PIXEL, PIXEL),
        )
        for i in range(400)
    ]
    rows[3] = GroupRow(f"s3{EVIL}", "s3.html", dict.fromkeys(COLUMNS, 9.0), ())
    path = tmp_path_factory.mktemp("group") / "index.html"
    path.write_text(group_page(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of parts: each that other pages are made of."""
    series = [
        Series("a", [1, 2], [3, 4], [2, 3], [4, 5]),
        Series("b", [1, 2], [2, 1], style="dashed"),
    ]
    parts = [
        heading("Parts", 1), statement("Not a medical device."), paragraph("Words"),
        paragraph(Flag("That stand out")), bullets(["one", "two"]),
        table([f"column {n}" for n in range(14)], [["row", *(["0.12345"] * 13)]]),
        plots([chart("t", series, Axis("x, mm"), Axis("y, dB"), words="w"),
               row_chart("t", [("name " * 9, 1, 0, 2)], Axis("x"), words="w", legend={"c": 4})]),
        pictures([Picture(PIXEL, "label", "words", "R", "L")] * 4, 4),
        chips([("alarm", "a sentence")], [("notice", "a sentence")]),
        fold("More", "<pre>facts</pre>"),
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("plain") / "plain.html"
    path.write_text(html_page("Parts", parts), encoding="utf-8")
    return path


def opened_page(browser: Any, file: Path, **settings: Any) -> Any:
    """The page once its script has run; `page.noise` holds what must not happen."""
    context = browser.new_context(**{"viewport": LAPTOP, "reduced_motion": "reduce", **settings})
    found = context.new_page()
    found.noise = []
    found.on("console", lambda m: found.noise.append(f"console {m.type}: {m.text}"))
    found.on("pageerror", lambda e: found.noise.append(f"error: {e}"))
    found.on("dialog", lambda d: (found.noise.append(f"dialog {d.message}"), d.dismiss()))
    found.on("request", lambda r: found.noise.append(f"request {r.url[:60]}"))
    found.goto(file.as_uri(), timeout=120_000)
    if found.locator("script").count():
        found.wait_for_selector("body[data-ready=true]", timeout=120_000)
    return found


@pytest.fixture(scope="module")
def page(browser: Any, report_file: Path) -> Iterator[Any]:
    opened = opened_page(browser, report_file)
    yield opened
    opened.context.close()


def pixels(page: Any, selector: str) -> np.ndarray:
    """What a person sees there, after the page has drawn."""
    page.wait_for_timeout(150)
    png = page.locator(selector).screenshot()
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)


def pane(page: Any, number: int = 0) -> np.ndarray:
    """Its picture, in a width that is the same for all, whatever a browser rounds."""
    found = pixels(page, f"#panes figure:nth-child({number + 1}) canvas")
    return found[:, : found.shape[1] // 8 * 8]


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


# Below, each at 1400 x 900, 390 x 844 and on paper, light and dark


LOOKS = [
    pytest.param(LAPTOP, "light", id="laptop"), pytest.param(LAPTOP, "dark", id="dark"),
    pytest.param(PHONE, "light", id="phone"), pytest.param(PHONE, "dark", id="phone-dark"),
]  # fmt: skip


@pytest.mark.parametrize("name", ["report_file", "group_file", "plain_file"])
@pytest.mark.parametrize(("viewport", "scheme"), LOOKS)
def test_nothing_is_cut_faint_or_asked_for(
    browser: Any, name: str, viewport: Any, scheme: str, request: pytest.FixtureRequest
) -> None:
    file = request.getfixturevalue(name)
    found = opened_page(browser, file, viewport=viewport, color_scheme=scheme)
    found.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert found.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert found.evaluate(CUT) == []
    assert found.evaluate(FAINT) == []
    own = [n for n in found.noise if "request data:" not in n and "request blob:" not in n]
    assert own == [f"request {file.as_uri()[:60]}"]
    found.context.close()


@pytest.mark.parametrize("name", ["report_file", "group_file", "plain_file"])
def test_paper_holds_all_of_it(browser: Any, name: str, request: pytest.FixtureRequest) -> None:
    found = opened_page(browser, request.getfixturevalue(name))
    found.emulate_media(media="print", color_scheme="dark")
    found.set_viewport_size({"width": 1040 if name == "group_file" else 703, "height": 900})
    assert found.evaluate("document.documentElement.scrollWidth") <= found.viewport_size["width"]
    assert found.evaluate(FAINT) == []
    assert found.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert found.pdf(prefer_css_page_size=True, print_background=True).startswith(b"%PDF")
    found.context.close()


def test_the_checker_of_contrast_finds_what_is_faint(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "faint.html"
    path.write_text("<p style='color:#999'>faint</p><p style='color:#666'>not</p>")
    found = opened_page(browser, path)
    assert [text.split()[-1] for text in found.evaluate(FAINT)] == ["faint"]
    found.context.close()


def test_it_draws_every_pane_and_asks_nobody_for_anything(page: Any, report_file: Path) -> None:
    for number in range(3):
        assert pane(page, number).std() > 10
    assert np.abs(pane(page, 0) - pane(page, 1)).mean() > 2
    assert page.title() == f"{EVIL}: restoration report"
    assert page.locator("h1").inner_text() == EVIL
    box = page.locator("#panes canvas").first.bounding_box()
    assert box["y"] < 330
    assert box["y"] + box["height"] <= 900  # all of the picture is on the first screen


def test_a_picture_stands_before_the_script_has_run(browser: Any, report_file: Path) -> None:
    context = browser.new_context(viewport=LAPTOP, java_script_enabled=False)
    found = context.new_page()
    found.goto(report_file.as_uri())
    stills = found.locator(".stills .still")
    assert stills.count() == 9
    assert stills.first.is_visible()
    assert found.locator("noscript p").is_visible()
    assert found.locator("button.place:enabled").count() == 0
    assert not found.locator(".controls").is_visible()
    context.close()


def test_without_a_canvas_the_pictures_stay_and_it_says_so(browser: Any, report_file: Path) -> None:
    context = browser.new_context()
    found = context.new_page()
    found.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    found.goto(report_file.as_uri())
    found.wait_for_selector("body[data-ready=failed]")
    assert found.locator(".stills .still").first.is_visible()
    assert found.get_by_text("It stopped: no canvas").is_visible()
    context.close()


def test_the_slice_slider_and_keys_change_all_panes(page: Any) -> None:
    old = [pane(page, n) for n in range(3)]
    value, first = page.locator("#slice-value"), page.locator("#slice-value").inner_text()
    slider = page.get_by_role("slider", name="Slice")
    slider.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    assert int(value.inner_text().split()[0]) == int(first.split()[0]) + 8
    for number in range(3):
        assert np.abs(pane(page, number) - old[number]).mean() > 1
    page.locator("#panes canvas").first.focus()
    for _ in range(8):
        page.keyboard.press("PageDown")
    assert value.inner_text() == first
    told = page.locator("#values").inner_text()
    page.keyboard.press("ArrowRight")  # to the patient's left: a smaller x
    page.wait_for_timeout(100)
    moved = page.locator("#values").inner_text()
    x, other = (int(t.split("voxel ")[1].split(",")[0]) for t in (told, moved))
    assert other == x - 1


def test_a_click_moves_the_cross_hair_and_tells_the_value_of_the_file(page: Any) -> None:
    press(page, "Reset")
    old = pane(page, 1)
    box = page.locator("#panes canvas").first.bounding_box()
    page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.45 * box["height"])
    assert np.abs(pane(page, 1) - old).max() > 50
    told = page.locator("#values").inner_text()
    x, y, z = (int(v) for v in told.split("voxel ")[1].split(" of")[0].split(", "))
    before = float(told.split("before ")[1].split(",")[0])
    assert before == pytest.approx(BEFORE[x, y, z], abs=0.02)


def test_a_place_of_a_check_moves_the_cross_hair_there(page: Any) -> None:
    places = page.get_by_role("button", name="Show the place of")
    assert places.count() == 2
    places.nth(0).press("Enter")
    page.wait_for_timeout(150)
    told = page.locator("#values")
    assert told.inner_text().startswith(f"At {', '.join(f'{v:.1f}' for v in PLACE)} mm")
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"
    places.nth(1).click()
    page.wait_for_timeout(150)
    assert re.search(r"voxel [01], 3\d, \d+ of the file", told.inner_text())  # the nearest there is
    press(page, "Reset")


def test_planes_window_residual_cross_hair_and_zoom_have_their_controls(page: Any) -> None:
    press(page, "Reset")
    before, removed = pane(page, 0), pane(page, 2)
    page.get_by_role("combobox", name="Window").select_option(label="Dark tissue")
    assert np.abs(pane(page, 0) - before).mean() > 2
    np.testing.assert_array_equal(pane(page, 2), removed)
    page.get_by_role("combobox", name="Removed").select_option("8")
    assert np.abs(pane(page, 2) - removed).mean() > 2
    press(page, "Reset")
    press(page, "cross-hair")
    assert 0 < np.abs(pane(page, 0) - before).mean() < 5
    press(page, "cross-hair")
    press(page, "Zoom in")
    assert np.abs(pane(page, 0) - before).mean() > 2
    press(page, "Reset")
    np.testing.assert_array_equal(pane(page, 0), before)
    seen = []
    for plane in ("axial", "coronal", "sagittal", "all"):
        press(page, plane)
        seen.append(pane(page, 1))
    assert all(np.abs(a - b).mean() > 1 for i, a in enumerate(seen) for b in seen[:i])
    press(page, "Reset")


def test_a_drag_with_the_right_button_sets_the_window(page: Any) -> None:
    old, high = pane(page, 1), page.locator("#bar-scan .high")
    first = float(high.inner_text())
    box = page.locator("#panes canvas").nth(1).bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down(button="right")
    page.mouse.move(box["x"] + 200, box["y"] + 100, steps=4)
    page.mouse.up(button="right")
    assert float(high.inner_text()) > first  # wider
    assert np.abs(pane(page, 1) - old).mean() > 2
    assert page.locator("#window").input_value() == ""
    press(page, "Reset")


def test_tabs_show_what_they_name(page: Any) -> None:
    for name, panes in (("Removed", 1), ("Noise map", 2), ("Uncertainty", 2)):
        press(page, name)
        assert page.locator("#panes canvas").count() == panes
        assert pane(page, panes - 1).std() > 5
    press(page, "Histogram")
    assert page.locator("#histogram svg").first.is_visible()
    assert not page.locator("#stage").is_visible()
    press(page, "Before and after")


def test_the_swipe_shows_before_on_its_left_and_after_on_its_right(page: Any) -> None:
    press(page, "Reset")
    press(page, "cross-hair")
    press(page, "swipe")
    box = page.locator("#panes canvas").bounding_box()

    def at(share: float, of: float) -> np.ndarray:
        y = box["y"] + 60
        page.mouse.move(box["x"] + of * box["width"], y)
        page.mouse.down()
        page.mouse.move(box["x"] + share * box["width"], y, steps=3)
        page.mouse.up()
        page.mouse.move(box["x"] + 5, box["y"] + box["height"] + 30)
        return pane(page)

    half = pane(page)
    before, width = at(0.98, 0.5), half.shape[1]
    after = at(0.02, 0.98)
    rows = slice(40, None)  # below the caption
    middle = slice(width // 4, width // 2 - 12), slice(width // 2 + 12, 3 * width // 4)
    assert np.abs(before - after)[rows].mean() > 1
    np.testing.assert_array_equal(half[rows, middle[0]], before[rows, middle[0]])
    np.testing.assert_array_equal(half[rows, middle[1]], after[rows, middle[1]])
    press(page, "Reset")
    press(page, "side by side")


def test_flicker_shows_one_and_then_the_other(page: Any) -> None:
    press(page, "flicker")
    caption = page.locator("#panes figcaption")
    first, name = pane(page), caption.inner_text()
    page.locator("#panes canvas").focus()
    page.keyboard.press("f")
    assert np.abs(pane(page) - first).mean() > 1
    assert caption.inner_text() != name
    press(page, "side by side")


def test_every_control_and_picture_has_a_name(page: Any) -> None:
    assert page.get_by_role("slider", name="Slice").count() == 1
    for name in ("Window", "Removed", "Drag"):
        assert page.get_by_role("combobox", name=name).count() == 1
    assert page.get_by_role("img", name="Before. Arrow keys").count() == 1
    assert page.locator("canvas:not([aria-label]), img:not([alt])").count() == 0
    buttons = page.get_by_role("button").all()
    assert all(b.inner_text().strip() or b.get_attribute("aria-label") for b in buttons)


def test_print_is_two_pages_of_pictures_instead_of_the_viewer(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = false; })")
    page.emulate_media(media="print")
    assert not page.locator("#panes").is_visible()
    assert page.locator("img.still").nth(8).is_visible()
    assert page.get_by_text("Research use only").is_visible()
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") <= 2
    page.emulate_media(media="screen")


def test_nothing_went_wrong_on_the_way(page: Any) -> None:
    assert [n for n in page.noise if not n.startswith("request")] == []


def test_touch_moves_the_cross_hair_on_a_phone(browser: Any, report_file: Path) -> None:
    found = opened_page(browser, report_file, viewport=PHONE, has_touch=True)
    assert found.locator("#panes canvas").count() == 1  # a swipe, as wide as the phone
    box = found.locator("#panes canvas").bounding_box()
    assert box["y"] + box["height"] < 844
    old = found.locator("#values").inner_text()
    found.touchscreen.tap(box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"])
    found.wait_for_timeout(150)
    assert found.locator("#values").inner_text() != old
    found.context.close()


def test_the_group_table_sorts_filters_and_keeps_ratings(browser: Any, group_file: Path) -> None:
    found = opened_page(browser, group_file)
    names = found.locator("#results tbody tr:not(.space) th a")
    assert names.nth(0).inner_text().startswith("sub-005")  # the alarm, then the outlier
    assert names.nth(1).inner_text().startswith("s3")
    assert names.count() < 60  # of 400, those in view
    head = found.get_by_role("button", name="Noise, % of scale")
    head.press("Enter")  # the largest first
    assert names.nth(0).inner_text().startswith("s3")
    head.press("Enter")
    assert not names.nth(0).inner_text().startswith("s3")
    assert found.locator("th[aria-sort=ascending]").count() == 1
    found.get_by_label("Show").select_option("alarm")
    assert names.count() == 1
    found.get_by_role("combobox", name="Rating of").select_option("exclude")
    assert "1 exclude" in found.locator("#count").inner_text()
    with found.expect_download() as saved:
        found.get_by_role("button", name="Ratings as JSON").click()
    kept = json.loads(Path(saved.value.path()).read_text())
    assert list(kept["ratings"].values()) == ["exclude"]
    found.reload()
    found.wait_for_selector("body[data-ready=true]")
    assert "1 exclude" in found.locator("#count").inner_text()
    with found.expect_download() as saved:
        found.get_by_role("button", name="Table as CSV").click()
    lines = list(csv.reader(Path(saved.value.path()).read_text().splitlines()))
    assert len(lines) == 401
    assert {len(line) for line in lines} == {4 + len(COLUMNS)}
    found.locator("#scroll").evaluate("e => { e.scrollTop = 1e6; }")
    found.wait_for_timeout(200)
    assert names.count() < 60
    found.get_by_role("button", name="mosaic").click()
    assert found.locator("#results .thumb img").first.is_visible()
    found.context.close()
