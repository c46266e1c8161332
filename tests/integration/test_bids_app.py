"""`medddpm-bids` as a container or a job array calls it."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medddpm.cli.bids import main

Bids = Callable[..., int]
Cli = Callable[..., Any]


@pytest.fixture
def raw(tmp_path: Path, noisy_nifti: Path) -> Path:
    """Two subjects, one of them with a bad scan."""
    root = tmp_path / "raw"
    for name in ("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_T2w.nii.gz"):
        (root / name).parent.mkdir(parents=True)
        shutil.copy(noisy_nifti, root / name)
    (root / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_T1w.nii.gz").write_text("no scan")
    description = {"Name": "phantoms", "BIDSVersion": "1.10.0", "License": "CC0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    (root / "README.md").write_text("Phantoms made in code, for a test.\n" * 5)
    return root


@pytest.fixture
def bids(raw: Path, tmp_path: Path, tiny_weights: Path) -> Bids:
    """Runs a level: bids("participant", "--nprocs", 2); returns the exit code."""

    def run(level: str, *options: object) -> int:
        words = [raw, tmp_path / "out", level, "--sigma", 50, "--weights", tiny_weights, *options]
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


def test_participants_one_by_one_then_the_group(
    bids: Bids, cli: Cli, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--skip-bids-validator",)
    few = ("--mode", "ensemble", "--set", "restore.samples=2", "--set", "restore.steps=1")
    assert bids("participant", "--participant-label", "01", *common, *few) in (0, 6)
    out = tmp_path / "out"
    anat = out / "sub-01" / "anat"
    names = [f"sub-01_desc-denoised{n}_T1w" for n in ("", "lower", "std", "upper")]
    wanted = sorted(f"{name}{s}" for name in names for s in (".json", ".nii.gz"))
    assert sorted(p.name for p in anat.iterdir()) == wanted
    for name in names:
        sidecar = json.loads((anat / f"{name}.json").read_text())
        assert sidecar["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]
        assert sidecar["SkullStripped"] is False
    assert not (out / "sub-02").exists()
    assert bids("participant", "--participant-label", "sub-02", *common, *few) == 7
    session = ("--participant-label", "02", "--session-label", "a")
    assert bids("participant", *session, *common, *few) == 7
    assert bids("participant", *session, *common) == 2  # other settings do not mix with these
    assert "begun with another mode" in capsys.readouterr().err
    assert bids("group", *common, *few) == 7
    page = (out / "sub-01.html").read_text()
    assert "data:image/png" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "Removed noise of" in page
    index = (out / "index.html").read_text()
    assert 'href="sub-02.html"' in index
    assert 'href="cohort.html"' in index
    group = (out / "cohort.html").read_text(encoding="utf-8")
    assert 'href="sub-01/anat/sub-01_desc-denoised_T1w.json"' in group
    assert "1 could not be restored" in group
    done = cli("report", anat / f"{names[0]}.json")
    assert done.exit_code == 0, done.stderr
    page = (anat / f"{names[0]}.html").read_text(encoding="utf-8")
    assert ">Uncertainty</button>" in page  # its map has a BIDS name
    done = cli("replay", anat / f"{names[0]}.json", "--weights", tiny_weights)
    assert "the same bytes" in done.stdout
    rows = list(csv.DictReader((out / "cohort.csv").read_text().splitlines()))
    assert sorted(row["state"] == "failed" for row in rows) == [False, False, True]
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["DatasetLinks"] == {"raw": "../raw"}
    assert "1 x VolumeReadError" in capsys.readouterr().out


def test_wrong_use(bids: Bids, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bids("participant", "--skip-bids-validator", "--participant-label", "03") == 2
    assert "no subject 03" in capsys.readouterr().err
    assert bids("participant", "--skip-bids-validator", "--nprocs", "0") == 2
    assert bids("session") == 2
    (raw / "dataset_description.json").unlink()
    assert bids("participant", "--skip-bids-validator") == 2
    assert "no BIDS data set" in capsys.readouterr().err
    assert bids("participant", "--version") == 0


@pytest.mark.peers
def test_the_derivative_is_valid(bids: Bids, raw: Path, tmp_path: Path) -> None:
    from medddpm.cohort.bids.app import validation_errors

    tool = "bids-validator-deno"
    if not (shutil.which(tool) or shutil.which(tool, path=str(Path(sys.executable).parent))):
        pytest.skip("bids-validator-deno is not installed")
    assert bids("participant") == 2  # the raw data hold a file that is no scan
    (raw / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_T1w.nii.gz").unlink()
    few = ("--mode", "ensemble", "--set", "restore.samples=2", "--set", "restore.steps=1")
    assert bids("participant", *few) in (0, 6)
    assert bids("group", "--skip-bids-validator", *few) in (0, 6)
    assert validation_errors(tmp_path / "out") == []
    (tmp_path / "out" / "sub-01" / "anat" / "sub-01_stat-std_T1w.nii.gz").touch()
    assert validation_errors(tmp_path / "out")
