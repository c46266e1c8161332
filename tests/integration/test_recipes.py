"""The recipes for batch systems and containers: what can be checked without them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from medddpm.cli.bids import _parser
from medddpm.share import share_dir

PIPELINES = share_dir() / "pipelines"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for subject in ("sub-02", "sub-10", "sub-01"):
        (tmp_path / "raw" / subject).mkdir(parents=True)
    return tmp_path / "raw"


@pytest.mark.parametrize(("task", "subject"), [(1, "sub-01"), (3, "sub-10"), (4, None)])
def test_a_task_of_the_slurm_array(
    task: int, subject: str | None, raw: Path, tmp_path: Path
) -> None:
    """The script runs, with a program in place of ours that prints what it is given."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    program = tmp_path / "bin" / "medddpm-bids"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, PIPELINES / "slurm_array.sh", raw, "out", "--mode", "mean"],
        env={"PATH": path, "SLURM_ARRAY_TASK_ID": str(task)},
        capture_output=True,
        text=True,
        check=True,
    )
    if subject is None:
        assert done.stdout == ""
        assert "only 3 subjects" in done.stderr
        return
    given = _parser().parse_args(done.stdout.split())
    assert given.participant_label == [subject]
    assert (given.bids_dir, given.analysis_level, given.mode) == (raw, "participant", "mean")


def test_snakemake_plans_a_job_a_subject(raw: Path, tmp_path: Path) -> None:
    tool = shutil.which("snakemake")
    if tool is None:
        pytest.skip("snakemake is not installed")
    config = [f"raw={raw}", f"out={tmp_path / 'out'}"]
    command = [tool, "-n", "-s", PIPELINES / "Snakefile", "--cores", "1", "--config", *config]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "participant        3" in done.stdout + done.stderr


def test_the_options_of_babs_are_ours() -> None:
    recipe = yaml.safe_load((PIPELINES / "babs_medddpm.yaml").read_text(encoding="utf-8"))
    words = ["raw", "out", "participant"]
    for flag, value in recipe["bids_app_args"].items():
        name = "--participant-label" if flag == "$SUBJECT_SELECTION_FLAG" else flag
        words += [name, "sub-01" if name != flag else value] if value else [name]
    assert _parser().parse_args(words).participant_label == ["sub-01"]


@pytest.mark.parametrize("name", ["Dockerfile", "Apptainer.def"])
def test_containers_run_the_bids_app(name: str) -> None:
    text = (PIPELINES / "containers" / name).read_text(encoding="utf-8")
    assert text.startswith("# The BIDS App")
    assert f"{'docker' if name == 'Dockerfile' else 'apptainer'} build" in text
    assert "medddpm-bids" in text.splitlines()[-1]
