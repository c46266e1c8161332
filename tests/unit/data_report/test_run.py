from __future__ import annotations

import csv
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medddpm.data.manifest import ScanRow, write_manifest
from medddpm.data_report.run import data_report
from medddpm.errors import ConfigError, OutputError

Cli = Callable[..., Any]
SITES = ("<script>alert(1)</script>", '" onerror="x', "Site $x$ & Co", "京都")


class Page(HTMLParser):
    """The tags of a page, with what each must have."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def scans(num: int = 80) -> list[ScanRow]:
    splits = ("train", "train", "val", "test")
    return [
        ScanRow(
            f"sub-{n:02d}_T1w",
            f"sub-{n:02d}",
            contrast="T1w",
            spacing="1x1x1",
            sex="FM"[n // 4 % 2],
            age=str(20 + n % 50),
            site=SITES[n // 8 % 4],
            scanner=f"<b>S{n // 4 % 2}</b>",
            file=f"raw/scan-{n}.nii.gz",
            split=splits[n % 4],  # type: ignore[arg-type]
        )
        for n in range(num)
    ]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    folder = tmp_path / "prepared"
    (folder / "quality").mkdir(parents=True)
    write_manifest(folder / "manifest.csv", scans())
    (folder / "ledger.csv").write_text("scan,code,reason\nx,corrupt,<i>ends early</i>\n")
    Image.new("L", (2000, 500)).save(folder / "quality" / "contact-1.png")
    (folder / "quality" / "contact-2.png").write_bytes(b"no picture")
    return folder


def write_rows(
    path: Path,
    *,
    worse: str = "",
    by: str = "scan",
    only: tuple[str, ...] = ("val", "test"),
) -> Path:
    """A benchmark's rows, and 2 dB less for one site."""
    rng = np.random.default_rng(0)
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["case", "noise", "sigma_fraction", "method", "sigma_source", "psnr", "ssim"]
        )
        for row in scans():
            name = row.scan if by == "scan" else Path(row.file).name.removesuffix(".nii.gz")
            for sigma in (0.03, 0.09):
                if row.split in only:
                    psnr = rng.normal(33, 0.3) - 2 * (row.site == worse)
                    table.writerow([name, "rician", sigma, "identity", "none", 26, 0.5])
                    table.writerow([name, "rician", sigma, "mean", "blind", psnr, 0.9])
    return path


def test_each_kind_of_noise_is_judged_for_itself(prepared: Path, tmp_path: Path) -> None:
    """Rows of two kinds share scan, level and method, and must not stand for each other."""
    path = write_rows(tmp_path / "bench" / "rows.csv")
    with path.open() as file:
        header, *rows = list(csv.reader(file))
    psnr = header.index("psnr")
    better = [[r[0], "acquired", *r[2:psnr], str(float(r[psnr]) + 9), *r[psnr + 1 :]] for r in rows]
    white = [[r[0], "white", *r[2:]] for r in rows]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *white, *better])
    report = data_report(prepared, tmp_path / "page.html", results=path)
    assert report.results is not None
    names = [method.method for method in report.results.methods]
    assert names == ["mean, white noise (blind)", "mean, noise as acquired (blind)"]
    first, second = (method.groups[0].mean for method in report.results.methods)
    assert second == pytest.approx(first + 9, abs=1e-6)


def test_the_page_stands_alone_and_names_cannot_break_it(prepared: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "bench" / "rows.csv", worse=SITES[0])
    pages = [tmp_path / name for name in ("one.html", "two.html")]
    for path in pages:
        data_report(prepared, path, results=rows)
    text = pages[0].read_text(encoding="utf-8")
    assert pages[1].read_text(encoding="utf-8") == text
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "b", "i"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/")
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert [a.get("alt") for t, a in page.tags if t == "img"][-1] == "contact sheet contact-1.png"
    assert "unreadable: contact-2.png" in text
    _check_plots(text)


def _check_plots(text: str) -> None:
    """Names are text in them, whatever their script, and never a tag or a formula."""
    plots = re.findall(r"<svg .*?</svg>", text)
    assert len(plots) == 7
    assert any("京都" in plot and "Site $x$ &amp; Co" in plot for plot in plots)
    assert not any("<script" in plot or "<b>" in plot for plot in plots)


@pytest.mark.parametrize("by", ["scan", "file"])
def test_a_worse_site_is_flagged_whatever_the_benchmark_called_the_scans(
    by: str, cli: Cli, prepared: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "bench" / "rows.csv", worse=SITES[2], by=by)
    page = tmp_path / "page.html"
    done = cli("data-report", prepared, "--results", tmp_path / "bench", "--out", page)
    assert done.exit_code == 6, done.stderr
    flags = [line for line in done.stderr.splitlines() if line.startswith("flagged")]
    assert len(flags) == 1
    assert "site Site $x$ & Co is restored worse than the rest, -1.9" in flags[0]
    assert "8 subjects against 32" in flags[0]
    assert '<span class="flag">worse</span>' in page.read_text(encoding="utf-8")


def test_no_flag_without_a_difference(cli: Cli, prepared: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "bench" / "rows.csv")
    (tmp_path / "bench" / "results.json").write_text("{}")
    page = tmp_path / "page.html"
    results = tmp_path / "bench" / "results.json"
    done = cli("data-report", prepared, "--results", results, "--out", page, "--metric", "ssim")
    assert done.exit_code == 0, done.stderr
    assert f"80 subjects, 80 scans; the page is {page}" in done.stdout


def test_scans_that_were_trained_on_are_set_aside_or_warned_of(
    prepared: Path, tmp_path: Path
) -> None:
    everything = write_rows(tmp_path / "b" / "rows.csv", only=("train", "val", "test"))
    done = data_report(prepared, tmp_path / "page.html", results=everything)
    assert done.results is not None
    assert done.results.methods[0].scans == 40
    assert done.results.used.endswith("Those of 40 more, in train or left out, are not used.")
    seen = write_rows(tmp_path / "b" / "rows.csv", only=("train",))
    done = data_report(prepared, tmp_path / "page.html", results=seen, overwrite=True)
    assert done.results is not None
    assert "misleads" in done.results.warning


def test_a_leak_is_flagged(cli: Cli, prepared: Path, tmp_path: Path) -> None:
    twin = ScanRow("twin", "sub-00", split="test")
    write_manifest(prepared / "manifest.csv", [*scans(), twin])
    done = cli("data-report", prepared, "--out", tmp_path / "page.html")
    assert done.exit_code == 6
    assert "1 subject in more than one split: sub-00" in done.stderr


def test_one_split_and_unknown_columns_are_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("scan,subject,split,mood\na,1,train,good\n")
    done = data_report(tmp_path, tmp_path / "page.html")
    assert done.report.remarks[0] == "Only train holds scans: splits cannot be compared."


HEAD = "case,method,sigma_fraction,sigma_source,psnr\n"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("case,method,sigma_fraction,sigma_source\n", "has no column psnr"),
        (HEAD, "of no scan of the manifest: looked for nothing"),
        (f"{HEAD}other,mean,0.1,none,30\n", "looked for other among the scans.*sub-00_T1w"),
        (f"{HEAD}sub-02_T1w,mean,0.1,none,high\n", "line 2: psnr is 'high'"),
        (f"{HEAD}sub-02_T1w,identity,0.1,none,30\n", "no restoration"),
        (f"{HEAD}sub-02_T1w,mean\n", "line 2: sigma is ''"),
        ("\x00\xff", "no CSV table|no column"),
    ],
)
def test_results_that_cannot_be_used(rows: str, words: str, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(rows.encode("latin-1"))
    with pytest.raises(ConfigError, match=words):
        data_report(prepared, tmp_path / "page.html", results=tmp_path)
    assert not (tmp_path / "page.html").exists()


def test_names_that_are_unknown_are_said_and_the_rest_is_used(
    prepared: Path, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "bench" / "rows.csv")
    with path.open("a") as file:
        file.write("stranger,rician,0.03,mean,blind,30,0.9\n")
    data_report(prepared, tmp_path / "page.html", results=path)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Not in the manifest, and not used: stranger." in text


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (None, "`medddpm prepare` writes it"),
        (b"scan,subject,split\n", "lists no scan"),
        (b"scan,subject,split\na,1,held\n", "split of a is 'held'"),
    ],
)
def test_manifests_that_cannot_be_used(
    manifest: bytes | None, words: str, cli: Cli, tmp_path: Path
) -> None:
    if manifest is not None:
        (tmp_path / "manifest.csv").write_bytes(manifest)
    done = cli("data-report", tmp_path, "--out", tmp_path / "page.html")
    assert done.exit_code == 2
    assert words in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_ledger_without_its_columns_is_refused(prepared: Path, tmp_path: Path) -> None:
    (prepared / "ledger.csv").write_text("scan,why\n")
    with pytest.raises(ConfigError, match="has no column code, reason"):
        data_report(prepared, tmp_path / "page.html")


def test_nothing_is_written_over(prepared: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        data_report(prepared, page)
    assert page.read_text() == "mine"
    data_report(prepared, page, overwrite=True)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(OutputError, match="is a folder"):
        data_report(prepared, prepared, overwrite=True)
    with pytest.raises(ConfigError, match=r"\.html"):
        data_report(prepared, tmp_path / "page.pdf")
    with pytest.raises(ConfigError, match="does not exist; give the folder"):
        data_report(prepared, tmp_path / "new.html", results=tmp_path / "nowhere")
