"""`medddpm calibrate` with a tiny model: what it writes is what a restoration then uses."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from medddpm.benchmark.degradation import NoiseModel, degrade
from medddpm.benchmark.measure import prepare_case
from medddpm.benchmark.options import BenchmarkOptions
from medddpm.calibration.run import CalibrationOptions, calibrate
from medddpm.data.scan_list import ScanList
from medddpm.io import read_volume
from medddpm.model.model import load_model
from medddpm.restoration.restorer import RestoreOptions, Restorer

OPTIONS = ["--samples", "2", "--steps", "1", "--sigma", "0.03", "--sigma", "0.09"]
WHITE = [*OPTIONS, "--noise", "white"]


def test_calibrated_weights_hold_what_they_promise(cli, tmp_path, two_heads, tiny_weights):
    out = tmp_path / "out"
    first = cli("calibrate", two_heads, "--out", out, "--weights", tiny_weights, *OPTIONS)
    assert first.exit_code == 0, first.stderr
    assert "sub-1_T1w" in first.stdout
    rows = list(csv.DictReader((out / "coverage.csv").read_text().splitlines()))
    assert [row["sigma_fraction"] for row in rows] == ["0.03", "0.03", "0.09", "0.09"] * 2
    assert [row["noise"] for row in rows] == ["acquired"] * 4 + ["white"] * 4
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

    noisy = two_heads / "sub-0_T1w.nii.gz"
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


def test_test_scans_are_tested_and_not_fitted(
    cli, tmp_path, two_heads, tiny_weights, head, save_nifti, oblique_affine
):
    other = save_nifti(tmp_path / "sub-7_T1w.nii.gz", head((32, 30, 32)), oblique_affine)
    base = ["--weights", tiny_weights, *WHITE]
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert cli("calibrate", two_heads, "--out", alone, *base).exit_code == 0
    done = cli("calibrate", two_heads, "--out", both, "--test", other, *base)
    assert done.exit_code == 0, done.stderr
    assert "Test scans" in done.stdout
    first, second = (json.loads((o / "calibration.json").read_text()) for o in (alone, both))
    assert first["factors"] == second["factors"]
    assert second["test_scans"] == ["sub-7_T1w"]
    assert set(second["coverage_of_test_scans"]) == {"0.03", "0.09"}
    card = load_model(both / "model.safetensors").card["calibration"]
    assert card == second
    for name in ("reliability", "risk_coverage"):
        assert all(round(value, 4) == value for row in card[name] for value in row)
        assert card[name] != first[name]  # the curves are those of the test scan
    refused = cli("calibrate", two_heads, "--out", tmp_path / "x", "--test", two_heads, *base)
    assert refused.exit_code == 2
    assert "in one of them only" in refused.stderr


def test_what_is_reported_is_the_coverage_of_what_restore_writes(
    cli, tmp_path, two_heads, tiny_weights, head, save_nifti, oblique_affine
):
    """To the voxel, with the sigma and the scale that the restoration finds by itself."""
    other = save_nifti(tmp_path / "sub-7_T1w.nii.gz", head((32, 30, 32)), oblique_affine)
    options = RestoreOptions(samples=2, steps=1)
    what = CalibrationOptions((0.06,), ("white",), options, test=ScanList(other))
    done = calibrate(ScanList(two_heads), tmp_path / "o", what, weights=tiny_weights)
    case = prepare_case(read_volume(other), BenchmarkOptions(sigmas=(0.06,)))
    noisy = degrade(case.volume, 0.06 * case.scale, NoiseModel())
    restorer = Restorer.from_pretrained(done.weights)
    found = restorer.restore(noisy, options=options, mode="ensemble")
    assert found.std is not None
    assert found.lower is not None
    assert found.upper is not None
    clean = case.volume.data
    inside = case.regions["foreground"] & (found.std.data > 0)
    held = (found.lower.data <= clean) & (clean <= found.upper.data)
    (row,) = (row for row in done.rows if row["part"] == "test")
    assert row["coverage"] == pytest.approx(float(held[inside].mean()), abs=2e-3)


def test_a_second_run_takes_what_is_there(cli, tmp_path, two_heads, tiny_weights):
    arguments = [
        "calibrate",
        two_heads,
        "--out",
        tmp_path / "o",
        "--weights",
        tiny_weights,
        *WHITE,
    ]
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


def test_one_subject_alone_is_refused_before_any_work(cli, tmp_path, two_heads, tiny_weights):
    (two_heads / "sub-1_T1w.nii.gz").unlink()
    done = cli("calibrate", two_heads, "--out", tmp_path / "o", "--weights", tiny_weights)
    assert done.exit_code == 2
    assert "one subject" in done.stderr
    assert not (tmp_path / "o").exists()


def test_a_table_tells_who_is_who(cli, tmp_path, two_heads, tiny_weights):
    table = two_heads / "list.csv"
    table.write_text("file,subject\nsub-0_T1w.nii.gz,anna\nsub-1_T1w.nii.gz,anna\n")
    done = cli("calibrate", table, "--out", tmp_path / "o", "--weights", tiny_weights)
    assert done.exit_code == 2
    assert "one subject" in done.stderr
