from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from medddpm import __version__, errors
from medddpm.cli import app, console, groups, options
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
        "reconstruct",
        "undersample",
        "simulate-raw",
        "benchmark-raw",
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
    assert capsys.readouterr().err.splitlines() == ["tiles: 1000/1000"]


def test_a_log_hears_of_a_command_within_two_seconds_and_then_of_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert console.FIRST_S < 2
    monkeypatch.setattr(console, "FIRST_S", 0.1)
    monkeypatch.setattr(console, "_LEAST_S", 0.05)
    said = ""
    with progress("restore") as report:
        said += _heard(capsys)
        report("tiles", 1, 4)
        said += _heard(capsys)
    first, *_, last = said.splitlines()
    assert first == "restore: 0 s so far"
    assert re.fullmatch(r"tiles: 1/4, about \d s left", last)
    assert isinstance(report, console._PlainLines)
    assert not report.clock.is_alive()  # so nothing more is said
    assert capsys.readouterr().err == ""


def _heard(capsys: pytest.CaptureFixture[str]) -> str:
    deadline = time.monotonic() + 20
    while not (said := capsys.readouterr().err) and time.monotonic() < deadline:
        time.sleep(0.01)
    return said


def test_the_time_left_goes_by_the_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first steps of a run that goes on are read, not computed."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = console._PlainLines("cells")
    for step in range(200):
        now[0] += 0.001 if step < 100 else 10.0
        lines("cells", step + 1, 300)
    assert lines._line() == "cells: 200/300, about 17 min left"


def test_progress_draws_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress() as report:
        report("tiles", 1, 2)
        report("tiles", 2, 2)
    assert "tiles: 1/2" not in capsys.readouterr().err


def test_help_lists_every_command_in_a_group_with_a_whole_sentence(cli: Callable[..., Any]) -> None:
    told = cli("-h").stdout
    assert told == cli("--help").stdout
    assert "..." not in told.split("Restore scans:")[1]
    commands = [c.name or c.callback.__name__ for c in app.registered_commands]
    names = [*commands, "configs", "pipelines"]
    for name in names:
        assert re.search(rf"^  {name} +[A-Z]", told, flags=re.MULTILINE), name
    sections = re.findall(r"^([A-Z].*):$", told, flags=re.MULTILINE)
    assert sections == ["Options", *vars(groups)["ALL"]]
    for name in commands:
        assert cli(name, "-h").stdout.startswith("Usage")


def test_the_shell_completes_commands_and_options() -> None:
    code = "import sys; sys.argv = ['medddpm']\nfrom medddpm.cli import main\nmain()"
    for words, found in (
        ("medddpm est", "estimate-noise"),
        ("medddpm restore --fid", "--fidelity"),
    ):
        told = {"_MEDDDPM_COMPLETE": "complete_bash", "COMP_WORDS": words}
        told["COMP_CWORD"] = str(len(words.split()) - 1)
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | told,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == [found], done.stderr


def test_what_is_not_installed_comes_from_the_clone() -> None:
    assert errors.missing_extra("dask", "cluster").endswith("run pip install -e '.[cluster]'")
    package = Path(errors.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "pip install" not in text or path.name == "errors.py", path
    pyproject = tomllib.loads((package.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    named = {
        name
        for path in package.rglob("*.py")
        for name in re.findall(r'missing_extra\([^)]*?"(\w+)"\)', path.read_text(encoding="utf-8"))
    }
    assert {"cluster", "deidentify", "dicom", "mlflow", "node", "peers", "raw", "train"} <= named
    assert named <= set(extras)


def test_sigma_has_one_unit_in_the_help_of_each_command(cli: Callable[..., Any]) -> None:
    fraction = ("simulate", "simulate-raw", "benchmark", "benchmark-raw", "lesions", "calibrate")
    fraction += ("calibrate-guard",)
    for verb in ("restore", *fraction):
        told = " ".join(cli(verb, "-h").stdout.split())
        words = told.split("--sigma ")[-1][:120]
        assert ("raction of the intensity scale" in words) == (verb in fraction), verb
        assert ("scan units" in words) == (verb == "restore"), verb


def test_usage_errors_exit_with_2(cli: Callable[..., Any]) -> None:
    assert cli("restore").exit_code == 2
    assert cli("restore", "a", "b", "--mode", "magic").exit_code == 2
    assert cli("nothing").exit_code == 2


def test_help_of_restore_begins_with_what_a_newcomer_needs(cli: Callable[..., Any]) -> None:
    """At most ten options stand under the first heading; the others stand under their own."""
    said = cli("restore", "--help").stdout
    first = said[said.index("Options:") : said.index("Method:")]
    assert {"--mode", "--sigma", "--report"} <= set(first.split())
    assert first.count("\n  -") <= 10
    rest = said[said.index("Method:") :]
    for panel, option in (("Known noise:", "--noise-map"), ("Machine:", "--memory")):
        assert option in rest[rest.index(panel) :]
