from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from medddpm.io import read_volume, write_volume
from medddpm.io.provenance import voxel_checksum
from medddpm.io.synthetic_label import synthetic_label
from medddpm.marking import detect as search
from medddpm.marking.detect import detect_in_place
from medddpm.marking.key import Key
from medddpm.marking.signature import new_signing_key, read_signing_key, sign
from medddpm.marking.verdict import inspect_file
from medddpm.volume import Volume


@pytest.fixture
def key_file(tmp_path: Path, key: Key) -> Path:
    path = tmp_path / "key"
    path.write_text(key.secret.hex())
    return path


@pytest.fixture
def drawn(tmp_path: Path, drawn_and_marked: tuple[Volume, Volume]) -> Path:
    """A marked scan, without a sidecar."""
    write_volume(drawn_and_marked[1], tmp_path / "drawn.nii.gz")
    return tmp_path / "drawn.nii.gz"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of two turns: the whole one takes half a minute."""
    monkeypatch.setattr(search, "_TURNS", (0.0,))


def write_sidecar(scan: Path, **more: object) -> tuple[Path, Path]:
    """A signed sidecar, and the public key."""
    private, public = new_signing_key(scan.with_name("signer"))
    told = {"synthetic": True, "output": {"voxels_sha256": voxel_checksum(read_volume(scan))}}
    sidecar = scan.with_name("drawn.json")
    sidecar.write_text(json.dumps(sign({**told, **more}, read_signing_key(private))))
    return sidecar, public


def test_a_mark_is_said(cli: Callable[..., Any], drawn: Path, key_file: Path) -> None:
    done = cli("detect", drawn, "--key", key_file)
    assert done.exit_code == 6
    assert "Marked by this key: score" in done.stdout
    assert "where the header says" in done.stdout
    assert "No provenance" in done.stdout


def test_neither_is_said_and_proves_nothing(
    cli: Callable[..., Any], clean_nifti: Path, key_file: Path, quick: None
) -> None:
    done = cli("detect", clean_nifti, "--key", key_file)
    assert done.exit_code == 0, done.stderr
    assert "No mark of this key" in done.stdout
    assert "does not show that the scan is real" in done.stdout


def test_a_signed_sidecar_is_said(cli: Callable[..., Any], drawn: Path) -> None:
    _, public = write_sidecar(drawn)
    done = cli("detect", drawn, "--public-key", public)
    assert done.exit_code == 6
    assert "that needs --key" in done.stdout
    assert "signed by the given key; it is about these voxels" in done.stdout
    alone = cli("detect", drawn)
    assert "signed by a key that was not given, fingerprint" in alone.stdout


def test_other_voxels_and_a_changed_sidecar_are_said(cli: Callable[..., Any], drawn: Path) -> None:
    sidecar, public = write_sidecar(drawn, synthetic=False)
    image: Any = nib.load(drawn)
    data = image.get_fdata()
    nib.save(nib.nifti1.Nifti1Image(data[::-1], image.affine), drawn)
    done = cli("detect", drawn, "--public-key", public)
    assert (done.exit_code, "about other voxels" in done.stdout) == (6, True)
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**content, "model": "mine"}))
    done = cli("detect", drawn, "--public-key", public)
    assert (done.exit_code, "does not fit what it says" in done.stdout) == (6, True)


def test_json_says_the_same(cli: Callable[..., Any], drawn: Path, key_file: Path) -> None:
    _, public = write_sidecar(drawn)
    done = cli("detect", drawn, "--key", key_file, "--public-key", public, "--json")
    facts = json.loads(done.stdout)
    assert facts["synthetic"] is True
    assert facts["mark"]["found"] is True
    assert facts["mark"]["z"] > facts["mark"]["threshold"]
    assert facts["mark"]["false_alarm"] <= 1e-6
    assert facts["provenance"]["signature"] == "good"
    assert facts["provenance"]["voxels"] == "as signed"


def test_a_lost_header_is_told_by_the_voxel_size(
    cli: Callable[..., Any],
    tmp_path: Path,
    drawn_and_marked: tuple[Volume, Volume],
    key_file: Path,
    save_nifti: Any,
) -> None:
    lost = tmp_path / "lost.nii.gz"
    save_nifti(lost, drawn_and_marked[1].data[8:72, :64, 4:68], np.diag([2.0, 2.0, 2.0, 1.0]))
    done = cli("detect", lost, "--key", key_file, "--spacing", "1,1,1", "--json")
    assert json.loads(done.stdout)["mark"]["where"] == "moved"


@pytest.mark.parametrize("text", ["1,1", "a,b,c", "1,1,0", "1,1,nan"])
def test_a_voxel_size_that_is_none(cli: Callable[..., Any], drawn: Path, text: str) -> None:
    done = cli("detect", drawn, "--spacing", text)
    assert done.exit_code == 2
    assert "three sizes in mm" in done.stderr


def test_a_missing_or_wrong_key_is_said(cli: Callable[..., Any], drawn: Path) -> None:
    for name in ("none", drawn.name):
        done = cli("detect", drawn, "--key", drawn.with_name(name))
        assert done.exit_code == 2
        assert name in done.stderr
    done = cli("detect", drawn, "--public-key", drawn)
    assert (done.exit_code, "no public key" in done.stderr) == (2, True)


def test_what_is_no_image_is_said(cli: Callable[..., Any], tmp_path: Path, save_nifti: Any) -> None:
    text = tmp_path / "text.nii.gz"
    text.write_text("no image")
    holes = np.ones((20, 20, 20), np.float32)
    holes[3, 3, 3] = np.nan
    save_nifti(tmp_path / "holes.nii.gz", holes, np.eye(4))
    for name, word in (("text.nii.gz", "image"), ("holes.nii.gz", "NaN"), ("none", "not exist")):
        done = cli("detect", tmp_path / name)
        assert done.exit_code == 3, done.stderr
        assert word in done.stderr
        assert name in done.stderr


@pytest.mark.parametrize(
    "content", ["[]", "no json", '{"output": 5, "synthetic": true}', '{"synthetic": "yes"}', "5"]
)
def test_a_strange_json_file_beside_a_scan_does_no_harm(drawn: Path, content: str) -> None:
    drawn.with_name("drawn.json").write_text(content)
    told = inspect_file(drawn).provenance
    assert told.synthetic == ('"synthetic": true' in content)
    assert (told.signature, told.voxels) == ("none", "not told")


def test_a_sidecar_of_a_restoration_is_no_provenance_of_a_synthetic_scan(drawn: Path) -> None:
    drawn.with_name("drawn.json").write_text('{"statement": "restored"}')
    assert inspect_file(drawn).provenance.sidecar is None


@pytest.mark.parametrize("field", ["descrip", "intent_name"])
def test_the_header_of_a_nifti_file_may_say_it(drawn: Path, field: str) -> None:
    image: Any = nib.load(drawn)
    image.header[field] = b"Synthetic"
    nib.save(image, drawn)
    verdict = inspect_file(drawn)
    assert (verdict.provenance.label, verdict.is_synthetic) == (field, True)
    assert f"The header says SYNTHETIC ({field})." in verdict.sentences


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("SyntheticData", "YES"), ("ImageType", ["DERIVED", "SECONDARY", "SYNTHETIC"])],
)
def test_a_dicom_header_may_say_it(
    tmp_path: Path, head: Any, dicom_series: Any, attribute: str, value: Any
) -> None:
    folder = dicom_series(tmp_path / "series", head((24, 24, 8)))
    assert synthetic_label(read_volume(folder)) == ""
    for path in folder.iterdir():
        dataset = dcmread(path)
        setattr(dataset, attribute, value)
        dataset.save_as(path)
    assert inspect_file(folder).provenance.label == attribute


def test_keys_are_made(cli: Callable[..., Any], tmp_path: Path) -> None:
    assert cli("key", "new", tmp_path / "key").exit_code == 0
    assert cli("key", "new", tmp_path / "signer", "--kind", "signature").exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["key", "signer", "signer.pub"]
    again = cli("key", "new", tmp_path / "key")
    assert (again.exit_code, "exists already" in again.stderr) == (5, True)


def test_a_restored_scan_is_never_marked(
    cli: Callable[..., Any], noisy_nifti: Path, tiny_weights: Path, tmp_path: Path, key: Key
) -> None:
    out = tmp_path / "out"
    done = cli("restore", noisy_nifti, out, "--weights", tiny_weights, "--device", "cpu")
    assert done.exit_code in (0, 6), done.stderr
    restored = read_volume(out / "noisy_desc-denoised.nii.gz")
    assert not detect_in_place(restored, key).marked
    assert not inspect_file(out / "noisy_desc-denoised.nii.gz").is_synthetic


def test_what_restores_does_not_even_load_the_mark() -> None:
    code = (
        "import sys, medddpm.workflows.restoring, medddpm.restoration.restorer, "
        "medddpm.cohort.run, medddpm.node.serve\n"
        "assert not [m for m in sys.modules if m.startswith('medddpm.marking')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
