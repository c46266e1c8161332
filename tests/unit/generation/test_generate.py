"""`generate`: labelled, in place, repeatable, and no copy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose

from medddpm.errors import ConfigError, OutputError
from medddpm.generation.drawing import DrawOptions
from medddpm.workflows import generate

FEW = DrawOptions(steps=2, seed=5)


@pytest.fixture
def given(prior_run: Path, tiny_weights: Path) -> dict[str, Any]:
    """Prior and weights that belong together."""
    return {"prior": prior_run / "prior.safetensors", "weights": tiny_weights, "options": FEW}


def _data(path: Path) -> Any:
    return np.asarray(nib.load(path).dataobj)


def test_heads_are_labelled_and_repeatable(
    given: dict[str, Any], with_threshold: Callable[[float], Path], tmp_path: Path
) -> None:
    given["prior"] = with_threshold(1.0)
    done = generate(tmp_path / "a", count=2, **given)
    again = generate(tmp_path / "b", count=2, **given)
    assert [d.image.name for d in done] == [f"synthetic-000{n}_T1w.nii.gz" for n in (5, 6)]
    first, second = (_data(d.image) for d in done)
    assert first.shape == (32, 32, 32)
    assert not np.allclose(first, second)
    for a, b in zip(done, again, strict=True):
        assert a.image.read_bytes() == b.image.read_bytes()
        assert nib.load(a.image).header["intent_name"].item() == b"SYNTHETIC"
    sidecar = json.loads((tmp_path / "a" / "synthetic-0006_T1w.json").read_text())
    assert sidecar["label"] == "SYNTHETIC"
    assert sidecar["seed"] == 6
    assert sidecar["training_scans"] == 4
    assert not sidecar["nearest_training_scan"]["is_copy"]
    affine = nib.load(done[0].image).affine
    assert_allclose(affine @ [15.5, 15.5, 15.5, 1], [0, 0, 0, 1], atol=1e-5)


def test_copies_are_not_written(
    given: dict[str, Any],
    with_threshold: Callable[[float], Path],
    tmp_path: Path,
    cli: Callable[..., Any],
) -> None:
    given["prior"] = with_threshold(-1.0)
    words = ("--prior", given["prior"], "--weights", given["weights"], "--steps", 2)
    said = cli("generate", tmp_path / "out", *words)
    assert said.exit_code == 6
    assert "copy of a training scan" in said.stderr
    assert not (tmp_path / "out").exists()
    allowed = cli("generate", tmp_path / "out", *words, "--allow-copies")
    assert allowed.exit_code == 0
    sidecar = json.loads((tmp_path / "out" / "synthetic-0000_T1w.json").read_text())
    assert sidecar["nearest_training_scan"]["is_copy"]


def test_variant_of_a_scan_lies_where_the_scan_lies(
    given: dict[str, Any], heads_folder: Path, tmp_path: Path
) -> None:
    """With no change it is the scan itself, through the autoencoder; with more it moves away."""
    from medddpm.generation.heads import head_of, placed
    from medddpm.generation.prior_file import load_prior
    from medddpm.io import read_volume
    from medddpm.model.model import load_model

    scan = heads_folder / "sub-05_T1w.nii.gz"
    images = []
    for change in (0.0, 0.3, 1.0):
        given["options"] = DrawOptions(steps=2, change=change)
        done = generate(tmp_path / f"{change}", like=scan, **given)
        images.append(_data(done[0].image))
        head = head_of(read_volume(scan), 6.0)
        assert_allclose(nib.load(done[0].image).affine, head.on_grid(6.0, (32, 32, 32)), atol=1e-4)
    spec = load_prior(given["prior"]).prior.spec
    codec = load_model(given["weights"]).codec
    same = codec.decode(codec.encode(placed(head, spec))).clamp_min(0)[0, 0].numpy()
    assert_allclose(images[0], 1000 * same, atol=0.5)
    apart = [float(np.square(image - images[0]).mean()) for image in images[1:]]
    assert 0 < apart[0] < apart[1]


def test_finer_grid_covers_the_same_field_of_view(given: dict[str, Any], tmp_path: Path) -> None:
    given["options"] = DrawOptions(steps=2, spacing=3.0)
    done = generate(tmp_path, allow_copies=True, **given)
    image = nib.load(done[0].image)
    assert image.shape == (64, 64, 64)
    assert_allclose(image.affine @ [31.5, 31.5, 31.5, 1], [0, 0, 0, 1], atol=1e-4)
    assert float(_data(done[0].image).min()) >= 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"count": 0}, "at least one"),
        ({"contrast": "T2w"}, "was trained on T1w, not on T2w"),
        ({"options": DrawOptions(spacing=1.0)}, "draws 3 to 6 mm"),
        ({"options": DrawOptions(spacing=9.0)}, "draws 3 to 6 mm"),
        ({"weights": "default"}, "other weights"),
        ({"prior": "t9w"}, "no prior is called"),
    ],
)
def test_what_cannot_be_drawn(
    given: dict[str, Any], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        generate(tmp_path / "out", **(given | changes))
    assert not (tmp_path / "out").exists()


def test_outputs_that_exist_are_kept(given: dict[str, Any], tmp_path: Path) -> None:
    kept = tmp_path / "synthetic-0005_T1w.nii.gz"
    kept.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        generate(tmp_path, allow_copies=True, **given)
    assert kept.read_bytes() == b"mine"
