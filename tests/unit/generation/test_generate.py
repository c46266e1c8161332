"""`generate`: labelled, in place, repeatable, and no copy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose

from medddpm.errors import ConfigError, OutputError
from medddpm.generation.align import straightened
from medddpm.generation.drawing import DrawOptions
from medddpm.generation.heads import head_of, placed
from medddpm.generation.prior_file import load_prior
from medddpm.io import read_volume
from medddpm.marking.key import new_key, read_key
from medddpm.marking.signature import new_signing_key, read_public_key
from medddpm.marking.verdict import inspect_file
from medddpm.workflows.generating import Seal, Tools, Wanted, generate

FEW = DrawOptions(steps=2, seed=5)
ANY = Wanted(allow_copies=True)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Seal:
    """A key for the mark and one that signs."""
    folder = tmp_path_factory.mktemp("keys")
    new_key(folder / "mark.key")
    new_signing_key(folder / "sign.key")
    return Seal(folder / "mark.key", folder / "sign.key")


@pytest.fixture
def given(prior_run: Path, tiny_weights: Path, keys: Seal) -> dict[str, Any]:
    """Prior, weights and keys that belong together."""
    tools = Tools(prior_run / "prior.safetensors", tiny_weights)
    return {"seal": keys, "tools": tools, "options": FEW}


def _data(path: Path) -> Any:
    return _data_of(nib.load(path))


def _data_of(image: Any) -> Any:
    return np.asarray(image.dataobj)


def _with(given: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The same with other tools."""
    return given | {"tools": replace(given["tools"], **changes)}


def test_heads_are_labelled_marked_signed_and_repeatable(
    given: dict[str, Any], keys: Seal, with_threshold: Callable[[float], Path], tmp_path: Path
) -> None:
    given = _with(given, prior=with_threshold(1.0))
    done = generate(tmp_path / "a", wanted=Wanted(2), **given)
    again = generate(tmp_path / "b", wanted=Wanted(2), **given)
    assert [d.image.name for d in done] == [f"synthetic-000{n}_T1w.nii.gz" for n in (5, 6)]
    first, second = (_data(d.image) for d in done)
    assert first.shape == (32, 32, 32)
    assert not np.allclose(first, second)
    for a, b in zip(done, again, strict=True):
        assert a.image.read_bytes() == b.image.read_bytes()
    public = read_public_key(Path(f"{keys.signing_key}.pub"))
    verdict = inspect_file(done[1].image, read_key(keys.key), public_key=public)
    assert verdict.mark is not None
    assert verdict.mark.marked
    assert verdict.provenance.label == "intent_name"
    assert verdict.provenance.signature == "good"
    assert verdict.provenance.voxels == "as told"
    sidecar = json.loads((tmp_path / "a" / "synthetic-0006_T1w.json").read_text())
    assert sidecar["label"] == "SYNTHETIC"
    assert sidecar["seed"] == 6
    assert sidecar["training_scans"] == 4
    assert not sidecar["nearest_training_scan"]["is_copy"]
    affine = nib.load(done[0].image).affine
    assert_allclose(affine @ [15.5, 15.5, 15.5, 1], [0, 0, 0, 1], atol=1e-5)


def test_copies_are_not_written(
    given: dict[str, Any],
    keys: Seal,
    with_threshold: Callable[[float], Path],
    tmp_path: Path,
    cli: Callable[..., Any],
) -> None:
    prior, weights = with_threshold(-1.0), given["tools"].weights
    words = ("--prior", prior, "--weights", weights, "--steps", 2, "--key", keys.key)
    said = cli("generate", tmp_path / "out", *words)
    assert said.exit_code == 6
    assert "copy of a training scan" in said.stderr
    assert not (tmp_path / "out").exists()
    allowed = cli("generate", tmp_path / "out", *words, "--allow-copies")
    assert allowed.exit_code == 0, allowed.stderr
    sidecar = json.loads((tmp_path / "out" / "synthetic-0000_T1w.json").read_text())
    assert sidecar["nearest_training_scan"]["is_copy"]


def test_without_a_key_nothing_is_drawn(tmp_path: Path, cli: Callable[..., Any]) -> None:
    said = cli("generate", tmp_path / "out", "--prior", tmp_path / "any.safetensors")
    assert said.exit_code == 2
    assert "--key" in said.stderr


def test_variant_of_a_scan_lies_where_the_scan_lies(
    given: dict[str, Any], heads_folder: Path, tmp_path: Path
) -> None:
    """With no change it is the scan itself; with more it moves away."""
    scan = heads_folder / "sub-05_T1w.nii.gz"
    trained = load_prior(given["tools"].prior)
    spec, mean = trained.prior.spec, trained.prior.mean_image()
    head = straightened([head_of(read_volume(scan), 6.0)], spec, mean)[0]
    images = []
    for change in (0.0, 0.3, 1.0):
        given["options"] = DrawOptions(steps=2, change=change)
        done = generate(tmp_path / f"{change}", wanted=Wanted(like=scan), **given)
        images.append(_data(done[0].image))
        assert_allclose(nib.load(done[0].image).affine, head.on_grid(6.0, (32, 32, 32)), atol=1e-4)
    same = placed(head, spec)[0, 0].numpy()
    apart = [float(np.abs(image - 1000 * same).mean()) for image in images]
    assert apart[0] < 0.05 * 1000 * same.mean()  # the mark alone
    assert apart[0] < apart[1] < apart[2]


def test_finer_grid_covers_the_same_field_of_view(given: dict[str, Any], tmp_path: Path) -> None:
    given["options"] = DrawOptions(steps=2, spacing=3.0)
    done = generate(tmp_path, wanted=ANY, **given)
    image = nib.load(done[0].image)
    assert image.shape == (64, 64, 64)
    assert_allclose(image.affine @ [31.5, 31.5, 31.5, 1], [0, 0, 0, 1], atol=1e-4)
    assert float(_data(done[0].image).min()) >= 0


@pytest.mark.parametrize("spacing", [6.0, 4.0, 3.0, 2.0])
def test_patches_are_blocks_of_a_head(
    given: dict[str, Any], tmp_path: Path, spacing: float
) -> None:
    """In the body, of the size that was asked for, and where they lie in the head."""
    given["options"] = DrawOptions(steps=2, spacing=spacing, patch=31)
    patch = nib.load(generate(tmp_path / "a", wanted=ANY, **given)[0].image)
    assert patch.shape == (31, 31, 31)
    assert_allclose(np.diag(patch.affine)[:3], spacing, rtol=0.07)  # the field of view is kept
    if spacing in (6.0, 3.0):
        given["options"] = DrawOptions(steps=2, spacing=spacing)
        head = nib.load(generate(tmp_path / "b", wanted=ANY, **given)[0].image)
        corner = np.round((patch.affine[:3, 3] - head.affine[:3, 3]) / spacing).astype(int)
        x, y, z = (slice(c, c + 31) for c in corner)
        assert np.corrcoef(_data_of(head)[x, y, z].ravel(), _data_of(patch).ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": DrawOptions(patch=64)}, "does not fit into a head of 32 x 32 x 32"),
        ({"wanted": Wanted(0)}, "at least one"),
        ({"wanted": Wanted(contrast="T2w")}, "was trained on T1w, not on T2w"),
        ({"options": DrawOptions(spacing=1.0)}, "draws 1.5 to 6 mm"),
        ({"options": DrawOptions(spacing=9.0)}, "draws 1.5 to 6 mm"),
        ({"seal": Seal(Path("nothing.key"))}, "nothing.key"),
    ],
)
def test_what_cannot_be_drawn(
    given: dict[str, Any], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    tools = {k: v for k, v in changes.items() if k in ("weights", "prior")}
    others = {k: v for k, v in changes.items() if k not in tools}
    with pytest.raises(ConfigError, match=said):
        generate(tmp_path / "out", **(_with(given, **tools) | others))
    assert not (tmp_path / "out").exists()


def test_outputs_that_exist_are_kept(given: dict[str, Any], tmp_path: Path) -> None:
    kept = tmp_path / "synthetic-0005_T1w.nii.gz"
    kept.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        generate(tmp_path, wanted=ANY, **given)
    assert kept.read_bytes() == b"mine"
