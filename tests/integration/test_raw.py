from __future__ import annotations

import csv
import html
import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from medddpm.cli import app
from medddpm.io import read_volume
from medddpm.io.raw_ismrmrd_write import write_ismrmrd
from medddpm.io.raw_scan import RawScan
from medddpm.reconstruction.interval import interval_scale
from medddpm.reconstruction.simulated_raw import simulate_raw
from medddpm.volume import Geometry, Volume

pytest.importorskip("h5py")
runner = CliRunner()


@pytest.fixture
def raw(clean_nifti: Path, tmp_path: Path) -> Path:
    """Raw data of the phantom, four coils."""
    path = tmp_path / "raw.h5"
    done = runner.invoke(
        app, ["simulate-raw", str(clean_nifti), str(path), "--sigma", "0.02", "--coils", "4"]
    )
    assert done.exit_code == 0, done.output
    return path


def test_raw_data_of_a_scan_is_undersampled_and_reconstructed_in_its_place(
    raw: Path, clean_nifti: Path, tmp_path: Path
) -> None:
    few, out = tmp_path / "few.h5", tmp_path / "out.nii.gz"
    done = runner.invoke(
        app, ["undersample", str(raw), str(few), "--mask", "vd2d", "--R", "2", "--acs", "12"]
    )
    assert done.exit_code == 0, done.output
    assert few.stat().st_size < 0.7 * raw.stat().st_size
    done = runner.invoke(
        app, ["reconstruct", str(few), str(out), "--method", "cg-sense", "--phase"]
    )
    assert done.exit_code == 0, done.output
    clean, image = read_volume(clean_nifti), read_volume(out)
    np.testing.assert_allclose(image.affine, clean.affine, atol=1e-3)
    inside = clean.data > 0
    assert np.corrcoef(image.data[inside], clean.data[inside])[0, 1] > 0.95
    phase = np.asarray(nib.load(tmp_path / "out_phase.nii.gz").dataobj)  # type: ignore[attr-defined]
    assert np.abs(phase).max() <= np.pi + 1e-3
    facts = json.loads((tmp_path / "out.json").read_text())
    assert facts["options"]["method"] == "cg-sense"
    assert facts["noise"] == "own"
    assert facts["frames"][0]["acceleration"] == pytest.approx(2, rel=0.02)


def test_ours_runs_with_given_weights(raw: Path, tmp_path: Path, tiny_weights: Path) -> None:
    done = runner.invoke(
        app,
        [
            *("reconstruct", str(raw), str(tmp_path / "out"), "--weights", str(tiny_weights)),
            *("--set", "reconstruct.plug.steps=1", "--device", "cpu"),
        ],
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "raw_desc-reconstructed.nii.gz").is_file()


def test_bad_raw_data_ends_with_one_sentence(raw: Path, tmp_path: Path) -> None:
    raw.write_bytes(raw.read_bytes()[:5000])
    done = runner.invoke(app, ["reconstruct", str(raw), str(tmp_path / "out"), "--method", "tv"])
    assert done.exit_code == 3
    assert "cut short" in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_missing_calibration_lines_are_a_usage_error(raw: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.h5"
    args = ["undersample", str(raw), str(bare), "--mask", "uniform", "--R", "2", "--acs", "0"]
    assert runner.invoke(app, args).exit_code == 0
    done = runner.invoke(
        app, ["reconstruct", str(bare), str(tmp_path / "out"), "--method", "cg-sense"]
    )
    assert done.exit_code == 4
    assert "calibration lines" in done.output


def test_an_output_that_exists_is_kept(raw: Path) -> None:
    done = runner.invoke(app, ["undersample", str(raw), str(raw), "--R", "2", "--acs", "12"])
    assert done.exit_code == 5


def test_methods_are_compared_and_a_rerun_goes_on(clean_nifti: Path, tmp_path: Path) -> None:
    args = [
        *("benchmark-raw", str(clean_nifti), "--out", str(tmp_path / "bench"), "--R", "2"),
        *("--mask", "vd2d", "--sigma", "0.03", "--coils", "4", "--acs", "12", "--planes", "8"),
        *("--method", "zero-filled", "--method", "cg-sense"),
    ]
    done = runner.invoke(app, args)
    assert done.exit_code == 0, done.output
    assert "| vd2d | 2 | 0.03 |" in done.output
    rows = (tmp_path / "bench" / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 1 + 8
    again = runner.invoke(app, args)
    assert again.exit_code == 0
    assert (tmp_path / "bench" / "results.csv").read_text().splitlines() == rows
    assert len(list((tmp_path / "bench" / "rows").iterdir())) == 9
    other = runner.invoke(app, [*args, "--seed", "1"])
    assert other.exit_code == 0
    assert (tmp_path / "bench" / "results.csv").read_text().splitlines() != rows
    assert len(list((tmp_path / "bench" / "rows").iterdir())) == 18


def test_cg_sense_is_restored_and_an_unknown_method_is_named_before_the_work(
    clean_nifti: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    args = [
        *("benchmark-raw", str(clean_nifti), "--out", str(tmp_path / "bench"), "--R", "2"),
        *("--mask", "vd2d", "--sigma", "0.03", "--coils", "3", "--acs", "12", "--planes", "32"),
        *("--method", "cg-sense", "--weights", str(tiny_weights)),
    ]
    done = runner.invoke(app, [*args, "--method", "cg-sense-restored"])
    assert done.exit_code == 0, done.output
    assert "| mask | R | sigma | cg-sense | cg-sense-restored |" in done.output
    with (tmp_path / "bench" / "results.csv").open(encoding="utf-8") as file:
        rows = {(row["method"], row["weight"]): row for row in csv.DictReader(file)}
    assert float(rows["cg-sense-restored", "1"]["psnr"]) != float(rows["cg-sense", "1"]["psnr"])
    assert float(rows["cg-sense-restored", "1"]["psnr"]) > 10
    wrong = runner.invoke(app, [*args, "--method", "grappa"])
    assert wrong.exit_code == 2
    assert "cg-sense-restored" in wrong.output


def test_the_interval_of_an_ensemble_is_held_against_the_truth(
    clean_nifti: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    args = [
        *("benchmark-raw", str(clean_nifti), "--out", str(tmp_path / "bench"), "--R", "2"),
        *("--mask", "vd2d", "--sigma", "0.03", "--coils", "3", "--acs", "12", "--planes", "8"),
        *("--method", "zero-filled", "--method", "ours", "--weights", str(tiny_weights)),
        *("--set", "reconstruct.plug.steps=2", "--set", "reconstruct.plug.rounds=1"),
    ]
    done = runner.invoke(app, [*args, "--samples", "2"])
    assert done.exit_code == 0, done.output
    with (tmp_path / "bench" / "results.csv").open(encoding="utf-8") as file:
        plain, ours = csv.DictReader(file)
    assert plain["coverage"] == ""
    assert f"holds {100 * float(ours['coverage']):.1f} %" in done.output
    wider = float(ours["interval_scale"]) > 1
    assert (float(ours["coverage"]) > float(ours["coverage_unscaled"])) == wider
    assert 0 < float(ours["coverage_unscaled"]) < 1
    again = runner.invoke(app, args)
    assert again.exit_code == 0
    assert "interval holds" not in again.output
    one = runner.invoke(app, [*args, "--samples", "1"])
    assert (one.exit_code, "one draw has no spread" in one.output) == (2, True)


def test_an_ensemble_has_maps_and_says_how_well_it_predicts(
    raw: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    args = ["reconstruct", str(raw), str(tmp_path / "out.nii.gz"), "--weights", str(tiny_weights)]
    few = ("--set", "reconstruct.plug.steps=2", "--set", "reconstruct.plug.rounds=1")
    done = runner.invoke(app, [*args, "--mode", "ensemble", "--samples", "2", *few])
    assert done.exit_code == 0, done.output
    assert "held-out k-space (5 % of the samples) is predicted within" in done.output
    assert "interval is the spread of the draws times" in done.output
    mean, std, low, high = (
        read_volume(tmp_path / f"out{part}.nii.gz").data
        for part in ("", "_std", "_lower", "_upper")
    )
    assert (std >= 0).all()
    assert ((low <= mean) & (mean <= high)).all()
    facts = json.loads((tmp_path / "out.json").read_text())
    held = facts["frames"][0]["held_out"]
    scale = interval_scale(held["error_in_noise"], held["spread_in_noise"])
    assert facts["interval"] == {"level": 0.9, "calibrated": True, "scales": [round(scale, 4)]}
    assert facts["frames"][0]["held_out"]["share"] == pytest.approx(0.05, abs=0.01)
    assert facts["output"]["maps"]["std"] == "out_std.nii.gz"


def test_what_is_held_out_of_a_classical_method_is_predicted(raw: Path, tmp_path: Path) -> None:
    few, out = tmp_path / "few.h5", tmp_path / "out.nii.gz"
    args = ["undersample", str(raw), str(few), "--mask", "vd2d", "--R", "2", "--acs", "12"]
    assert runner.invoke(app, args).exit_code == 0
    tv = ["reconstruct", str(few), str(out), "--method", "tv"]
    done = runner.invoke(app, [*tv, "--held-out", "0.1"])
    assert done.exit_code == 0, done.output
    held = json.loads((tmp_path / "out.json").read_text())["frames"][0]["held_out"]
    assert 0.9 < held["error_in_noise"] < 4
    assert f"predicted within {held['error_in_noise']:.2f} of its noise" in done.output
    done = runner.invoke(app, [*tv, "--mode", "sample", "--overwrite"])
    assert (done.exit_code, "tv has none" in done.output) == (2, True)


@pytest.mark.parametrize("kind", ["radial", "spiral"])
def test_spokes_and_spirals_are_simulated_thinned_and_reconstructed(
    kind: str, clean_nifti: Path, tmp_path: Path
) -> None:
    pytest.importorskip("finufft", reason="needs the extra nufft")
    raw, few, out = tmp_path / "raw.h5", tmp_path / "few.h5", tmp_path / "out.nii.gz"
    args = ["simulate-raw", str(clean_nifti), str(raw), "--sigma", "0.02", "--coils", "4"]
    done = runner.invoke(app, [*args, "--trajectory", kind])
    assert done.exit_code == 0, done.output
    done = runner.invoke(app, ["undersample", str(raw), str(few), "--R", "2"])
    assert done.exit_code == 2
    assert f"is {kind}, and mask vd2d is of lines on a grid" in done.output
    done = runner.invoke(app, ["undersample", str(raw), str(few), "--mask", "uniform", "--R", "2"])
    assert done.exit_code == 0, done.output
    done = runner.invoke(
        app, ["reconstruct", str(few), str(out), "--method", "tv", "--held-out", "0.34"]
    )
    assert done.exit_code == 0, done.output
    assert f"({kind})" in done.output
    clean, image = read_volume(clean_nifti), read_volume(out)
    np.testing.assert_allclose(image.affine, clean.affine, atol=1e-3)
    inside = clean.data > 0
    assert np.corrcoef(image.data[inside], clean.data[inside])[0, 1] > 0.95


def test_spirals_without_finufft_name_the_extra(
    clean_nifti: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "finufft", None)
    args = ["simulate-raw", str(clean_nifti), str(tmp_path / "raw.h5"), "--sigma", "0.02"]
    done = runner.invoke(app, [*args, "--trajectory", "spiral"])
    assert done.exit_code != 0
    assert "nufft" in done.output
    assert "Traceback" not in done.output


@pytest.fixture
def few(raw: Path, tmp_path: Path) -> Path:
    path = tmp_path / "few.h5"
    args = ["undersample", str(raw), str(path), "--mask", "vd2d", "--R", "2", "--acs", "12"]
    assert runner.invoke(app, args).exit_code == 0
    return path


def test_a_report_shows_the_methods_and_what_was_held_out(few: Path, tmp_path: Path) -> None:
    args = ["reconstruct", str(few), str(tmp_path / "out.nii.gz"), "--method", "tv", "--report"]
    done = runner.invoke(app, [*args, "--held-out", "0.1", "--g-factor", "2"])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    facts = json.loads((tmp_path / "out.json").read_text())
    held = facts["frames"][0]["held_out"]
    assert set(held["error_of_others"]) == {"zero-filled", "cg-sense"}
    assert held["error_of_others"]["zero-filled"] > held["error_in_noise"]
    for told in (
        "zero-filled, cg-sense, tv, g-factor",
        f"<td>{held['error_in_noise']:.3f}</td>",
        f"<td>{held['error_of_others']['cg-sense']:.3f}</td>",
        facts["input"]["sha256"],
        facts["input"]["words"],
        "Research use only",
        "content=\"default-src 'none'",
    ):
        assert told in html.unescape(page)
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")
    again = runner.invoke(app, [*args, "--overwrite"])
    assert again.exit_code == 0
    assert "Held-out k-space" not in (tmp_path / "out.html").read_text(encoding="utf-8")


def replayed(sidecar: Path, *more: str) -> tuple[int, str]:
    done = runner.invoke(app, ["replay", str(sidecar), *more])
    assert "Traceback" not in done.output
    return done.exit_code, done.output


def test_a_reconstruction_is_replayed_to_the_byte(
    few: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    out = tmp_path / "out"
    args = ["reconstruct", str(few), str(out), "--weights", str(tiny_weights), "--device", "cpu"]
    short = ("--set", "reconstruct.plug.steps=2", "--set", "reconstruct.plug.rounds=1", "--phase")
    done = runner.invoke(app, [*args, "--mode", "ensemble", "--samples", "2", *short])
    assert done.exit_code == 0, done.output
    sidecar = out / "few_desc-reconstructed.json"
    before = sidecar.read_text()
    code, output = replayed(sidecar)
    assert (code, output.splitlines()[-1]) == (0, f"{sidecar.name}: the same bytes")
    facts = json.loads(before)
    assert len(facts["output"]["files"]) == 5
    facts["options"]["seed"] = 7
    sidecar.write_text(json.dumps(facts))
    code, output = replayed(sidecar)
    assert code == 6
    assert "the bytes of few_desc-reconstructed_std.nii.gz differ" in output
    sidecar.write_text(before)
    moved = tmp_path / "moved.h5"
    few.rename(moved)
    code, output = replayed(sidecar)
    assert (code, "give --source" in output) == (3, True)
    assert replayed(sidecar, "--source", str(moved))[0] == 0
    content = moved.read_bytes()
    moved.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, output = replayed(sidecar, "--source", str(moved))
    assert (code, "has changed since" in output) == (3, True)
    moved.write_bytes(content)
    code, output = replayed(sidecar, "--source", str(moved), "--weights", "default")
    assert (code, "the weights have SHA-256" in output) == (3, True)
    code, output = replayed(sidecar, "--noise-map", str(moved))
    assert (code, "belong to restorations" in output) == (2, True)
    sidecar.write_text(json.dumps({"kind": "reconstruction"}))
    code, output = replayed(sidecar)
    assert (code, "damaged" in output) == (3, True)


def test_a_reconstruction_with_a_noise_scan_is_replayed(
    few: Path, raw: Path, tmp_path: Path
) -> None:
    args = ["reconstruct", str(few), str(tmp_path / "out.nii"), "--method", "cg-sense"]
    done = runner.invoke(app, [*args, "--noise-scan", str(raw)])
    assert done.exit_code == 0, done.output
    code, output = replayed(tmp_path / "out.json")
    assert (code, output.splitlines()[-1]) == (0, "out.json: the same bytes")
    raw.unlink()
    code, output = replayed(tmp_path / "out.json")
    assert (code, "is gone" in output) == (3, True)


def test_an_object_that_fills_its_field_of_view_is_told(tmp_path: Path) -> None:
    scan = filling(1.5)
    write_ismrmrd(scan, tmp_path / "raw.h5")
    args = ["reconstruct", str(tmp_path / "raw.h5"), str(tmp_path / "out.nii.gz")]
    done = runner.invoke(app, [*args, "--method", "zero-filled", "--report"])
    assert done.exit_code == 0, done.output
    assert "reaches both edges of the field of view along phase encoding (y)" in done.output
    assert "second phase" not in done.output
    assert "reaches both edges" in (tmp_path / "out.html").read_text(encoding="utf-8")
    write_ismrmrd(filling(0.8), tmp_path / "raw.h5")
    done = runner.invoke(app, [*args, "--method", "zero-filled", "--overwrite"])
    assert "reaches both edges" not in done.output


def filling(y_radius: float) -> RawScan:
    """Raw data of an ellipsoid; its field of view along y has a half-width of 1."""
    shape = (24, 28, 24)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = (x / 0.8) ** 2 + (y / y_radius) ** 2 + (z / 0.7) ** 2 < 1
    data = np.where(inside, 900, 0).astype(np.float32)
    return simulate_raw(Volume(data, Geometry(shape, np.eye(4))), 0.01, coils=3)
