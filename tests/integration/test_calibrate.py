"""`medddpm calibrate` with a tiny model: what it writes is what a restoration then uses."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from medddpm.restoration.model import load_model

OPTIONS = ["--samples", "2", "--steps", "1", "--sigma", "0.03", "--sigma", "0.09"]


@pytest.fixture
def scans(tmp_path, head, save_nifti, oblique_affine):
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, shape in enumerate([(32, 34, 30), (30, 32, 34)]):
        save_nifti(folder / f"sub-{number}_T1w.nii.gz", head(shape), oblique_affine)
    return folder


def test_calibrated_weights_hold_what_they_promise(cli, tmp_path, scans, tiny_weights):
    out = tmp_path / "out"
    first = cli("calibrate", scans, "--out", out, "--weights", tiny_weights, *OPTIONS)
    assert first.exit_code == 0, first.stderr
    assert "sub-1_T1w" in first.stdout
    rows = list(csv.DictReader((out / "coverage.csv").read_text().splitlines()))
    assert [row["sigma"] for row in rows] == ["0.03", "0.03", "0.09", "0.09"]
    before, after = load_model(tiny_weights), load_model(out / "model.safetensors")
    assert all((a == b).all() for a, b in zip(before.parameters(), after.parameters(), strict=True))
    table = after.card["calibration"]
    assert table["subjects"] == 2
    assert len(table["factors"]) == 2
    assert table == json.loads((out / "calibration.json").read_text())
    nominal, observed = zip(*table["reliability"], strict=True)
    assert nominal[0] < nominal[-1]
    assert list(observed) == sorted(observed)
    assert table["risk_coverage"][-1][0] == 1

    noisy = scans / "sub-0_T1w.nii.gz"
    args = ["--mode", "ensemble", "--set", "restore.samples=2", "--set", "restore.steps=1"]
    done = cli("restore", noisy, tmp_path / "r", "--weights", out / "model.safetensors", *args)
    assert done.exit_code in (0, 6), done.stderr
    stem = tmp_path / "r" / "sub-0_T1w_desc-denoised"
    facts = json.loads(stem.with_name(stem.name + ".json").read_text())
    assert facts["interval"]["calibrated"]
    image, std, upper = (
        nib.load(stem.with_name(stem.name + end)).get_fdata()
        for end in (".nii.gz", "_std.nii.gz", "_upper.nii.gz")
    )
    width = (upper - image)[std > 0] / std[std > 0]
    factors = np.array(table["factors"])
    assert factors.min() * 0.99 <= width.min()
    assert width.max() <= factors.max() * 1.01


def test_a_second_run_takes_what_is_there(cli, tmp_path, scans, tiny_weights):
    arguments = ["calibrate", scans, "--out", tmp_path / "o", "--weights", tiny_weights, *OPTIONS]
    assert cli(*arguments).exit_code == 0
    points = sorted((tmp_path / "o" / "points").iterdir())
    stamps = [path.stat().st_mtime_ns for path in points]
    refused = cli(*arguments)
    assert refused.exit_code == 5
    assert "exists already" in refused.stderr
    table = (tmp_path / "o" / "calibration.json").read_bytes()
    assert cli(*arguments, "--overwrite").exit_code == 0
    assert (tmp_path / "o" / "calibration.json").read_bytes() == table
    assert [path.stat().st_mtime_ns for path in points] == stamps


def test_one_subject_alone_is_refused_before_any_work(cli, tmp_path, scans, tiny_weights):
    (scans / "sub-1_T1w.nii.gz").unlink()
    done = cli("calibrate", scans, "--out", tmp_path / "o", "--weights", tiny_weights)
    assert done.exit_code == 2
    assert "one subject" in done.stderr
    assert not (tmp_path / "o").exists()


def test_a_table_tells_who_is_who(cli, tmp_path, scans, tiny_weights):
    table = scans / "list.csv"
    table.write_text("file,subject\nsub-0_T1w.nii.gz,anna\nsub-1_T1w.nii.gz,anna\n")
    done = cli("calibrate", table, "--out", tmp_path / "o", "--weights", tiny_weights)
    assert done.exit_code == 2
    assert "one subject" in done.stderr
