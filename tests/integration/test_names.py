"""Names that are bytes, long or text: every verb takes them, or says what is wrong."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.processes import command, ended

import medddpm
from medddpm import workflows
from medddpm.config import load_config
from medddpm.model.model import load_model, save_model, with_card
from medddpm.preprocess.noise_law import RICIAN
from medddpm.volume import Volume

Cli = Callable[..., Any]


def named(folder: Path, name: bytes, source: Path) -> Path:
    """A copy of a file under a name of bytes; skipped where the system wants text."""
    path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
    try:
        path.write_bytes(source.read_bytes())
    except OSError:
        pytest.skip("the file system takes no names but UTF-8")
    return path


@pytest.fixture
def latin1(tmp_path: Path, noisy_nifti: Path) -> Path:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/s\xe9rie"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("the file system takes no names but UTF-8")
    return named(folder, b"m\xfcller.nii.gz", noisy_nifti)


def test_every_verb_takes_a_name_in_latin1(
    latin1: Path, clean_nifti: Path, tmp_path: Path, tiny_weights: Path, cli: Cli
) -> None:
    out, name = latin1.parent, os.fsdecode(b"m\xfcller")
    weights = ("--weights", tiny_weights)
    assert cli("restore", latin1, out, "--report", *weights).exit_code in (0, 6)
    sidecar = out / f"{name}_desc-denoised.json"
    facts = json.loads(sidecar.read_text(encoding="utf-8"))
    assert facts["input"]["path"] == latin1.name
    assert facts["input"]["case_id"] == r"m\xfcller"
    assert r"m\xfcller" in sidecar.with_suffix(".html").read_text(encoding="utf-8")
    assert cli("replay", sidecar).exit_code == 0
    assert cli("report", out, "--overwrite").exit_code == 0
    clean = named(out, b"cl\xe9an.nii.gz", clean_nifti)
    noisy = clean.with_name(clean.name.replace("an", "")[:-7] + "-noisy.nii.gz")
    assert cli("simulate", clean, noisy, "--sigma", 0.05).exit_code == 0
    assert cli("evaluate", clean, noisy).exit_code == 0
    assert cli("info", latin1).exit_code == 0
    assert cli("estimate-noise", latin1, "--map", out / "map.nii.gz").exit_code == 0
    assert cli("convert", latin1, out / "dicom", "--format", "dicom").exit_code == 0
    words = ("--out", out / "bench", "--sigma", 0.05, "--method", "identity")
    assert cli("benchmark", clean, *words).exit_code == 0
    page = (out / "bench" / "index.html").read_bytes()
    assert page.decode("utf-8")


def test_weights_in_a_folder_in_latin1(
    latin1: Path, tmp_path: Path, tiny_weights: Path, cli: Cli
) -> None:
    """Read and written, though safetensors takes names as text."""
    weights = named(latin1.parent, b"\xfcber.safetensors", tiny_weights)
    out = latin1.parent / "out"
    assert cli("restore", latin1, out, "--weights", weights).exit_code in (0, 6)
    [sidecar] = out.glob("*.json")
    assert cli("replay", sidecar).exit_code == 0
    assert cli("info", weights).exit_code == 0
    model = load_model(weights)
    save_model(latin1.parent / "again.safetensors", model)
    with_card(weights, latin1.parent / "card.safetensors", {"name": "other"})
    assert load_model(latin1.parent / "again.safetensors").card == model.card
    assert load_model(latin1.parent / "card.safetensors").card["name"] == "other"


def test_a_cohort_goes_on_over_any_name(
    latin1: Path, noisy_nifti: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    """In processes of their own: what is printed is bytes too, and another name stays its own."""
    folder = latin1.parent
    named(folder, b"m\xe4ller.nii.gz", noisy_nifti)
    named(folder, "gr\u00fcn #1 50%.nii.gz".encode(), noisy_nifti)
    out = tmp_path / "out"
    weights = ("--weights", tiny_weights)
    done = ended(command, "cohort", folder, out, "--workers", 1, *weights)
    assert done.code in (0, 6), done.stderr
    images = sorted(os.fsencode(p.name) for p in out.glob("*.nii.gz"))
    assert images == [
        "gr\u00fcn #1 50%_desc-denoised.nii.gz".encode(),
        b"m\xe4ller_desc-denoised.nii.gz",
        b"m\xfcller_desc-denoised.nii.gz",
    ]
    text = (out / "cohort.csv").read_text(encoding="utf-8", errors="surrogateescape")
    rows = list(csv.DictReader(text.splitlines()))
    assert all((out / row["outputs"]).is_file() for row in rows)
    page = (out / "cohort.html").read_text(encoding="utf-8")
    for link in ("gr%C3%BCn%20%231%2050%25_desc-denoised.json", "m%FCller_desc-denoised.json"):
        assert f'href="{link}"' in page
    assert b"m\\xfcller: sigma" in ended(command, "estimate-noise", latin1).stdout
    printed = ended(command, "restore", latin1, tmp_path / "b", *weights).stdout
    assert os.fsencode(tmp_path) + b"/b/m\xfcller_desc-denoised.nii.gz\n" in printed


@pytest.mark.parametrize("length", [228, 233, 234, 241, 255])
def test_long_names(
    length: int, noisy_nifti: Path, tmp_path: Path, tiny_weights: Path, cli: Cli
) -> None:
    """An output with a name that the file system can hold is written; else nothing is."""
    source = named(tmp_path, b"v" * (length - 7) + b".nii.gz", noisy_nifti)
    stem = "v" * (length - 7)
    for verb, label in (("restore", "desc-denoised"), ("convert", "converted")):
        out = tmp_path / verb
        out.mkdir()
        words = ("--weights", tiny_weights) if verb == "restore" else ()
        done = cli(verb, source, out, *words)
        image = out / f"{stem}_{label}.nii.gz"
        if len(image.name) <= 255:
            assert done.exit_code in (0, 6), done.stderr
            assert image.is_file()
        else:
            assert done.exit_code == 5
            assert f"has {len(image.name)} bytes, and names have 255 at most" in done.stderr
            assert not list(out.iterdir())


def test_the_maps_have_the_longest_names(noisy_nifti: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "out"
    out.mkdir()
    words = ("--mode", "ensemble", "--samples", 2, "--steps", 1)
    done = cli("restore", noisy_nifti, out / f"{'v' * 243}.nii.gz", *words)
    assert done.exit_code == 5
    assert "_lower" not in str(list(out.iterdir()))


def test_a_cohort_with_one_long_name(noisy_nifti: Path, tmp_path: Path, tiny_weights: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    named(folder, b"v" * 240 + b".nii.gz", noisy_nifti)
    named(folder, b"short.nii.gz", noisy_nifti)
    done = ended(command, "cohort", folder, out, "--workers", 1, "--weights", tiny_weights)
    assert done.code == 7
    rows = list(csv.DictReader((out / "cohort.csv").read_text().splitlines()))
    assert [row["error"] for row in rows] == ["", "OutputError"]
    assert (out / "short_desc-denoised.nii.gz").is_file()


@pytest.mark.parametrize("verb", ["info", "report", "replay", "estimate-noise"])
@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + ".nii.gz", "a/" * 3000])
def test_inputs_that_no_file_can_be(verb: str, name: str, cli: Cli) -> None:
    done = cli(verb, name)
    assert done.exit_code == 3
    assert "a bug" not in done.stderr


def test_a_folder_without_a_name(
    noisy_nifti: Path, tmp_path: Path, tiny_weights: Path, cli: Cli, monkeypatch: Any
) -> None:
    """`medddpm report .`: the page of the results in the folder where one is."""
    out = tmp_path / "out"
    cli("restore", noisy_nifti, out, "--weights", tiny_weights)
    monkeypatch.chdir(out)
    assert cli("report", ".").exit_code == 0
    assert (out / "noisy_desc-denoised.html").is_file()
    (out / "sub").mkdir()
    monkeypatch.chdir(out / "sub")
    assert cli("report", "..", "--overwrite").exit_code == 0
    monkeypatch.chdir(out)
    for words in (
        ("report", "./", "--overwrite"),
        ("restore", "noisy_desc-denoised.nii.gz", ".", "--weights", tiny_weights),
        ("simulate", "noisy_desc-denoised.nii.gz", ".", "--sigma", 0.05),
        ("convert", "noisy_desc-denoised.nii.gz", "."),
    ):
        assert cli(*words).exit_code in (0, 6), words
    assert cli("info", ".").exit_code == 0  # of all its scans
    for words in (("replay", "."), ("evaluate", ".", ".")):
        done = cli(*words)
        assert done.exit_code == 3
        assert "a bug" not in done.stderr


def test_python_takes_text(
    noisy_nifti: Path, clean_nifti: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: Any
) -> None:
    noisy, clean, weights = str(noisy_nifti), str(clean_nifti), str(tiny_weights)
    scan = medddpm.read_volume(noisy)
    assert isinstance(medddpm.read_volumes(noisy)[0], Volume)
    restorer = medddpm.Restorer.from_pretrained(weights)
    restored = restorer.restore(scan, tile=32)
    out = medddpm.write_volume(restored.volume, f"{tmp_path}/a.nii.gz")
    assert out.is_file()
    [done] = medddpm.restore(noisy, f"{tmp_path}/out", weights=weights, report=True)
    assert done.image.is_file()
    assert medddpm.evaluate(clean, str(done.image), noisy=noisy, mask=clean).noisy is not None
    assert workflows.info(noisy)["scans"]
    assert workflows.estimate_noise(noisy)[0][1][0].sigma > 0
    noised = workflows.simulate(clean, f"{tmp_path}/n.nii.gz", 0.05, scanner=RICIAN, gmap=clean)
    assert noised.noisy.is_file()
    assert workflows.convert(noisy, f"{tmp_path}/conv")[0].is_file()
    assert workflows.report(str(done.image), out=f"{tmp_path}/page.html").pages
    assert workflows.report([str(done.sidecar)], overwrite=True, reference=clean).pages
    assert workflows.replay(str(done.sidecar), source=noisy).same_voxels
    (tmp_path / "c.yaml").write_text("restore: {tile: 96}")
    assert load_config(f"{tmp_path}/c.yaml").restore.tile == 96
    monkeypatch.chdir(tmp_path)
    [here] = medddpm.restore("noisy.nii.gz", "here", weights=weights)
    assert here.image == Path("here/noisy_desc-denoised.nii.gz")
