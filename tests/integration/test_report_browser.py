"""The report page in headless Chromium: it draws, its controls work, and it stays at home.

Needs `pip install -e '.[browser]'` and a Chromium of the system (apt-get install chromium).
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.sidecars import content_of

from medddpm.io.sidecar import Sidecar
from medddpm.report.facts import ReportScan
from medddpm.report.group import COLUMNS, GroupRow, group_page
from medddpm.report.page import report_page
from medddpm.volume import Geometry

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
SOFTWARE = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
COS, SIN = np.cos(0.3), np.sin(0.3)
AFFINE = np.array([[COS, -1.2 * SIN, 0, 5], [SIN, 1.2 * COS, 0, -20], [0, 0, 0.9, 7], [0, 0, 0, 1]])
PLACE = AFFINE[:3] @ [9, 21, 30, 1]
EVIL = '</title></script><img src="https://example.org/x.png" onerror="alert(1)">'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE)
        yield found
        found.close()


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with uncertainty, whose name and facts hold markup; 32 x 36 x 40 voxels."""
    rng = np.random.default_rng(5)
    shape = (32, 36, 40)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    clean = np.where(x**2 + y**2 + z**2 < 0.8, 500 + 300 * (x + 0.3 > y) + 200 * z, 0)
    before = np.hypot(clean + rng.normal(0, 60, shape), rng.normal(0, 60, shape))
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
        before.astype(np.float32),
        clean.astype(np.float32),
        Geometry(shape, AFFINE),
        Sidecar.model_validate(told),
        std=(20 + 20 * (x > 0)).astype(np.float32),
        card={"limits": EVIL},
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report_page(scan), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(browser: Any, report_file: Path) -> Iterator[Any]:
    """The page once its viewer has drawn; `page.noise` holds what must not happen."""
    context = browser.new_context(viewport={"width": 700, "height": 600})
    opened = context.new_page()
    opened.noise = []
    opened.on("console", lambda m: opened.noise.append(f"console {m.type}: {m.text}"))
    opened.on("pageerror", lambda e: opened.noise.append(f"error: {e}"))
    opened.on("dialog", lambda d: (opened.noise.append(f"dialog {d.message}"), d.dismiss()))
    opened.on("request", lambda r: opened.noise.append(f"request {r.url[:80]}"))
    opened.goto(report_file.as_uri())
    opened.wait_for_selector("body[data-ready=true]", timeout=120_000)
    yield opened
    context.close()


def pixels(page: Any, selector: str) -> np.ndarray:
    """What a person sees there, after the page has drawn."""
    page.wait_for_timeout(150)
    png = page.locator(selector).screenshot()
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)


def test_it_draws_every_pane_and_asks_nobody_for_anything(page: Any, report_file: Path) -> None:
    for name in ("before", "after", "residual", "uncertainty"):
        drawn = pixels(page, f"[data-pane={name}]")
        assert drawn.std() > 10, name
    before, after = (pixels(page, f"[data-pane={n}]") for n in ("before", "after"))
    assert np.abs(before - after).mean() > 2
    assert page.noise == [f"request {report_file.as_uri()[:80]}"]
    assert page.title() == f"{EVIL}: restoration report"
    assert page.locator("h1").inner_text() == EVIL


def test_the_slice_slider_changes_all_panes(page: Any) -> None:
    slider = page.get_by_role("slider", name="Down-up")
    names = ("before", "after", "residual")
    old = {n: pixels(page, f"[data-pane={n}]") for n in names}
    slider.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    assert page.locator("#z-value").inner_text() != ""
    for name in names:
        assert np.abs(pixels(page, f"[data-pane={name}]") - old[name]).mean() > 1, name


def test_a_click_moves_the_cross_hair_of_the_others(page: Any) -> None:
    old, told = pixels(page, "[data-pane=after]"), page.locator("#values").inner_text()
    box = page.locator("#canvas-before").bounding_box()
    page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"])
    assert np.abs(pixels(page, "[data-pane=after]") - old).max() > 50
    assert page.locator("#values").inner_text() != told


def test_keys_move_the_slice_on_a_picture(page: Any) -> None:
    value = page.locator("#z-value")
    first = value.inner_text()
    page.locator("#canvas-after").focus()
    page.keyboard.press("PageUp")
    assert value.inner_text() != first
    page.keyboard.press("PageDown")
    assert value.inner_text() == first
    x = page.locator("#x-value").inner_text()
    page.keyboard.press("ArrowRight")  # to the patient's left: a smaller x
    assert int(page.locator("#x-value").inner_text().split()[0]) == int(x.split()[0]) - 1


def test_a_place_of_a_check_moves_the_cross_hair_there(page: Any, report_file: Path) -> None:
    places = page.get_by_role("button", name="Show the place of")
    assert places.count() == 2
    old = pixels(page, "[data-pane=residual]")
    places.nth(0).press("Enter")
    told = page.locator("#values")
    assert told.inner_text().startswith(f"At {', '.join(f'{v:.1f}' for v in PLACE)} mm")
    assert page.evaluate("document.activeElement.id") == "canvas-after"
    assert np.abs(pixels(page, "[data-pane=residual]") - old).mean() > 1
    places.nth(1).click()
    assert page.locator("#x-value").inner_text().startswith("1 of")
    last, of = page.locator("#y-value").inner_text().split(" of ")
    assert last == of
    page.get_by_role("button", name="Reset").click()


def test_planes_window_and_residual_have_their_controls(page: Any) -> None:
    for name, control, key in (("after", "Window", "Home"), ("residual", "Residual", "Home")):
        old, other = (pixels(page, f"[data-pane={n}]") for n in (name, "uncertainty"))
        page.get_by_role("slider", name=control).focus()
        page.keyboard.press(key)
        assert np.abs(pixels(page, f"[data-pane={name}]") - old).mean() > 2, control
        np.testing.assert_array_equal(pixels(page, "[data-pane=uncertainty]"), other)
    page.get_by_role("button", name="Reset").press("Enter")
    seen = []
    for plane in ("axial", "coronal", "sagittal", "all"):
        page.get_by_role("radio", name=plane).check()
        seen.append(pixels(page, "[data-pane=after]"))
    assert all(np.abs(a - b).mean() > 1 for i, a in enumerate(seen) for b in seen[:i])
    page.get_by_role("button", name="Reset").click()


def test_the_swipe_shows_before_on_its_left_and_after_on_its_right(page: Any) -> None:
    page.get_by_role("radio", name="swipe").check()
    slider = page.get_by_role("slider", name="Swipe")

    def at(share: int) -> np.ndarray:
        slider.fill(str(share))
        return pixels(page, "[data-pane=before]")

    before, half, after = at(100), at(50), at(0)
    width = before.shape[1]
    left, right = slice(10, width // 2 - 12), slice(width // 2 + 12, width - 10)
    rows = slice(40, None)  # below the captions
    assert np.abs(before - after)[rows].mean() > 2
    np.testing.assert_array_equal(half[rows, left], before[rows, left])
    np.testing.assert_array_equal(half[rows, right], after[rows, right])
    box = page.locator("#divider").bounding_box()
    slider.fill("50")
    box = page.locator("#divider").bounding_box()
    page.mouse.move(box["x"] + 8, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 108, box["y"] + 100)
    page.mouse.up()
    assert int(slider.input_value()) > 55
    page.get_by_role("button", name="Reset").click()


def test_every_control_and_picture_has_a_name(page: Any) -> None:
    for name in ("Left-right", "Back-front", "Down-up", "Window", "Level", "Residual"):
        assert page.get_by_role("slider", name=name).count() == 1
    assert page.get_by_role("img", name="Before. Arrow keys").count() == 1
    assert page.get_by_role("img", name="Sagittal, coronal").count() == 1
    assert page.get_by_role("radio").count() == 6
    assert page.locator("canvas:not([aria-label])").count() == 0


def test_print_shows_pictures_instead_of_the_viewer(page: Any) -> None:
    page.emulate_media(media="print")
    assert not page.locator("#viewer").is_visible()
    assert page.locator("img.still").is_visible()
    assert page.get_by_text("Research use only").is_visible()
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") <= 3
    page.emulate_media(media="screen")


def test_nothing_went_wrong_on_the_way(page: Any) -> None:
    assert len(page.noise) == 1


@pytest.mark.parametrize("missing", ["JavaScript", "WebGL"])
def test_without_the_viewer_there_are_pictures(
    browser: Any, report_file: Path, missing: str
) -> None:
    context = browser.new_context(java_script_enabled=missing != "JavaScript")
    page = context.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(report_file.as_uri())
    assert page.locator("img.still").is_visible()
    assert page.get_by_text("The interactive viewer needs").is_visible()
    assert page.locator("button.place:enabled").count() == 0
    assert not page.locator("#viewer").is_visible()
    context.close()


def test_the_group_table_sorts_by_a_press_of_a_key(browser: Any, tmp_path: Path) -> None:
    rows = [
        GroupRow(f"s{i}{EVIL}", f"s{i}.html", dict.fromkeys(COLUMNS, 0.1 * v), ())
        for i, v in enumerate((2.0, 1.0, 30.0, 1.5))
    ]
    path = tmp_path / "index.html"
    path.write_text(group_page(rows), encoding="utf-8")
    page = browser.new_page()
    noise: list[str] = []
    page.on("console", lambda m: noise.append(m.text))
    page.on("request", lambda r: noise.append(r.url))
    page.goto(path.as_uri())
    names = page.locator("tbody tr td:first-child a")
    assert names.nth(0).inner_text().startswith("s2")  # the outlier
    head = page.get_by_role("button", name="Sigma, of the scale")
    for first in ("s2", "s1"):
        head.press("Enter")
        assert names.nth(0).inner_text().startswith(first)
    assert page.locator("th[aria-sort=ascending]").count() == 1
    assert page.get_by_role("img", name="Sigma, of the scale: 0.1").count() == 1
    assert noise == [path.as_uri()]
    page.emulate_media(media="print")
    table = page.locator("#results")
    assert table.evaluate("e => e.scrollWidth <= e.parentElement.clientWidth")  # nothing is cut off
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert b"/MediaBox [0 0 841" in pdf  # A4, landscape
    page.close()
