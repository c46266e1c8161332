"""`train reference`: scenes of pairs, label maps and single scans, and a file that restores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medddpm.config import Config, load_config
from medddpm.errors import ConfigError, OutputError
from medddpm.io import read_volume
from medddpm.reference.weights import load_reference
from medddpm.restoration.referenced import Reference
from medddpm.training.reference_scenes import PairedScans, read_scene, recoloured
from medddpm.workflows import train

SETTINGS = (
    "reference.channels=[8,8]",
    "reference.scenes=6",
    "reference.held_scenes=2",
    "reference.steps=4",
    "data.patch=32",
    "data.holdout=[sub-03*]",
    "train.warmup=1",
    "train.log_every=2",
    "train.validate_every=4",
)


def _head(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(*(np.arange(n) - n / 2 for n in (36, 40, 34)), indexing="ij"), -1)
    axes = np.array([13.0, 15.0, 13.0]) * rng.uniform(0.9, 1.1, 3)
    head = (np.square(place / axes).sum(-1) < 1).astype(np.float32)
    head[np.square((place - rng.normal(0, 3, 3)) / (axes / 3)).sum(-1) < 1] = 2
    return head


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people in two contrasts, the second on a grid of its own; a table of the pairs."""
    folder = tmp_path_factory.mktemp("scans")
    lines = ["scan,reference"]
    for person in (1, 2, 3):
        head = _head(person)
        files = [f"sub-{person:02d}_{contrast}.nii.gz" for contrast in ("T1w", "FLAIR")]
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        t1 = np.array([0, 900, 400], np.float32)[head.astype(int)]
        flair = np.array([0, 300, 800], np.float32)[head.astype(int)]
        nib.save(nib.nifti1.Nifti1Image(t1, affine), folder / files[0])
        moved = affine.copy()
        moved[:3, 3] = -4.0
        wide = np.pad(flair, [(2, 2)] * 3)
        nib.save(nib.nifti1.Nifti1Image(wide, moved), folder / files[1])
        lines += [",".join(files), ",".join(files[::-1])]
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def config(scans: Path) -> Config:
    return load_config(None, [*SETTINGS, f"reference.pairs={scans / 'pairs.csv'}"])


@pytest.fixture(scope="module")
def run(
    scans: Path, config: Config, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("run")
    train("reference", data=scans, out=out, config=config, start=tiny_weights)
    return out


def test_it_leaves_a_file_that_restores(run: Path, scans: Path, tiny_weights: Path) -> None:
    from medddpm.restoration.restorer import Restorer

    trained = load_reference(run / "reference.safetensors")
    assert trained.card.steps == 4
    assert set(trained.card.figures) == {"gain", "gain_wrong"}
    assert not any("sub-03" in name for name in trained.card.scans)
    assert all("sub-03" in name for name in trained.card.held)
    restorer = Restorer.from_pretrained(tiny_weights, device="cpu")
    assert trained.card.model == restorer.model.networks_digest
    scan = read_volume(scans / "sub-03_FLAIR.nii.gz")
    noise = np.random.default_rng(0).normal(0, 40, scan.data.shape)
    reference = Reference.of(
        read_volume(scans / "sub-03_T1w.nii.gz"), run / "reference.safetensors"
    )
    noisy = scan.with_data(np.abs(scan.data + noise))
    result = restorer.restore(noisy, sigma=40.0, reference=reference, shifts=1)
    assert np.isfinite(result.volume.data).all()


def test_scenes_hold_what_lies_on_each_other(run: Path) -> None:
    paths = sorted((run / "scenes").glob("train-*.npz"))
    assert len(paths) == 6
    for path in paths:
        scene = read_scene(path)
        assert scene.x.shape == scene.y.shape == scene.mean.shape == scene.sigma.shape
        assert scene.references.shape[1:] == scene.x.shape
        assert 0.01 < np.median(np.float32(scene.sigma)) < 0.9


def test_the_same_seed_gives_the_same_weights(
    run: Path, scans: Path, config: Config, tiny_weights: Path, tmp_path: Path
) -> None:
    train("reference", data=scans, out=tmp_path, config=config, start=tiny_weights)
    first, second = (load_reference(p / "reference.safetensors") for p in (run, tmp_path))
    for name, value in first.network.state_dict().items():
        assert (value == second.network.state_dict()[name]).all(), name


def test_a_second_run_into_one_folder_is_refused(
    run: Path, scans: Path, config: Config, tiny_weights: Path
) -> None:
    with pytest.raises(OutputError, match="--resume"):
        train("reference", data=scans, out=run, config=config, start=tiny_weights)


def test_pairs_come_on_the_grid_of_the_scan(scans: Path, config: Config, tmp_path: Path) -> None:
    pairs = PairedScans(scans / "pairs.csv", tmp_path, 32, ["sub-03*"])
    assert pairs.names == [f"sub-0{n}_{c}" for n in (1, 2) for c in ("FLAIR", "T1w")]
    with np.load(tmp_path / "sub-01_T1w.npz") as kept:
        t1, flair = kept["images"]
    inside = (t1 > 0.01) & (flair > 0.01)
    assert inside.sum() > 0.9 * (t1 > 0.01).sum()  # they overlap, and bright is dark
    assert np.corrcoef(t1[inside].astype(float), flair[inside].astype(float))[0, 1] < -0.8
    (x, reference), spacing = pairs.draw(np.random.default_rng(0), config.data)
    assert x.shape == reference.shape == (32, 32, 32)
    assert min(spacing) >= 2


def test_bad_tables_are_said(scans: Path, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("scan,reference\na.nii.gz,b.nii.gz\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\.nii\.gz"):
        PairedScans(table, tmp_path / "cache", 32, [])
    with pytest.raises(ConfigError, match="held out by"):
        PairedScans(scans / "pairs.csv", tmp_path / "cache", 32, [], validation=True)


def test_a_random_curve_keeps_air_dark() -> None:
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(4, 4, 4)
    seen = {recoloured(image, np.random.default_rng(seed))[3, 3, 3] for seed in range(5)}
    assert len(seen) == 5
    assert all(recoloured(image, np.random.default_rng(s))[0, 0, 0] == 0 for s in range(5))
