from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.benchmark.options import BenchmarkOptions
from medddpm.benchmark.rows import prepare_run
from medddpm.benchmark.run_repeats import find_repeats, repeat_test
from medddpm.errors import ConfigError

Save = Callable[..., Path]
QUICK = BenchmarkOptions(methods=("identity", "shrinkage"))


def rician(x: NDArray[np.float32], seed: int, sigma: float = 80.0) -> NDArray[np.float32]:
    real, imaginary = np.random.default_rng(seed).normal(0, sigma, (2, *x.shape))
    return np.hypot(x + real, imaginary).astype(np.float32)


@pytest.fixture
def x(head: Any) -> NDArray[np.float32]:
    clean: NDArray[np.float32] = head((32, 34, 28))
    return clean


@pytest.fixture
def runs(tmp_path: Path, x: Any, save_nifti: Save, oblique_affine: Any) -> list[Path]:
    return [
        save_nifti(tmp_path / f"scan_run-{n}.nii.gz", rician(x, n), oblique_affine)
        for n in (1, 2, 3)
    ]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_files_and_a_4d_file_tell_the_same(
    runs: list[Path], x: Any, tmp_path: Path, save_nifti: Save, oblique_affine: Any
) -> None:
    first = repeat_test(runs, tmp_path / "out", prepare_run(QUICK))
    frames = np.stack([rician(x, n) for n in (1, 2, 3)], axis=-1)
    path = save_nifti(tmp_path / "frames.nii.gz", frames, oblique_affine)
    second = repeat_test([path], tmp_path / "out4", prepare_run(QUICK))
    assert [row["rmse"] for row in first.rows] == pytest.approx(
        [row["rmse"] for row in second.rows]
    )
    assert second.scans[0]["used"] == ["frames frame 1", "frames frame 2", "frames frame 3"]
    rows = table(tmp_path / "out" / "repeats.csv")
    assert [row["method"] for row in rows] == ["identity", "shrinkage"]
    assert float(rows[1]["gain"]) > 2
    facts = json.loads((tmp_path / "out" / "results.json").read_text())
    assert facts["repeated"][0]["repeats"] == 3
    assert facts["versions"]["medddpm"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 4  # repeat, restored, mean, removed
    assert "http" not in page.replace("http-equiv", "")


def test_a_run_goes_on_where_it_stopped(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = repeat_test(runs, out, prepare_run(QUICK))
    kept = {p: p.stat().st_mtime_ns for p in (out / "rows").iterdir()}
    seen: list[str] = []
    more = BenchmarkOptions(methods=("identity", "shrinkage", "tv"))
    again = repeat_test(runs, out, prepare_run(more), on_row=lambda r, *_: seen.append(r["method"]))
    assert seen == ["identity", "shrinkage", "tv"]
    assert again.rows[:2] == first.rows
    assert kept.items() <= {p: p.stat().st_mtime_ns for p in (out / "rows").iterdir()}.items()
    fewer = repeat_test(runs[:2], out, prepare_run(QUICK))
    assert fewer.rows[1]["rmse"] != first.rows[1]["rmse"]


def test_a_folder_of_runs(tmp_path: Path, x: Any, save_nifti: Save, oblique_affine: Any) -> None:
    folder = tmp_path / "bids"
    for sub in ("1", "2"):
        place = folder / f"sub-{sub}" / "anat"
        place.mkdir(parents=True)
        for run in ("1", "2"):
            data = rician(x * (1 + 0.1 * int(sub)), 10 * int(sub) + int(run))
            save_nifti(place / f"sub-{sub}_run-{run}_T1w.nii.gz", data, oblique_affine)
    single = folder / "sub-1" / "anat" / "sub-1_T2w.nii.gz"
    save_nifti(single, rician(x, 99), oblique_affine)
    place = folder / "sub-3"
    place.mkdir()
    for run, shift in (("1", 0.0), ("2", 5.0)):
        affine = oblique_affine + np.array([[0, 0, 0, shift]] * 3 + [[0, 0, 0, 0]])
        save_nifti(place / f"sub-3_run-{run}_T1w.nii.gz", rician(x, 5), affine)
    errors: list[Exception] = []
    done = repeat_test([folder], tmp_path / "out", prepare_run(QUICK), on_error=errors.append)
    assert [scan["case"] for scan in done.scans] == ["sub-1_T1w", "sub-2_T1w"]
    assert len(done.rows) == 4
    assert [line["scans"] for line in done.summary] == [2, 2]
    assert done.summary[1]["gain_low"] > 0.5
    assert len(errors) == 1
    assert "sub-3_run-2_T1w lies on another grid" in str(errors[0])
    assert [s.name for s in find_repeats([folder], "sub-2*")] == ["sub-2_T1w"]


def test_series_of_dicom(tmp_path: Path, x: Any, dicom_series: Any, cli: Any) -> None:
    study = "1.2.826.0.1.3680043.8.498.7"
    for number in (1, 2):
        dicom_series(tmp_path / "dicom", rician(x, number), number=number, study_uid=study)
    done = cli("repeats", tmp_path / "dicom", "--out", tmp_path / "out", "--method", "shrinkage")
    assert done.exit_code == 0, done.stderr
    assert "2 repeats; sigma by them" in done.stdout
    assert "shrinkage (blind)" in done.stdout
    assert "Private" not in done.stdout + done.stderr + (tmp_path / "out/index.html").read_text()


def test_mistakes_are_one_line(
    runs: list[Path], tmp_path: Path, x: Any, save_nifti: Save, cli: Any
) -> None:
    out = tmp_path / "out"
    cases: list[tuple[list[Any], int, str]] = [
        ([runs[0]], 2, "two repeats that are alike are needed, or more: this is one scan"),
        ([runs[0], runs[0]], 2, "is a copy of"),
        ([runs[0], tmp_path / "none.nii.gz"], 3, "does not exist"),
        ([*runs, "--method", "vae"], 2, "repeats have none"),
        ([*runs, "--method", "magic"], 2, "unknown"),
        ([*runs, "--crop", "8"], 2, "three whole numbers"),
    ]
    other = save_nifti(tmp_path / "other.nii.gz", rician(x, 4), np.eye(4))
    cases.append(([runs[0], other], 4, "other grid"))
    alone = tmp_path / "alone"
    alone.mkdir()
    save_nifti(alone / "a.nii.gz", rician(x, 4), np.eye(4))
    save_nifti(alone / "b.nii.gz", rician(x, 5), np.eye(4))
    cases.append(([alone], 2, "no scan has two repeats"))
    cases.append(([alone, "--include", "zzz"], 2, "is called"))
    for arguments, code, words in cases:
        done = cli("repeats", *arguments, "--out", out)
        assert done.exit_code == code, (arguments, done.stderr)
        said = [line for line in done.stderr.splitlines() if "so far" not in line]
        assert len(said) == 1
        assert words in said[0], (arguments, done.stderr)
    assert not (out / "index.html").exists()


def test_what_is_left_out_is_said_and_ends_the_command(
    tmp_path: Path, x: Any, save_nifti: Save, cli: Any
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for run in (1, 2):
        save_nifti(folder / f"a_run-{run}.nii.gz", rician(x, run), np.eye(4))
        save_nifti(folder / f"b_run-{run}.nii.gz", rician(x, run), np.diag([1, 1, run, 1.0]))
    done = cli("repeats", folder, "--out", tmp_path / "out", "--method", "identity")
    assert done.exit_code == 4
    assert "b_run-2 lies on another grid" in done.stderr
    assert "1 done, 1 left out" in done.stderr
    assert (tmp_path / "out" / "index.html").exists()


def test_a_benchmark_takes_repeats_too(
    runs: list[Path], clean_nifti: Path, tmp_path: Path, save_nifti: Save, x: Any, cli: Any
) -> None:
    frames = np.stack([rician(x, n) for n in (1, 2, 3)], axis=-1)
    path = save_nifti(tmp_path / "frames.nii.gz", frames, np.eye(4))
    out = tmp_path / "both"
    done = cli(
        "benchmark", clean_nifti, "--out", out, "--sigma", 0.05, "--method", "identity",
        "--method", "shrinkage", "--repeats", path,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "3 repeats; sigma by them" in done.stdout
    assert [row["method"] for row in table(out / "repeats.csv")] == ["identity", "shrinkage"]
    assert len(table(out / "rows.csv")) == 2
    facts = json.loads((out / "results.json").read_text())
    assert facts["summary"]
    assert facts["repeats"]["rows"][1]["gain"] > 2
    page = (out / "index.html").read_text()
    assert page.index("Denoising benchmark") < page.index("Truth from repeats")
    assert page.index("Truth from repeats") < page.index("How it was made")


def test_a_scan_too_small_for_blind_methods_says_what_to_do(
    tmp_path: Path, x: Any, save_nifti: Save, cli: Any
) -> None:
    small = x[12:22, 12:22, 10:18]
    frames = np.stack([rician(small, n) for n in (1, 2, 3)], axis=-1)
    path = save_nifti(tmp_path / "small.nii.gz", frames, np.eye(4))
    arguments = ["repeats", path, "--out", tmp_path / "out", "--method", "shrinkage"]
    done = cli(*arguments)
    assert done.exit_code == 2
    assert "small, shrinkage: " in done.stderr
    assert "--sigma-source oracle" in done.stderr
    assert cli(*arguments, "--sigma-source", "oracle").exit_code == 0


def test_a_vae_is_passed_over_where_a_benchmark_takes_repeats(
    runs: list[Path], tiny_weights: Path, tmp_path: Path
) -> None:
    from medddpm.benchmark.run_repeats import measure_repeats

    options = BenchmarkOptions(methods=("vae", "identity"))
    run = prepare_run(options, None, tiny_weights, "cpu")
    done = measure_repeats(find_repeats(runs), tmp_path / "rows", run)
    assert [row["method"] for row in done.rows] == ["identity"]
    with pytest.raises(ConfigError, match="repeats have none"):
        repeat_test(runs, tmp_path / "out", run)
