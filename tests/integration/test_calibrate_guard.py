"""`medddpm calibrate-guard` with a tiny model: a restoration then goes by what it wrote."""

from __future__ import annotations

import csv
import json

from medddpm.model.model import load_model

OPTIONS = ["--sigma", "0.05"]


def test_a_restoration_goes_by_the_calibrated_guard(cli, tmp_path, two_heads, tiny_weights):
    out = tmp_path / "out"
    arguments = ["calibrate-guard", two_heads, "--out", out, "--weights", tiny_weights, *OPTIONS]
    first = cli(*arguments, "--faults-on", "sub-1*", "--foreign", two_heads / "sub-0_T1w.nii.gz")
    assert first.exit_code == 0, first.stderr
    assert "Flagged of good restorations of other subjects" in first.stdout
    rows = list(csv.DictReader((out / "detection.csv").read_text().splitlines()))
    faults = {row["fault"] for row in rows}
    assert {"none", "half sigma", "motion", "correlated noise", "foreign scan"} <= faults
    assert all(0 <= float(row["flagged"]) <= 1 for row in rows)
    before, after = load_model(tiny_weights), load_model(out / "model.safetensors")
    assert all((a == b).all() for a, b in zip(before.parameters(), after.parameters(), strict=True))
    guard = after.card["guard"]["mean"]
    assert (guard["subjects"], guard["scans"]) == (2, 2)
    assert after.arrays["guard.mean.features"].shape[0] == 4  # white noise, and as acquired

    target = tmp_path / "r"
    done = cli(
        "restore", two_heads / "sub-0_T1w.nii.gz", target, "--weights", out / "model.safetensors"
    )
    assert done.exit_code in (0, 6), done.stderr
    facts = json.loads((target / "sub-0_T1w_desc-denoised.json").read_text())
    assert facts["guard_calibrated"]
    checks = {check["name"]: check for check in facts["frames"][0]["guard"]["checks"]}
    assert {"peak", "strangeness", "tissue_shift", "coarsest_edge"} <= set(checks)
    assert checks["peak"]["high"] > guard["reach"]["peak"][1]
    assert checks["coarsest_edge"]["high"] == guard["ranges"]["coarsest_edge"][1]
    assert len(checks["peak"]["where"]) == 3
    told = [c for c in checks.values() if not c["passed"] and c["tier"] == "alarm"]
    failed = [c["words"] for c in told][:3]
    assert facts["frames"][0]["guard"]["messages"] == failed

    stamps = {path: path.stat().st_mtime_ns for path in (out / "trials").iterdir()}
    again = cli(*arguments, "--overwrite")  # takes what is there
    assert again.exit_code == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in (out / "trials").iterdir()} == stamps


def test_one_subject_or_an_output_that_exists_is_refused(cli, tmp_path, two_heads, tiny_weights):
    out = tmp_path / "o"
    only = ["--include", "sub-0*", "--weights", tiny_weights]
    done = cli("calibrate-guard", two_heads, "--out", out, *only)
    assert done.exit_code == 2
    assert "one subject" in done.stderr
    assert not out.exists()
    out.mkdir()
    (out / "guard.json").write_text("mine")
    done = cli("calibrate-guard", two_heads, "--out", out, "--weights", tiny_weights)
    assert done.exit_code == 5
    assert (out / "guard.json").read_text() == "mine"
