from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from medddpm import __version__, errors
from medddpm.cli import options
from medddpm.cli.console import progress
from medddpm.cli.run import reports_errors, set_debug

HEAVY = ("torch", "monai", "numpy", "scipy", "nibabel", "pydicom", "pydantic", "matplotlib")


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['medddpm', '--help']\n"
        "import medddpm.cli\n"
        "try: medddpm.cli.main()\n"
        f"finally: assert not set(sys.modules) & set({HEAVY}), 'heavy import'\n"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    assert "restore" in done.stdout
    assert seconds < 2  # 0.2 s on a quiet machine; a busy one must not fail the test


def test_version(cli: Callable[..., Any]) -> None:
    assert cli("--version").stdout.strip() == f"medddpm {__version__}"


@pytest.mark.parametrize(
    "verb",
    [
        "restore",
        "simulate",
        "estimate-noise",
        "evaluate",
        "train",
        "info",
        "convert",
        "prepare",
        "quickstart",
        "report",
        "replay",
        "cohort",
    ],
)
def test_every_verb_has_help(cli: Callable[..., Any], verb: str) -> None:
    done = cli(verb, "--help")
    assert done.exit_code == 0
    assert "Usage" in done.stdout


@pytest.mark.parametrize(
    ("text", "gigabytes"), [("8GB", 8), ("500 MB", 0.5), ("1.5g", 1.5), ("2GiB", 2 * 1.073741824)]
)
def test_memory_sizes(text: str, gigabytes: float) -> None:
    assert options.parse_memory(text) == pytest.approx(gigabytes)


@pytest.mark.parametrize("text", ["8", "0GB", "-1GB", "much", "8GBs", ""])
def test_memory_needs_a_size_and_a_unit(text: str) -> None:
    with pytest.raises(errors.ConfigError, match="8GB"):
        options.parse_memory(text)


def test_no_memory_given() -> None:
    assert options.parse_memory(None) is None


def test_sigma() -> None:
    assert options.parse_sigma("auto") is None
    assert options.parse_sigma("12.5") == 12.5
    for text in ("-1", "0", "nan", "inf", "loud"):
        with pytest.raises(errors.ConfigError, match="--sigma"):
            options.parse_sigma(text)


def test_device() -> None:
    assert options.parse_device("cuda:1") == "cuda:1"
    with pytest.raises(errors.ConfigError, match="--device"):
        options.parse_device("gpu")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("x"), 2),
        (errors.MemoryBudgetError("x"), 2),
        (errors.VolumeReadError("x"), 3),
        (errors.CheckpointError("x"), 3),
        (errors.GeometryError("x"), 4),
        (errors.ShapeError("x"), 4),
        (errors.OutputError("x"), 5),
        (errors.CohortError("x"), 7),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @reports_errors
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_says_where_its_traceback_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    @reports_errors
    def command() -> None:
        raise RuntimeError("unforeseen")

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    log = said.strip().split(" ")[-1]
    with open(log, encoding="utf-8") as file:
        assert "unforeseen" in file.read()


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    @reports_errors
    def command() -> None:
        raise errors.OutputError("x")

    set_debug(True)
    try:
        with pytest.raises(typer.Exit):
            command()
    finally:
        set_debug(False)
    assert "Traceback" in capsys.readouterr().err


def test_progress_prints_few_plain_lines_off_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress() as report:
        for done in range(1001):
            report("tiles", done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "tiles: 1000/1000"
    assert len(lines) <= 11


def test_progress_draws_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress() as report:
        report("tiles", 1, 2)
        report("tiles", 2, 2)
    assert "tiles: 1/2" not in capsys.readouterr().err


def test_usage_errors_exit_with_2(cli: Callable[..., Any]) -> None:
    assert cli("restore").exit_code == 2
    assert cli("restore", "a", "b", "--mode", "magic").exit_code == 2
    assert cli("nothing").exit_code == 2
