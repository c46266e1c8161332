"""Reports and replays from the command line, on phantoms and a tiny random model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from medddpm import Restorer, read_volume, restore
from medddpm.volume import Volume

Cli = Callable[..., Any]
WRITTEN = (0, 6)
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def study(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A noisy scan, and out/scan.nii.gz restored from it, to copy: a test may spoil its own."""
    folder = tmp_path_factory.mktemp("study")
    shape = (32, 30, 26)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    head = np.where(x**2 + y**2 + z**2 < 0.7, 600 + 300 * (x > 0), 0)
    noise = np.random.default_rng(3).normal(0, 50, (2, *shape))
    for name, data in (("clean", head), ("noisy", np.hypot(head + noise[0], noise[1]))):
        image = nib.nifti1.Nifti1Image(data.astype(np.float32), np.diag([1, 1.1, 1.3, 1]))
        nib.save(image, folder / f"{name}.nii.gz")
    out = folder / "out" / "scan.nii.gz"
    out.parent.mkdir()
    restore(folder / "noisy.nii.gz", out, weights=tiny_weights, device="cpu")
    return folder


@pytest.fixture
def restored(study: Path, tmp_path: Path) -> Path:
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    return tmp_path / "out" / "scan.nii.gz"


@pytest.fixture
def noisy_nifti(study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(study / "noisy.nii.gz", tmp_path))


@pytest.fixture
def clean_nifti(study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(study / "clean.nii.gz", tmp_path))


def sidecar_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_name("scan.json").read_text())
    return found


def test_restore_report_writes_the_page_beside_the_scan(
    cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    options = ("--mode", "ensemble", "--samples", 2, "--steps", 1, "--weights", tiny_weights)
    done = cli("restore", noisy_nifti, tmp_path / "a.nii.gz", "--report", *options)
    assert done.exit_code in WRITTEN, done.stderr
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert str(tmp_path / "a.html") in done.stdout
    assert ">Uncertainty</button>" in page
    facts = json.loads((tmp_path / "a.json").read_text())
    for text in (facts["input"]["sha256"], facts["weights"]["sha256"], facts["statement"]):
        assert text in page
    again = cli("restore", noisy_nifti, tmp_path / "a.nii.gz", "--report", *options)
    assert again.exit_code == 5


def test_report_finds_everything_from_the_result(
    cli: Cli, restored: Path, clean_nifti: Path, tmp_path: Path
) -> None:
    done = cli("report", restored)
    assert done.exit_code == 0, done.stderr
    page = restored.with_name("scan.html").read_text(encoding="utf-8")
    assert "SNR" in page
    assert "PSNR, dB" not in page
    assert "random weights for tests" in page  # the card of the weights
    assert cli("report", restored).exit_code == 5
    done = cli("report", restored, "--reference", clean_nifti, "--out", tmp_path / "ref.html")
    assert done.exit_code == 0, done.stderr
    assert "PSNR, dB" in (tmp_path / "ref.html").read_text(encoding="utf-8")


def test_several_results_get_a_page_that_links_to_theirs(
    cli: Cli, restored: Path, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    name = "b & <b>c \u00e9.nii.gz"
    cli("restore", noisy_nifti, restored.with_name(name), "--weights", tiny_weights, "--sigma", 500)
    done = cli("report", restored.parent, "--out", tmp_path / "pages")
    assert done.exit_code == 0, done.stderr
    index = (tmp_path / "pages" / "index.html").read_text(encoding="utf-8")
    assert "<b>c" not in index
    assert 'href="scan.html"' in index
    assert "1 flagged" in index
    assert len(list((tmp_path / "pages").glob("*.html"))) == 3


def test_a_group_with_references(
    cli: Cli, restored: Path, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    """PSNR where there is a clean scan, SNR elsewhere; the page over all may be the only one."""
    other = restored.parent / "more" / "scan.nii.gz"
    other.parent.mkdir()
    done = cli("restore", noisy_nifti, other, "--weights", tiny_weights)
    assert done.exit_code in WRITTEN, done.stderr
    (tmp_path / "refs").mkdir()
    shutil.copy(tmp_path / "clean.nii.gz", tmp_path / "refs" / "noisy.nii.gz")
    index = restored.with_name("index.html")
    done = cli("report", restored.parent, "--reference", tmp_path / "refs", "--index-only")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.split() == [str(index)]
    page = index.read_text(encoding="utf-8")
    assert "PSNR gain, dB" in page
    assert "SNR after" not in page.replace("PSNR after", "")
    assert 'href="more/scan.json"' in page  # no page yet, and both are called "scan"
    assert ">more/scan</a>" in page
    assert cli("report", other).exit_code == 0
    table = tmp_path / "refs.csv"
    table.write_text("scan,reference\nnothing,clean.nii.gz\n")
    again = ("report", restored.parent, "--index-only", "--overwrite", "--reference")
    done = cli(*again, table)
    assert done.exit_code == 2
    assert "no scan for any result" in done.stderr
    restored.rename(restored.with_name("first.nii.gz"))
    restored.with_name("scan.json").rename(restored.with_name("first.json"))
    table.write_text("scan,reference\nfirst,clean.nii.gz\n")
    done = cli(*again, table, "--out", tmp_path / "all.html")
    assert done.exit_code == 0, done.stderr
    assert "no reference for scan" in done.stderr
    page = (tmp_path / "all.html").read_text(encoding="utf-8")
    assert 'href="out/more/scan.html"' in page
    assert "PSNR after" in page
    assert "SNR after" in page.replace("PSNR after", "")


@pytest.mark.parametrize(("what", "code"), [("empty", 2), ("missing", 3), ("scan", 3), ("text", 3)])
def test_a_report_over_nothing(
    cli: Cli, what: str, code: int, noisy_nifti: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.json").write_text("[1")
    paths = {"scan": noisy_nifti, "text": tmp_path / "text.json"}
    done = cli("report", paths.get(what, tmp_path / what))
    assert done.exit_code == code, done.stderr
    assert not list(tmp_path.rglob("*.html"))


def test_a_source_that_is_gone_or_changed(cli: Cli, restored: Path, noisy_nifti: Path) -> None:
    moved = noisy_nifti.rename(noisy_nifti.with_name("moved.nii.gz"))
    for verb, what in (("report", restored), ("replay", restored.with_name("scan.json"))):
        done = cli(verb, what)
        assert done.exit_code == 3
        assert "is gone" in done.stderr
        assert "--source" in done.stderr
        assert cli(verb, what, "--source", moved).exit_code == 0
    moved.write_bytes(moved.read_bytes()[:-1] + b"\0")  # the last byte of gzip's size
    image = nib.load(restored)
    nib.save(image, noisy_nifti)
    done = cli("report", restored, "--overwrite")
    assert done.exit_code == 3
    assert "has changed since" in done.stderr


def test_a_result_that_changed_or_lies_on_another_grid(
    cli: Cli, restored: Path, clean_nifti: Path, tmp_path: Path
) -> None:
    image = nib.load(clean_nifti)
    other = tmp_path / "other.nii.gz"
    nib.save(nib.nifti1.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), other)
    done = cli("report", restored, "--reference", other)
    assert done.exit_code == 4
    assert "another grid" in done.stderr
    restored.write_bytes(clean_nifti.read_bytes())
    done = cli("report", restored)
    assert done.exit_code == 3
    assert "has changed since" in done.stderr
    assert not restored.with_name("scan.html").exists()


def test_one_bad_result_of_several_is_left_out(
    cli: Cli, restored: Path, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    cli("restore", noisy_nifti, restored.with_name("b.nii.gz"), "--weights", tiny_weights)
    restored.write_bytes(b"cut")
    done = cli("report", restored.parent)
    assert done.exit_code == 3
    assert "1 done, 1 left out" in done.stderr
    assert restored.with_name("b.html").is_file()
    assert 'href="scan.html"' not in restored.with_name("index.html").read_text(encoding="utf-8")


def test_frames_of_a_4d_scan(
    cli: Cli, noisy_phantom: Volume, save_nifti: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    frames = np.stack([noisy_phantom.data, 0.5 * noisy_phantom.data], axis=-1)
    source = save_nifti(tmp_path / "bold.nii.gz", frames, noisy_phantom.affine)
    out = tmp_path / "scan.nii.gz"
    assert cli("restore", source, out, "--weights", tiny_weights, "--report").exit_code in WRITTEN
    page = tmp_path / "scan.html"
    assert "frame 0 of a series of 2" in page.read_text(encoding="utf-8")
    assert cli("report", out, "--frame", 1, "--overwrite").exit_code == 0
    assert "frame 1 of a series of 2" in page.read_text(encoding="utf-8")
    done = cli("report", out, "--frame", 2, "--overwrite")
    assert done.exit_code == 2
    assert "no frame 2" in done.stderr
    assert cli("replay", tmp_path / "scan.json").exit_code == 0


def test_dicom_with_markup_in_its_names(
    cli: Cli, noisy_phantom: Volume, dicom_series: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    """The page names neither the patient nor the series, and their markup is nowhere."""
    folder = dicom_series(tmp_path / "in" / "Private^Person", noisy_phantom.data)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientName = dataset.SeriesDescription = dataset.Manufacturer = EVIL
        dataset.save_as(path)
    out = tmp_path / "out"
    options = ("--format", "dicom", "--weights", tiny_weights, "--report")
    done = cli("restore", tmp_path / "in", out, *options)
    assert done.exit_code in WRITTEN, done.stderr
    [page], [sidecar] = out.glob("*.html"), out.glob("*.json")
    for path in (page, sidecar):
        text = path.read_text(encoding="utf-8")
        assert "onerror" not in text.split("<script>")[0]
        assert "Private" not in text
        assert "P-0001" not in text
    done = cli("report", out, "--overwrite")
    assert done.exit_code == 3
    assert "give --source" in done.stderr
    series = next(path for path in out.iterdir() if path.is_dir())
    done = cli("report", series, "--source", tmp_path / "in", "--overwrite")
    assert done.exit_code == 0, done.stderr
    dicom_series(tmp_path / "in" / "broken", noisy_phantom.data, number=2, skip=(7,))
    done = cli("replay", sidecar, "--source", tmp_path / "in")
    assert done.exit_code == 0, done.stderr
    assert "the same bytes" in done.stdout


def test_replay_of_dicom_compares_bytes(
    cli: Cli, noisy_phantom: Volume, dicom_series: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    """Series, Parametric Maps and page are written again; a tag that changed is found."""
    dicom_series(tmp_path / "in", noisy_phantom.data)
    out = tmp_path / "out"
    options = (
        "--format", "dicom", "--weights", tiny_weights, "--mode", "ensemble", "--samples", 2,
        "--steps", 1, "--set", "dicom.transfer_syntax=rle", "--set", "dicom.report=pdf",
    )  # fmt: skip
    assert cli("restore", tmp_path / "in", out, *options).exit_code in WRITTEN
    [sidecar] = out.glob("*.json")
    series = next(path for path in out.iterdir() if path.is_dir())
    facts = json.loads(sidecar.read_text())
    assert len(facts["output"]["files"]) == 5
    replay = ("replay", sidecar, "--source", tmp_path / "in")
    done = cli(*replay)
    assert done.exit_code == 0, done.stdout
    assert f"{sidecar.name}: the same bytes" in done.stdout
    facts["run"]["dicom"]["transfer_syntax"] = "explicit"
    sidecar.write_text(json.dumps(facts))
    done = cli(*replay)
    assert done.exit_code == 0, done.stdout
    assert "the same voxels" in done.stdout
    assert f"the bytes of {series.name} are not" in done.stdout
    first = sorted(series.iterdir())[0]
    dataset = pydicom.dcmread(first)
    dataset.SeriesDescription = "changed"
    dataset.save_as(first)
    done = cli("report", series, "--source", tmp_path / "in")
    assert done.exit_code == 3
    assert "has changed since" in done.stderr
    facts["run"]["dicom"]["unheard_of"] = 1
    sidecar.write_text(json.dumps(facts))
    assert cli(*replay).exit_code == 3


def test_replay_gives_the_same_bytes(cli: Cli, restored: Path) -> None:
    before = sorted(restored.parent.iterdir())
    done = cli("replay", restored.with_name("scan.json"))
    assert done.exit_code == 0, done.stderr
    assert "scan.json: the same bytes" in done.stdout
    assert sorted(restored.parent.iterdir()) == before


def test_a_moved_study_replays(
    cli: Cli, restored: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    """Input and output move together, so the relative path holds; the weights do not."""
    study = tmp_path / "study"
    (study / "out").mkdir(parents=True)
    for path in restored.parent.iterdir():
        path.rename(study / "out" / path.name)
    (tmp_path / "noisy.nii.gz").rename(study / "noisy.nii.gz")
    done = cli("replay", study / "out" / "scan.json", "--weights", tiny_weights)
    assert done.exit_code == 0, done.stderr


def test_replay_says_what_differs(cli: Cli, restored: Path) -> None:
    facts = sidecar_of(restored)
    facts["options"]["fidelity"] = 0.5
    facts["versions"]["torch"] = "1.0"
    facts["machine"]["threads"] = "64"
    restored.with_name("scan.json").write_text(json.dumps(facts))
    done = cli("replay", restored.with_name("scan.json"))
    assert done.exit_code == 6
    for text in ("NOT the same", "% of the voxels differ", "sigma)", "torch: 1.0 then", "64 then"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"weights": {"sha256": "0" * 64}}, 3, "weights have SHA-256"),
        ({"input": {"sha256": "0" * 64}}, 3, "has changed since"),
        ({"input": {"path": None}}, 3, "give --source"),
        ({"options": {"unheard_of": 1}}, 3, "another release"),
        ({"output": None}, 3, "no checksum"),
        ({"frames": None}, 3, "no sidecar"),
    ],
)
def test_a_sidecar_that_cannot_be_replayed(
    cli: Cli, restored: Path, change: dict[str, Any], code: int, text: str
) -> None:
    facts = sidecar_of(restored)
    for part, fields in change.items():
        if fields is None:
            del facts[part]
        else:
            facts[part] |= fields
    restored.with_name("scan.json").write_text(json.dumps(facts))
    done = cli("replay", restored.with_name("scan.json"))
    assert done.exit_code == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_the_result_shows_itself(noisy_nifti: Path, tiny_weights: Path, tmp_path: Path) -> None:
    [scan] = restore(noisy_nifti, tmp_path / "a.nii.gz", weights=tiny_weights)
    assert "sigma" in scan._repr_mimebundle_()["text/plain"]
    result = Restorer.from_pretrained(tiny_weights).restore(
        read_volume(noisy_nifti), mode="ensemble", samples=2, steps=1
    )
    bundle = result._repr_mimebundle_()
    assert "uncertainty" in bundle["text/html"]
    assert "no check raised" in bundle["text/plain"] or "flagged" in bundle["text/plain"]
