"""Every verb of the command line, end to end, on phantoms and a tiny random model."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medddpm.model.model import with_card
from medddpm.volume import Volume

Cli = Callable[..., Any]
WRITTEN = (0, 6)
"""A random model restores nothing, so the guard may flag its output."""


def voxels(path: Path) -> Any:
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def restored_once(
    cli: Cli, head: Any, save_nifti: Any, tiny_weights: Path, tmp_path_factory: Any
) -> Path:
    """A folder with a noisy scan and what was restored from it."""
    folder: Path = tmp_path_factory.mktemp("restored")
    real, imaginary = np.random.default_rng(20).normal(0, 50, (2, 32, 30, 26))
    noisy = np.hypot(head((32, 30, 26)) + real, imaginary).astype(np.float32)
    source = save_nifti(folder / "noisy.nii.gz", noisy, np.diag([1.0, 1.1, 1.3, 1.0]))
    words = ("--weights", tiny_weights, "--device", "cpu")
    done = cli("restore", source, folder / "restored.nii.gz", *words)
    assert done.exit_code in WRITTEN, done.stderr
    return folder


@pytest.fixture
def restored(restored_once: Path, noisy_nifti: Path) -> Path:
    """What was restored from noisy_nifti, which is then the same as there."""
    shutil.copytree(restored_once, noisy_nifti.parent, dirs_exist_ok=True)
    return noisy_nifti.with_name("restored.nii.gz")


def test_restore_keeps_the_grid_and_the_header(restored: Path, noisy_nifti: Path) -> None:
    before, after = nib.load(noisy_nifti), nib.load(restored)
    np.testing.assert_array_equal(before.affine, after.affine)
    assert after.header["sform_code"] == after.header["qform_code"] == 1
    assert after.get_data_dtype() == np.float32
    assert after.shape == before.shape
    assert np.isfinite(voxels(restored)).all()
    assert not np.array_equal(voxels(restored), voxels(noisy_nifti))


def test_the_sidecar_tells_what_was_done(restored: Path, noisy_nifti: Path) -> None:
    facts = json.loads(restored.with_name("restored.json").read_text())
    assert facts["input"]["sha256"] == hashlib.sha256(noisy_nifti.read_bytes()).hexdigest()
    assert facts["versions"]["medddpm"]
    assert facts["options"]["mode"] == "mean"
    assert "medical device" in facts["statement"]
    assert {"sigma", "guard", "vae_ceiling_db"} <= set(facts["frames"][0])
    assert facts["weights"]["sha256"]


def test_a_flag_is_an_exit_code_a_message_and_a_written_scan(
    cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    """The scan holds a tenth of the noise that is claimed here."""
    out = tmp_path / "out.nii.gz"
    done = cli("restore", noisy_nifti, out, "--weights", tiny_weights, "--sigma", 500)
    assert done.exit_code == 6
    assert "give a smaller --sigma" in done.stderr
    assert out.is_file()
    facts = json.loads((tmp_path / "out.json").read_text())
    assert facts["frames"][0]["guard"]["passed"] is False


def test_the_input_is_not_touched_and_the_same_bytes_come_again(
    cli: Cli, restored: Path, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    before = noisy_nifti.read_bytes()
    again = tmp_path / "again.nii.gz"
    cli("restore", noisy_nifti, again, "--weights", tiny_weights, "--memory", "1GB")
    assert noisy_nifti.read_bytes() == before
    np.testing.assert_array_equal(voxels(again), voxels(restored))


def test_an_existing_output_is_kept_unless_overwrite(
    cli: Cli, restored: Path, noisy_nifti: Path, tiny_weights: Path
) -> None:
    before = restored.read_bytes()
    arguments = ("restore", noisy_nifti, restored, "--weights", tiny_weights, "--sigma", "20")
    done = cli(*arguments)
    assert done.exit_code == 5
    assert "--overwrite" in done.stderr
    assert restored.read_bytes() == before
    assert cli(*arguments, "--overwrite").exit_code in WRITTEN
    assert restored.read_bytes() != before


def test_ensemble_writes_maps(
    cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    options = ("--mode", "ensemble", "--samples", 2, "--steps", 2, "--weights", tiny_weights)
    done = cli("restore", noisy_nifti, tmp_path / "out", *options)
    assert done.exit_code in WRITTEN, done.stderr
    stem = "noisy_desc-denoised"
    found = {p.name for p in (tmp_path / "out").iterdir()}
    suffixes = (".nii.gz", ".json", "_std.nii.gz", "_lower.nii.gz", "_upper.nii.gz")
    assert found == {stem + suffix for suffix in suffixes}
    low, high = (voxels(tmp_path / "out" / f"{stem}_{m}.nii.gz") for m in ("lower", "upper"))
    assert (low <= high).all()


def test_sample_depends_on_the_seed(
    cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    images = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.nii.gz"
        options = ("--mode", "sample", "--steps", 2, "--seed", seed, "--weights", tiny_weights)
        assert cli("restore", noisy_nifti, out, *options).exit_code in WRITTEN
        images.append(voxels(out))
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_four_dimensions_stay(
    cli: Cli, noisy_phantom: Volume, save_nifti: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    frames = np.stack([noisy_phantom.data, 0.8 * noisy_phantom.data], axis=-1)
    source = save_nifti(tmp_path / "bold.nii.gz", frames, noisy_phantom.affine)
    out = tmp_path / "out.nii.gz"
    done = cli("restore", source, out, "--weights", tiny_weights)
    assert done.exit_code in WRITTEN, done.stderr
    assert nib.load(out).shape == frames.shape


def test_a_folder_of_two_dicom_series_to_nifti(
    cli: Cli, noisy_phantom: Volume, dicom_series: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        dicom_series(tmp_path / "in", noisy_phantom.data, number=number)
    done = cli("restore", tmp_path / "in", tmp_path / "out", "--weights", tiny_weights)
    assert done.exit_code in WRITTEN, done.stderr
    images = sorted((tmp_path / "out").glob("*.nii.gz"))
    assert len(images) == 2
    assert len(list((tmp_path / "out").glob("*.json"))) == 2
    for path in (tmp_path / "out").glob("*.json"):
        assert "Private" not in path.read_text() + path.name
        assert "P-0001" not in path.read_text() + path.name
        origin = json.loads(path.read_text())["input"]
        assert origin["num_files"] == 26
        assert len(origin["sha256"]) == 64


@pytest.fixture
def one_bad_series(noisy_phantom: Volume, dicom_series: Any, tmp_path: Path) -> Path:
    """Two good series, one with a gap and a CT."""
    folder = tmp_path / "in"
    for number, more in ((1, {}), (2, {"skip": (7,)}), (3, {}), (4, {"modality": "CT"})):
        dicom_series(folder / str(number), noisy_phantom.data, number=number, **more)
    return folder


@pytest.mark.parametrize("verb", ["restore", "convert"])
@pytest.mark.parametrize("format", ["nifti", "dicom"])
def test_a_bad_series_is_named_and_the_others_are_done(
    verb: str, format: str, cli: Cli, one_bad_series: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    options = ("--weights", tiny_weights) if verb == "restore" else ()
    done = cli(verb, one_bad_series, tmp_path / "out", "--format", format, *options)
    assert done.exit_code == 3
    assert len(done.stdout.splitlines()) == 2
    for path in done.stdout.splitlines():
        assert Path(path).exists()
    assert len(list((tmp_path / "out").iterdir())) == (4 if verb == "restore" else 2)
    assert "medddpm: series 2 (" in done.stderr
    assert "1 missing slice " in done.stderr
    assert "medddpm: series 4 (" in done.stderr
    assert "--force" in done.stderr
    assert done.stderr.splitlines()[-1] == "medddpm: 2 done, 2 left out: see above"
    assert "Traceback" not in done.stderr


def test_one_scan_that_cannot_be_restored_does_not_stop_the_others(
    cli: Cli, noisy_phantom: Volume, dicom_series: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    """With --force a CT is read; a derived MR series cannot be made of it."""
    dicom_series(tmp_path / "in", noisy_phantom.data, number=1, modality="CT")
    dicom_series(tmp_path / "in", noisy_phantom.data, number=2)
    options = ("--weights", tiny_weights, "--format", "dicom", "--force")
    done = cli("restore", tmp_path / "in", tmp_path / "out", *options)
    assert done.exit_code == 2
    assert "this one is CT" in done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize("verb", ["estimate-noise", "info"])
def test_what_only_looks_leaves_a_bad_series_out_too(
    verb: str, cli: Cli, one_bad_series: Path
) -> None:
    done = cli(verb, one_bad_series, "--json")
    assert done.exit_code == 3
    found = json.loads(done.stdout)
    assert len(found["scans"] if verb == "info" else found) == (3 if verb == "info" else 2)
    assert "1 missing slice " in done.stderr


def test_no_good_series_writes_nothing(
    cli: Cli, noisy_phantom: Volume, dicom_series: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        dicom_series(tmp_path / "in", noisy_phantom.data, number=number, skip=(5,))
    for words in (("restore", "--weights", tiny_weights), ("convert",), ("info",)):
        places = (tmp_path / "in",) if words == ("info",) else (tmp_path / "in", tmp_path / "out")
        done = cli(words[0], *places, *words[1:])
        assert done.exit_code == 3
        assert done.stdout == ""
        assert done.stderr.count("missing slice ") == 2
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("trust", ["sform", "qform"])
def test_trust_one_of_two_forms(
    trust: str, cli: Cli, noisy_phantom: Volume, tiny_weights: Path, tmp_path: Path
) -> None:
    forms = {"sform": noisy_phantom.affine, "qform": np.diag([1.0, 1.1, 1.3, 1.0])}
    image = nib.nifti1.Nifti1Image(noisy_phantom.data, None)
    image.set_sform(forms["sform"], code=1)
    image.set_qform(forms["qform"], code=1)
    source = tmp_path / "two.nii.gz"
    nib.save(image, source)
    for verb, options in (("convert", ()), ("restore", ("--weights", tiny_weights))):
        out = tmp_path / f"{verb}.nii.gz"
        done = cli(verb, source, out, *options)
        assert done.exit_code == 4
        assert "--trust sform" in done.stderr
        done = cli(verb, source, out, *options, "--trust", trust)
        assert done.exit_code in WRITTEN, done.stderr
        header = nib.load(out).header
        np.testing.assert_allclose(header.get_sform(), forms["sform"], atol=1e-5)
        np.testing.assert_allclose(header.get_qform(), forms["qform"], atol=1e-5)
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
        assert cli("estimate-noise", out, "--trust", trust).exit_code == 0
        assert cli("evaluate", source, out).exit_code == 4
        assert cli("evaluate", source, out, "--trust", trust).exit_code == 0
    if trust == "sform":
        shown = cli("report", tmp_path / "restore.nii.gz", "--out", tmp_path / "page.html")
        assert shown.exit_code == 0, shown.stderr


def test_dicom_to_derived_dicom(
    cli: Cli, noisy_phantom: Volume, dicom_series: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    import pydicom

    dicom_series(tmp_path / "in", noisy_phantom.data)
    options = ("--weights", tiny_weights, "--format", "dicom")
    done = cli("restore", tmp_path / "in", tmp_path / "out", *options)
    assert done.exit_code in WRITTEN, done.stderr
    [series] = [p for p in (tmp_path / "out").iterdir() if p.is_dir()]
    files = sorted(series.iterdir())
    assert len(files) == noisy_phantom.data.shape[2]
    first = pydicom.dcmread(files[0])
    assert first.ImageType[0] == "DERIVED"
    assert "tiny " in first.DerivationDescription  # the name and the hash of the weights


@pytest.mark.parametrize("report", ["pdf", "image"])
def test_an_ensemble_as_dicom_with_a_report(
    report: str, cli: Cli, noisy_phantom: Volume, dicom_series: Any, tiny_weights: Path
) -> None:
    import pydicom

    folder = dicom_series(tiny_weights.parent / report / "in", noisy_phantom.data)
    out = folder.parent / "out"
    options = ("--weights", tiny_weights, "--format", "dicom", "--mode", "ensemble")
    few = ("--samples", 2, "--steps", 1, "--set", f"dicom.report={report}")
    done = cli("restore", folder, out, *options, *few, "--set", "dicom.transfer_syntax=rle")
    assert done.exit_code in WRITTEN, done.stderr
    [series] = [p for p in out.iterdir() if p.is_dir()]
    made = {p.stem.rsplit("_", 1)[1]: pydicom.dcmread(p) for p in out.glob("*.dcm")}
    assert set(made) == {"std", "lower", "upper", "report"}
    assert not list(out.glob("*.nii*"))
    first = pydicom.dcmread(next(series.iterdir()))
    assert first.file_meta.TransferSyntaxUID.name == "RLE Lossless"
    assert {d.StudyInstanceUID for d in made.values()} == {first.StudyInstanceUID}
    assert made["std"].FrameOfReferenceUID == first.FrameOfReferenceUID
    page = made["report"]
    assert page.SOPClassUID.name.startswith("Enc" if report == "pdf" else "Secondary")
    again = cli("restore", folder, out, *options, *few)
    assert again.exit_code == 5
    [std] = out.glob("*_std.dcm")
    done = cli("restore", std, out.parent / "map.nii.gz", "--weights", tiny_weights)
    assert done.exit_code == 3
    assert "Parametric Map, not a scan" in done.stderr
    assert cli("convert", std, out.parent / "map.nii.gz").exit_code == 0


def test_what_dicom_cannot_hold_is_said_before_the_work(
    cli: Cli, head: Any, dicom_series: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    folder = dicom_series(tmp_path / "in", head((20, 40, 12)))
    options = ("--weights", tiny_weights, "--format", "dicom")
    encoding = ("--set", "dicom.transfer_syntax=jpeg2000-lossless")
    done = cli("restore", folder, tmp_path / "out", *options, *encoding)
    assert done.exit_code == 2
    assert "20 x 40 pixels is too small" in done.stderr
    done = cli("convert", folder, tmp_path / "out", "--format", "dicom", "--set", "dicom.report=x")
    assert done.exit_code == 2
    assert "dicom.report" in done.stderr
    assert not (tmp_path / "out").exists()


def test_simulate_estimate_and_evaluate(
    cli: Cli, clean_nifti: Path, tmp_path: Path, save_nifti: Any, phantom: Volume
) -> None:
    noisy = tmp_path / "n.nii.gz"
    white = ("--sigma", 0.05, "--seed", 4, "--noise", "white")  # on the finished scan
    assert cli("simulate", clean_nifti, noisy, *white).exit_code == 0
    told = json.loads((tmp_path / "n.json").read_text())["noise"]
    found = json.loads(cli("estimate-noise", noisy, "--json").stdout)[0]["frames"][0]
    assert found["sigma"] == pytest.approx(told["sigma"], rel=0.3)
    assert "of the intensity scale" in cli("estimate-noise", noisy).stdout
    found_map = tmp_path / "sigma.nii.gz"
    assert cli("estimate-noise", noisy, "--map", found_map).exit_code == 0
    sigma = nib.nifti1.load(found_map)
    np.testing.assert_allclose(sigma.affine, phantom.affine, atol=1e-5)
    assert float(np.median(sigma.get_fdata())) == pytest.approx(found["sigma"], rel=0.1)
    assert cli("estimate-noise", noisy, "--map", found_map).exit_code == 5

    done = cli("evaluate", clean_nifti, clean_nifti, "--noisy", noisy, "--json")
    scores = json.loads(done.stdout)
    assert scores["noisy"]["psnr"] == pytest.approx(26, abs=3)
    assert scores["restored"]["ssim"] == pytest.approx(1)
    assert "foreground" in cli("evaluate", clean_nifti, noisy).stdout
    mask = save_nifti(
        tmp_path / "mask.nii.gz", (phantom.data > 500).astype(np.uint8), phantom.affine
    )
    masked = json.loads(cli("evaluate", clean_nifti, noisy, "--mask", mask, "--json").stdout)
    assert masked["restored"]["num_inside"] < scores["restored"]["num_inside"]


def test_simulate_with_a_gain_map(
    cli: Cli, clean_nifti: Path, phantom: Volume, save_nifti: Any, tmp_path: Path
) -> None:
    gain = np.ones(phantom.data.shape, np.float32)
    gain[:20] = 0
    gmap = save_nifti(tmp_path / "g.nii.gz", gain, phantom.affine)
    noisy = tmp_path / "n.nii.gz"
    options = ("--sigma", 0.1, "--gmap", gmap, "--noise", "gaussian")
    assert cli("simulate", clean_nifti, noisy, *options).exit_code == 0
    added = voxels(noisy) - phantom.data
    assert np.abs(added[:20]).max() < 1e-3 < added[20:].std()


def test_grids_that_differ_are_an_error(
    cli: Cli, clean_nifti: Path, phantom: Volume, save_nifti: Any, tmp_path: Path
) -> None:
    moved = phantom.affine.copy()
    moved[0, 3] += 1
    other = save_nifti(tmp_path / "moved.nii.gz", phantom.data, moved)
    done = cli("evaluate", clean_nifti, other)
    assert done.exit_code == 4
    assert "another grid" in done.stderr


def test_info(
    cli: Cli, noisy_nifti: Path, tiny_weights: Path, dicom_series: Any, noisy_phantom: Volume
) -> None:
    assert json.loads(cli("info", tiny_weights, "--json").stdout)["card"]["name"] == "tiny"
    assert "Guard: not calibrated" in cli("info", tiny_weights).stdout
    [scan] = json.loads(cli("info", noisy_nifti, "--json").stdout)["scans"]
    assert scan["shape"] == [32, 30, 26]
    short = cli("info", noisy_nifti).stdout
    assert "noisy: 32 x 30 x 26 voxels" in short
    assert f"sigma {scan['noise']['sigma']:.5g} in scan units" in short
    folder = dicom_series(noisy_nifti.parent / "d", noisy_phantom.data)
    told = cli("info", folder, "--json").stdout
    assert json.loads(told)["scans"][0]["modality"] == "MR"
    assert "Private" not in told + cli("info", folder).stdout


def test_info_of_weights_is_short_and_cannot_steer_a_terminal(
    cli: Cli, tiny_weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    with_card(tiny_weights, path, {"description": "a\x1b[2Jb\nc", "free": ["x" * 9000]})
    told = cli("info", path).stdout
    assert "a [2Jb c" in told
    assert len(told.splitlines()) < 12
    assert len(told) < 1000


def test_convert_there_and_back(cli: Cli, head: Any, dicom_series: Any, tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "in", head((40, 44, 20)))
    image = tmp_path / "a.nii.gz"
    assert cli("convert", folder, image).exit_code == 0
    encoding = ("--set", "dicom.transfer_syntax=jpeg2000-lossless")
    done = cli("convert", image, tmp_path / "anonymous", "--format", "dicom", *encoding)
    assert done.exit_code == 0, done.stderr
    done = cli("convert", image, tmp_path / "d", "--format", "dicom", "--like", image)
    assert done.exit_code == 2
    done = cli("convert", image, tmp_path / "d", "--format", "dicom", "--like", folder)
    assert done.exit_code == 0, done.stderr
    back = tmp_path / "b.nii.gz"
    done = cli("convert", Path(done.stdout.strip()), back)
    assert done.exit_code == 0, done.stderr
    np.testing.assert_allclose(nib.load(back).affine, nib.load(image).affine, atol=1e-3)
    np.testing.assert_allclose(voxels(back), voxels(image), atol=1)


def test_quickstart(
    cli: Cli,
    clean_nifti: Path,
    noisy_nifti: Path,
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from medddpm.workflows import example

    (tmp_path / "example").mkdir()
    (tmp_path / "example" / example.NOISY).write_bytes(noisy_nifti.read_bytes())
    (tmp_path / "example" / example.CLEAN).write_bytes(clean_nifti.read_bytes())
    monkeypatch.setattr(example, "share_dir", lambda: tmp_path)
    for _ in range(2):
        done = cli("quickstart", "--out", tmp_path / "q", "--weights", tiny_weights, "--overwrite")
        assert done.exit_code == 0, done.stderr
    assert "PSNR" in done.stdout
    assert {p.suffix for p in (tmp_path / "q").iterdir()} == {".gz", ".json", ".png", ".html"}


@pytest.fixture
def integers(noisy_phantom: Volume, tmp_path: Path) -> Path:
    """The noisy head as int16 with steps of 0.5."""
    image = nib.nifti1.Nifti1Image(
        np.rint(noisy_phantom.data * 2).astype(np.int16), noisy_phantom.affine
    )
    image.header.set_slope_inter(0.5, 0)
    nib.save(image, tmp_path / "integers.nii.gz")
    return tmp_path / "integers.nii.gz"


@pytest.mark.parametrize(
    ("asked", "dtype", "step"),
    [("input", "int16", 0.5), ("uint16", "uint16", 1.0), ("uint8", "uint8", 1.0)],
)
def test_the_number_type_of_an_output(
    cli: Cli,
    integers: Path,
    tiny_weights: Path,
    tmp_path: Path,
    asked: str,
    dtype: str,
    step: float,
) -> None:
    common = ("--weights", tiny_weights, "--device", "cpu")
    assert cli("restore", integers, tmp_path / "f.nii.gz", *common).exit_code in WRITTEN
    done = cli("restore", integers, tmp_path / "i.nii.gz", *common, "--dtype", asked)
    assert done.exit_code in WRITTEN, done.stderr
    image, plain = nib.load(tmp_path / "i.nii.gz"), nib.load(tmp_path / "f.nii.gz")
    assert plain.get_data_dtype() == np.float32
    assert image.get_data_dtype() == dtype
    assert (image.dataobj.slope, image.dataobj.inter) == (step, 0)
    top = np.iinfo(dtype).max * step
    off = np.abs(image.get_fdata() - np.minimum(plain.get_fdata(), top))
    assert off.max() <= step / 2 + 1e-3
    facts = json.loads((tmp_path / "i.json").read_text())
    assert facts["run"]["dtype"] == asked
    clipped = int((np.rint(plain.get_fdata() / step) > np.iinfo(dtype).max).sum())
    assert facts["rounding"] == {"dtype": dtype, "step": step, "clipped_voxels": clipped}
    assert f"rounded to {dtype} in steps of {step:.4g}" in done.stderr
    assert ("were clipped" in done.stderr) == (asked == "uint8")
    again = cli("replay", tmp_path / "i.json")
    assert again.exit_code == 0, again.stderr
    assert "the same bytes" in again.stdout


def test_number_types_are_for_nifti(cli: Cli, noisy_nifti: Path, tiny_weights: Path) -> None:
    out = noisy_nifti.parent / "out"
    options = ("--weights", tiny_weights, "--format", "dicom", "--dtype", "int16")
    done = cli("restore", noisy_nifti, out, *options)
    assert done.exit_code == 2
    assert "--dtype int16 is for NIfTI" in done.stderr


def test_results_say_what_they_are_on_one_line(
    noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    from medddpm import Restorer, read_volume, restore

    volume = read_volume(noisy_nifti)
    assert repr(volume) == "Volume(noisy: 32 x 30 x 26 voxels of 1 x 1.1 x 1.3 mm, RAS, nifti)"
    restorer = Restorer.from_pretrained(tiny_weights, device="cpu")
    done = restorer.restore(volume)
    written = restore(noisy_nifti, tmp_path / "out", weights=tiny_weights, device="cpu")
    for result in (volume.geometry, done, *written, *done.facts.frames):
        assert len(repr(result)) < 600
        assert "\n" not in repr(result)
    assert repr(done).startswith("Restored(volume=Volume(noisy: 32 x")
