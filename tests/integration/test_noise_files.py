"""What estimate-noise writes, restore reads: a map of sigma and the colour of the noise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.preprocess.acquisition import Acquisition, acquire
from medddpm.preprocess.noise_law import Colour, NoiseLaw

Cli = Callable[..., Any]
COLOUR = Colour((0.7, 0.7, 1.0))


@pytest.fixture
def scan(tmp_path: Path, head: Any, save_nifti: Any, oblique_affine: Any) -> Path:
    """A head of 64 x 64 x 48 whose k-space ends at 0.7 of Nyquist over x and y, sigma 50."""
    acquisition = Acquisition(0.05, matrix=COLOUR.edge)
    made = acquire(head((64, 64, 48)) / 1000, acquisition, np.random.default_rng(0))
    path: Path = save_nifti(tmp_path / "scan.nii.gz", 1000 * made.noisy, oblique_affine)
    return path


@pytest.fixture
def restore(cli: Cli, tiny_weights: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Restores a scan and returns its sidecar, or the error."""

    def run(scan: Path, name: str, *options: object) -> Any:
        target = tmp_path / name / "r.nii.gz"
        done = cli("restore", scan, target, "--weights", tiny_weights, *options)
        if done.exit_code not in (0, 6):
            return done
        return json.loads((tmp_path / name / "r.json").read_text())

    return run


def estimate(cli: Cli, scan: Path, folder: Path) -> tuple[Path, Path]:
    """The map and the JSON that estimate-noise makes of a scan, as they are."""
    done = cli("estimate-noise", scan, "--map", folder / "sigma.nii.gz", "--json")
    assert done.exit_code == 0, done.stderr
    (folder / "noise.json").write_text(done.stdout)
    return folder / "sigma.nii.gz", folder / "noise.json"


def test_what_estimate_noise_writes_is_what_restore_would_find(
    cli: Cli, scan: Path, restore: Any, tmp_path: Path
) -> None:
    found_map, spectrum = estimate(cli, scan, tmp_path)
    both = restore(scan, "both", "--noise-map", found_map, "--noise-spectrum", spectrum)
    found = restore(scan, "found")["frames"][0]
    assert both["frames"][0]["colour"] == found["colour"]
    assert both["frames"][0]["sigma"]["sigma"] == pytest.approx(found["sigma"]["sigma"], rel=1e-3)
    assert both["frames"][0]["sigma"]["method"] == "given"
    assert both["frames"][0]["acquired_matrix"] == found["acquired_matrix"]
    estimated = json.loads(spectrum.read_text())[0]["frames"][0]["colour"]
    assert both["options"]["colour"] == estimated
    assert both["noise_files"] == {
        "map": {
            "file": "sigma.nii.gz",
            "path": "../sigma.nii.gz",
            "sha256": sha256(found_map.read_bytes()).hexdigest(),
        },
        "spectrum": {
            "file": "noise.json",
            "sha256": sha256(spectrum.read_bytes()).hexdigest(),
        },
    }


def test_a_map_alone_leaves_the_colour_to_be_found(
    scan: Path, restore: Any, tmp_path: Path, save_nifti: Any, oblique_affine: Any
) -> None:
    ramp = np.broadcast_to(np.linspace(20, 80, 64, dtype=np.float32)[:, None, None], (64, 64, 48))
    given = save_nifti(tmp_path / "ramp.nii.gz", ramp, oblique_affine)
    frame = restore(scan, "ramp", "--noise-map", given)["frames"][0]
    assert frame["colour"] == restore(scan, "found")["frames"][0]["colour"]
    assert frame["colour"]["edge"] != [1, 1, 1]
    expected = {f"p{q}": float(np.percentile(ramp, q)) for q in (5, 50, 95)}
    assert frame["sigma_map"] == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["json", "nifti"])
def test_a_spectrum_alone_leaves_the_level_to_be_found(
    scan: Path, restore: Any, tmp_path: Path, save_nifti: Any, oblique_affine: Any, kind: str
) -> None:
    path = tmp_path / "spectrum.json"
    path.write_text(json.dumps({"edge": [0.7, 0.7, 1.0]}))
    if kind == "nifti":
        grid = [np.fft.fftfreq(n) * 2 for n in (64, 64, 48)]
        path = save_nifti(tmp_path / "power.nii.gz", COLOUR.power(grid), oblique_affine)
    frame = restore(scan, "out", "--noise-spectrum", path)["frames"][0]
    assert frame["sigma"]["sigma"] == pytest.approx(50, rel=0.15)
    assert frame["sigma"]["method"] in ("air", "foreground")
    acquired = np.array(frame["acquired_matrix"]) / (64, 64, 48)  # the grid of that colour
    assert acquired * frame["colour"]["edge"] == pytest.approx([0.7, 0.7, 1.0], abs=0.02)
    given = restore(scan, "given", "--noise-spectrum", path, "--sigma", 40)["frames"][0]
    assert (given["sigma"]["sigma"], given["colour"]) == (40, frame["colour"])


def test_replay_needs_the_same_map_and_no_spectrum(
    cli: Cli, scan: Path, restore: Any, tmp_path: Path
) -> None:
    found_map, spectrum = estimate(cli, scan, tmp_path)
    restore(scan, "out", "--noise-map", found_map, "--noise-spectrum", spectrum)
    sidecar = tmp_path / "out" / "r.json"
    spectrum.unlink()  # the sidecar holds what it said
    assert cli("replay", sidecar).exit_code == 0
    moved = shutil.move(found_map, tmp_path / "moved.nii.gz")
    gone = cli("replay", sidecar)
    assert gone.exit_code == 3
    assert "--noise-map" in gone.stderr
    assert cli("replay", sidecar, "--noise-map", moved).exit_code == 0
    image = nib.nifti1.load(moved)
    nib.nifti1.save(nib.nifti1.Nifti1Image(image.get_fdata() * 2, image.affine), moved)
    changed = cli("replay", sidecar, "--noise-map", moved)
    assert changed.exit_code == 3
    assert "changed" in changed.stderr


def test_what_contradicts_is_refused(
    cli: Cli, scan: Path, restore: Any, tmp_path: Path, save_nifti: Any, oblique_affine: Any
) -> None:
    found_map, spectrum = estimate(cli, scan, tmp_path)
    zeros = save_nifti(tmp_path / "z.nii.gz", np.zeros((64, 64, 48), np.float32), oblique_affine)
    small = save_nifti(tmp_path / "s.nii.gz", np.ones((8, 8, 8), np.float32), oblique_affine)
    broken = tmp_path / "broken.json"
    broken.write_text('{"edge": [0.5, 0.5]}')
    white = ("--set", "restore.colour=white")
    for code, words, options in [
        (2, "--sigma", ("--noise-map", found_map, "--sigma", 40)),
        (2, "noise_map=off", ("--noise-map", found_map, "--set", "restore.noise_map=off")),
        (2, "restore.colour", ("--noise-spectrum", spectrum, *white)),
        (2, "no sigma has", ("--noise-map", zeros)),
        (4, "another grid", ("--noise-map", small)),
        (2, "(8, 8, 8)", ("--noise-spectrum", small)),
        (2, "three axes", ("--noise-spectrum", broken)),
        (2, "holds no colour", ("--noise-spectrum", _json(tmp_path, {"edges": 1}))),
        (2, "holds no colour", ("--noise-spectrum", _json(tmp_path, [{}, {}]))),
        (3, "does not exist", ("--noise-map", tmp_path / "none.nii.gz")),
    ]:
        done = restore(scan, "out", *options)
        assert done.exit_code == code, (options, done.stderr)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out" / "r.nii.gz").exists()


def _json(folder: Path, content: Any) -> Path:
    path = folder / f"{abs(hash(str(content)))}.json"
    path.write_text(json.dumps(content))
    return path


def test_the_map_of_a_dicom_series_and_of_each_frame(
    cli: Cli,
    head: Any,
    dicom_series: Any,
    restore: Any,
    tmp_path: Path,
    save_nifti: Any,
    oblique_affine: Any,
) -> None:
    law = NoiseLaw(sigma=50.0)
    noisy = law.added_to(head((40, 44, 36)), np.random.default_rng(1))
    series = dicom_series(tmp_path / "series", noisy)
    found_map, spectrum = estimate(cli, series, tmp_path)
    facts = restore(series, "dicom", "--noise-map", found_map, "--noise-spectrum", spectrum)
    assert "path" not in facts["noise_files"]["map"]
    sidecar = tmp_path / "dicom" / "r.json"
    assert "--noise-map" in cli("replay", sidecar, "--source", series).stderr
    assert cli("replay", sidecar, "--source", series, "--noise-map", found_map).exit_code == 0

    film = np.stack([noisy, np.zeros_like(noisy), noisy], -1)
    path = save_nifti(tmp_path / "film.nii.gz", film, oblique_affine)
    levels = np.array([30, 0, 60], np.float32)
    sigmas: NDArray[np.float32] = np.broadcast_to(levels, film.shape)
    frames = restore(
        path, "film", "--noise-map", save_nifti(tmp_path / "m.nii.gz", sigmas, oblique_affine)
    )["frames"]
    assert [frame["sigma"]["sigma"] for frame in frames] == pytest.approx([30, 0, 60])


def test_the_colour_is_an_option_too(scan: Path, restore: Any) -> None:
    facts = restore(scan, "out", "--set", "restore.colour={edge: [0.7, 0.7, 1]}")
    assert facts["options"]["colour"]["edge"] == [0.7, 0.7, 1]
    assert facts["frames"][0]["acquired_matrix"] == [48, 48, 48]
    assert restore(scan, "bad", "--set", "restore.colour=green").exit_code == 2


def test_what_the_header_says_is_told(cli: Cli, scan: Path, restore: Any) -> None:
    told = {"PhaseEncodingDirection": "j", "BaseResolution": 46, "AcquisitionMatrixPE": 46}
    scan.with_name("scan.json").write_text(json.dumps(told))
    words = "k-space measured to 0.72 along X, 0.72 along Y"
    assert words in cli("info", scan).stdout
    assert words in cli("estimate-noise", scan).stdout
    rows = json.loads(cli("estimate-noise", scan, "--json").stdout)
    share = 46 / 64
    assert rows[0]["header"]["edge"] == [share, share, None]
    assert rows[0]["frames"][0]["colour"]["edge"] == [share, share, 1]
    facts = restore(scan, "out")
    assert facts["header"]["edge"] == [share, share, None]
    sidecar = scan.parent / "out" / "r.json"
    assert cli("replay", sidecar).exit_code == 0
    scan.with_name("scan.json").unlink()
    assert "what the header says of edge" in cli("replay", sidecar).stdout
