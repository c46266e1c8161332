"""`mean` with a second contrast: what fits is used, what does not is not, and says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medddpm.errors import CheckpointError, ConfigError, GeometryError, VolumeReadError
from medddpm.reference.fit import MOST_MISFIT
from medddpm.reference.network import ReferenceNetwork, ReferenceSpec
from medddpm.reference.weights import ReferenceCard, TrainedReference, save_reference
from medddpm.restoration.referenced import Reference
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Geometry, Volume

SMALL: dict[str, Any] = {"tile": 32, "overlap": 16, "shifts": 1}


@pytest.fixture(scope="module")
def restorer(tiny_weights: Path) -> Restorer:
    return Restorer.from_pretrained(tiny_weights, device="cpu")


@pytest.fixture(scope="module")
def own_weights(restorer: Restorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random reference network that changes what it is given."""
    torch.manual_seed(0)
    network = ReferenceNetwork(ReferenceSpec((8, 8)))
    with torch.no_grad():
        network.gates.bias.fill_(0.5)
    card = ReferenceCard(
        model=restorer.model.networks_digest,
        scans=(),
        labels=1,
        held=(),
        steps=1,
        hours=0.0,
        figures={},
    )
    path = tmp_path_factory.mktemp("reference") / "own.safetensors"
    save_reference(path, TrainedReference(network, card))
    return path


@pytest.fixture
def second(phantom: Volume, own_weights: Path) -> Reference:
    """The phantom in another contrast: bright becomes dark, air stays air."""
    inside = phantom.data > 0.05 * phantom.data.max()
    other = np.where(inside, 1.2 * phantom.data.max() - phantom.data, 0)
    return Reference.of(replace(phantom, data=other, case_id="second"), own_weights)


def fit_in(result: Any) -> Any:
    return next(c for c in result.facts.frames[0].guard.checks if c.name == "reference")


def test_what_fits_is_used_and_gives_the_same_bytes_again(
    restorer: Restorer, noisy_phantom: Volume, second: Reference
) -> None:
    plain = restorer.restore(noisy_phantom, **SMALL)
    once, again = (restorer.restore(noisy_phantom, reference=second, **SMALL) for _ in range(2))
    assert fit_in(once).passed
    assert fit_in(once).value < MOST_MISFIT
    assert np.abs(once.volume.data - plain.volume.data).max() > 0
    np.testing.assert_array_equal(once.volume.data, again.volume.data)
    assert not any("reference" in text for text in once.facts.notices)


def test_what_does_not_fit_changes_nothing_and_is_said(
    restorer: Restorer, noisy_phantom: Volume, second: Reference
) -> None:
    plain = restorer.restore(noisy_phantom, **SMALL)
    affine = second.volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [3, 3, 0]
    shape = second.volume.geometry.shape
    moved = replace(second, volume=replace(second.volume, geometry=Geometry(shape, affine)))
    result = restorer.restore(noisy_phantom, reference=moved, **SMALL)
    np.testing.assert_array_equal(result.volume.data, plain.volume.data)
    assert not fit_in(result).passed
    assert fit_in(result).tier == "notice"
    assert any("does not fit" in text for text in result.facts.notices)
    assert result.passed == plain.passed


def test_the_grid_of_the_reference_is_its_own(
    restorer: Restorer, noisy_phantom: Volume, second: Reference, own_weights: Path
) -> None:
    """Without its last slices it helps where it is, as much as the whole one does."""
    end = 3 * noisy_phantom.data.shape[2] // 4
    data = np.ascontiguousarray(second.volume.data[:, :, :end])
    cut = replace(second.volume, data=data, geometry=Geometry(data.shape, second.volume.affine))
    result, whole, plain = (
        restorer.restore(noisy_phantom, reference=reference, **SMALL).volume.data[..., : end - 8]
        for reference in (Reference.of(cut, own_weights), second, None)
    )
    assert np.abs(whole - plain).max() > 0
    assert np.abs(result - whole).max() < 0.5 * np.abs(whole - plain).max()


def test_what_cannot_help_is_refused(
    restorer: Restorer, noisy_phantom: Volume, second: Reference, own_weights: Path
) -> None:
    with pytest.raises(ConfigError, match="mode ensemble"):
        restorer.restore(noisy_phantom, reference=second, mode="ensemble")
    card = second.trained.card.model_copy(update={"model": "1" * 64})
    other = replace(second, trained=replace(second.trained, card=card))
    with pytest.raises(CheckpointError, match="other weights"):
        restorer.restore(noisy_phantom, reference=other)
    affine = second.volume.affine.copy()
    affine[:3, 3] += 1000
    away = replace(second.volume, geometry=Geometry(second.volume.geometry.shape, affine))
    with pytest.raises(GeometryError, match="covers 0%"):
        restorer.restore(noisy_phantom, reference=replace(second, volume=away), **SMALL)
    film = second.volume.with_data(np.stack([second.volume.data] * 2, -1))
    with pytest.raises(VolumeReadError, match="is 4D"):
        Reference.of(film, own_weights)
    holed = second.volume.data.copy()
    holed[0, 0, 0] = np.nan
    with pytest.raises(VolumeReadError, match="NaN"):
        Reference.of(second.volume.with_data(holed), own_weights)
