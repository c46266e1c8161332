"""Weights files that are damaged or hostile: one clear error, before a network is built."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from medddpm.errors import CheckpointError, ConfigError
from medddpm.model.card import Card
from medddpm.model.model import find_weights, load_model, read_card, with_card
from medddpm.model.spec import AutoencoderSpec, FidelitySpec, ModelSpec

Rewrite = Callable[[Any], Path]
GUARD = {
    "options": {},
    "checks": ["peak", "redness"],
    "reach": {"peak": [None, 0.1]},
    "ranges": {"strangeness": [None, 1.0]},
    "false_alarms": {"peak": 0.01},
}
ARRAYS = {
    "guard.mean.features": np.ones((2, 8), np.float32),
    "guard.mean.levels": np.full(2, 0.05, np.float32),
    "guard.mean.findings": np.full((2, 2), 0.2, np.float32),
    "guard.mean.spread": np.ones(8, np.float32),
}
CALIBRATION = {
    "sigmas": [0.05, 0.1],
    "edges": [0.5],
    "factors": [[1.0, 2.0], [1.0, 2.0]],
    "options": {"steps": 4},
    "scans": 3,
    "subjects": 2,
    "coverage_of_other_subjects": {"0.05": {"mean": 0.9, "lowest": 0.8, "highest": 1.0}},
    "reliability": [[0.5, 0.5]],
    "risk_coverage": [[0.5, 0.1, 0.1]],
}


@pytest.fixture
def header(tiny_weights: Path) -> dict[str, Any]:
    with safe_open(tiny_weights, framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["medddpm"])
    return found


@pytest.fixture
def rewritten(tiny_weights: Path, tmp_path: Path) -> Rewrite:
    """The tiny weights with another header, a text or what becomes one."""
    tensors = load_file(tiny_weights)

    def make(header: Any) -> Path:
        path = tmp_path / "other.safetensors"
        text = header if isinstance(header, str) else json.dumps(header)
        save_file(tensors, path, metadata={"medddpm": text})
        return path

    return make


def changed(header: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    other = deepcopy(header)
    *path, last = place.split(".")
    part = other
    for name in path:
        part = part.setdefault(name, {})
    part[last] = value
    return other


@pytest.mark.parametrize(
    "text",
    [
        *("[1, 2]", "3", '"text"', "null", "true", "{", "", "9" * 5000),
        *('{"version": 3}', '{"version": [3]}', "[" * 10_000 + "]" * 10_000),
        '{"a": ' * 10_000 + "1" + "}" * 10_000,
    ],
)
def test_a_header_that_is_none(rewritten: Rewrite, text: str) -> None:
    path = rewritten(text)
    for read in (load_model, read_card):
        with pytest.raises(CheckpointError, match="weights file") as caught:
            read(path)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("version", 3.5),
        ("spec", []),
        ("spec", {"unknown": 1}),
        ("spec.autoencoder", 3),
        ("spec.autoencoder.factor", 3),
        ("spec.autoencoder.encoder_blocks", 10_000_000),
        ("spec.autoencoder.encoder_channels", 10_000_000),
        ("spec.autoencoder.latent_channels", -1),
        ("spec.diffusion.channels", []),
        ("spec.diffusion.channels", [8] * 40),
        ("spec.diffusion.channels", "888"),
        ("spec.diffusion.num_blocks", 10_000_000),
        ("spec.diffusion.num_blocks", float("nan")),
        ("spec.diffusion.embedding_width", 0),
        ("spec.diffusion.schedule", {"num_timesteps": 10**9}),
        ("spec.diffusion.schedule", {"kind": "rectified_flow", "zero_terminal_snr": False}),
        ("spec.fidelity.channels", []),
        ("spec.fidelity.channels", [8]),
        ("spec.fidelity.num_blocks", 10_000_000),
        ("card", None),
        ("card", "text"),
        ("card.name", 3),
        ("card.stages", [1]),
        ("card.stages", {"diffusion": 5}),
        ("card.stages", {"diffusion": {"data": 5}}),
        ("card.stages", {"diffusion": {"options": {"cond_dropout": "much"}}}),
        ("card.finetuned", {"fidelity": {"hours": "long"}}),
        ("card.calibration", 3),
        ("card.calibration", {}),
        ("card.guard", []),
        ("card.guard", {}),
        ("card.guard", {"mean": 3}),
        ("card.note", "\ud800"),
        ("card.deep", json.loads("[" * 40 + "]" * 40)),
    ],
)
def test_a_header_that_holds_other_types_or_asks_for_too_much(
    rewritten: Rewrite, header: dict[str, Any], place: str, value: Any
) -> None:
    began = time.perf_counter()
    with pytest.raises(CheckpointError):
        load_model(rewritten(changed(header, place, value)))
    assert time.perf_counter() - began < 5


def test_networks_larger_than_the_file_are_not_built(
    rewritten: Rewrite, header: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medddpm.model.model.Model", lambda *_: pytest.fail("it was built"))
    for place, value in (
        ("spec.diffusion.channels", [4096] * 6),
        ("spec.fidelity.channels", [4096, 4096]),
        ("spec.autoencoder.decoder_channels", 4096),
        ("spec.autoencoder", {"kind": "monai", "encoder_channels": 4096}),
        ("spec.fidelity.embedding_width", 4096),
    ):
        with pytest.raises(CheckpointError, match="or more"):
            load_model(rewritten(changed(header, place, value)))


@pytest.mark.parametrize("kind", ["compact", "monai"])
def test_the_networks_have_at_least_as_many_weights_as_the_spec_says(kind: Any) -> None:
    from medddpm.model.model import Model

    for factor in (2, 4):
        spec = ModelSpec(AutoencoderSpec(kind=kind, factor=factor))  # type: ignore[arg-type]
        weights = sum(p.numel() for p in Model(spec).parameters())
        assert 0.2 * weights < spec.least_weights <= weights


def test_monai_networks_that_cannot_be_built_are_said(
    rewritten: Rewrite, header: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointError, match="does not fit"):
        load_model(rewritten(changed(header, "spec.autoencoder.kind", "monai")))
    odd = {"kind": "monai", "encoder_channels": 17, "decoder_channels": 18}
    with pytest.raises(CheckpointError, match="does not fit"):
        load_model(rewritten(changed(header, "spec.autoencoder", odd)))


def test_a_fidelity_decoder_without_the_level_of_the_latent_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs 3 or more"):
        ModelSpec(AutoencoderSpec(factor=8), fidelity=FidelitySpec(channels=(8, 8)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tiny_weights: Path, tmp_path: Path, bad: float) -> None:
    tensors = load_file(tiny_weights)
    tensors["codec.latent_mean"][0] = bad
    with safe_open(tiny_weights, framework="pt") as file:
        save_file(tensors, tmp_path / "nan.safetensors", metadata=file.metadata())
    with pytest.raises(CheckpointError, match=r"codec\.latent_mean holds NaN"):
        load_model(tmp_path / "nan.safetensors")


def test_a_sound_calibration_is_read(tiny_weights: Path, tmp_path: Path) -> None:
    path, card = tmp_path / "sound.safetensors", {"calibration": CALIBRATION, "free": [1, {"a": 2}]}
    with_card(tiny_weights, path, card | {"guard": {"mean": GUARD}}, ARRAYS)
    assert load_model(path).card["free"] == [1, {"a": 2}]
    assert read_card(path)[0]["guard"] == {"mean": GUARD}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("sigmas", [0.1, 0.05]),
        ("sigmas", [0.05, float("nan")]),
        ("sigmas", ["a", "b"]),
        ("edges", 3),
        ("factors", [[1.0], [1.0, 2.0]]),
        ("factors", [[1.0, 2.0], [1.0, float("inf")]]),
        ("factors", [[1.0, 2.0], [1.0, -2.0]]),
        ("options", [1]),
        ("scans", "many"),
        ("scans", None),
        ("coverage_of_other_subjects", {"0": {"mean": 0.9}}),
        ("coverage_of_other_subjects", {"a": {"mean": 0.9}}),
        ("coverage_of_other_subjects", {"0.05": {"mean": "most"}}),
        ("reliability", [[0.5]]),
        ("risk_coverage", [[0.5, 0.5]]),
    ],
)
def test_a_damaged_calibration_of_intervals(
    tiny_weights: Path, tmp_path: Path, place: str, value: Any
) -> None:
    path = tmp_path / "bad.safetensors"
    with_card(tiny_weights, path, {"calibration": changed(CALIBRATION, place, value)})
    with pytest.raises(CheckpointError, match="calibrat"):
        load_model(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("checks", []),
        ("checks", ["peak"]),
        ("ranges", {}),
        ("ranges", {"strangeness": [None, float("nan")]}),
        ("ranges", {"strangeness": [None, float("inf")]}),
        ("ranges", {"strangeness": [2.0, 1.0]}),
        ("reach", {"peak": [None, -0.1]}),
        ("reach", {"peak": [float("nan"), None]}),
        ("reach", {"peak": [0.1]}),
        ("false_alarms", {"peak": 2.0}),
        ("options", None),
    ],
)
def test_a_damaged_table_of_the_guard(
    tiny_weights: Path, tmp_path: Path, place: str, value: Any
) -> None:
    path = tmp_path / "bad.safetensors"
    card = {"guard": {"mean": changed(GUARD, place, value)}}
    with_card(tiny_weights, path, card, ARRAYS)
    with pytest.raises(CheckpointError, match="guard"):
        load_model(path)


def test_a_guard_of_other_latents(tiny_weights: Path, tmp_path: Path) -> None:
    arrays = ARRAYS | {
        "guard.mean.features": np.ones((2, 6), np.float32),
        "guard.mean.spread": np.ones(6, np.float32),
    }
    with_card(tiny_weights, tmp_path / "bad.safetensors", {"guard": {"mean": GUARD}}, arrays)
    with pytest.raises(CheckpointError, match="other channels than 4"):
        load_model(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("name", sorted(ARRAYS))
@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), -float("inf")])
def test_damaged_numbers_of_the_guard(
    tiny_weights: Path, tmp_path: Path, name: str, bad: float | None
) -> None:
    path, arrays = tmp_path / "bad.safetensors", {k: v.copy() for k, v in ARRAYS.items()}
    if bad is None:
        del arrays[name]
    else:
        arrays[name].flat[0] = bad
    with_card(tiny_weights, path, {"guard": {"mean": GUARD}}, arrays)
    with pytest.raises(CheckpointError, match=r"guard|NaN or infinity"):
        load_model(path)


def test_numbers_of_the_guard_without_their_card_are_no_guard(
    tiny_weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bad.safetensors"
    with_card(tiny_weights, path, {"guard": {"mean": GUARD}}, ARRAYS)
    tensors = load_file(path)
    with safe_open(tiny_weights, framework="pt") as file:
        save_file(tensors, path, metadata=file.metadata())
    with pytest.raises(CheckpointError, match="the card says nothing"):
        load_model(path)


def test_the_shipped_card_is_what_the_model_of_a_card_says() -> None:
    card, _ = read_card(find_weights("default"))
    found = Card.model_validate(card)
    assert found.guard is not None
    assert found.calibration is not None
    assert found.model_dump(mode="json", exclude_unset=True) == card


# Each of these is put at a random place of a header.
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 10**30, 10_000_000, float("nan"), float("inf"), "", "mean"),
    *("\ud800", "\x00", [], {}, [[]], {"a": None}, [1] * 50, "x" * 10_000, [[[[[0.5]]]]]),
)


def mutations(header: dict[str, Any], count: int, seed: int) -> Iterator[str]:
    """Headers with values replaced, left out, renamed or doubled, or with wrong letters."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        if number % 4 == 3:
            text = bytearray(json.dumps(header).encode())
            for _ in range(int(rng.integers(1, 6))):
                text[int(rng.integers(len(text)))] = int(rng.integers(32, 127))
            yield text.decode()
            continue
        other = deepcopy(header)
        for _ in range(int(rng.integers(1, 4))):
            holders = list(_holders(other))
            part, key = holders[int(rng.integers(len(holders)))]
            action, odd = int(rng.integers(5)), deepcopy(ODD[int(rng.integers(len(ODD)))])
            if action == 0 and isinstance(part, dict):
                part[f"{key}x"] = part.pop(key)
            elif action == 1:
                del part[key]
            elif action == 2 and isinstance(part, list):
                part.extend(part * 3)
            else:
                part[key] = odd
            if not other:
                break
        yield json.dumps(other)


def _holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a tree that holds something: its list or mapping, and the key."""
    for key, inside in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inside, dict | list):
            yield from _holders(inside)


def _check_all(weights: Path, path: Path, count: int, seed: int) -> int:
    """Read mutated weights; returns how many were refused. Whatever is read restores to numbers."""
    from medddpm.restoration.restorer import Restorer
    from medddpm.volume import Geometry, Volume

    tensors = load_file(weights)
    with safe_open(weights, framework="pt") as file:
        header = json.loads(file.metadata()["medddpm"])
    image = np.random.default_rng(0).rayleigh(50, (16, 16, 16)).astype(np.float32)
    scan = Volume(image, Geometry((16, 16, 16), np.eye(4)))
    refused = 0
    for text in mutations(header, count, seed):
        save_file(tensors, path, metadata={"medddpm": text})
        began = time.perf_counter()
        try:
            model = load_model(path)
            if refused % 8 == 0:
                done = Restorer(model, "cpu").restore(scan, sigma=20.0, shifts=1)
                assert np.isfinite(done.volume.data).all()
        except CheckpointError as error:
            assert len(str(error)) < 1000, text  # noqa: PT017
            refused += 1
        assert time.perf_counter() - began < 20, text[:2000]
    return refused


@pytest.fixture
def full_weights(tiny_weights: Path, tmp_path: Path) -> Path:
    """The tiny weights with a card that has all parts."""
    path = tmp_path / "full.safetensors"
    with_card(
        tiny_weights,
        path,
        {"calibration": CALIBRATION, "guard": {"mean": GUARD}, "name": "x"},
        ARRAYS,
    )
    return path


def test_mutated_headers_are_refused_or_sound(full_weights: Path, tmp_path: Path) -> None:
    assert _check_all(full_weights, tmp_path / "fuzz.safetensors", 24, seed=1) > 8


@pytest.mark.slow
def test_many_mutated_headers_are_refused_or_sound(full_weights: Path, tmp_path: Path) -> None:
    assert _check_all(full_weights, tmp_path / "fuzz.safetensors", 600, seed=2) > 200


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_changed_bytes_of_the_file_are_refused_or_sound(
    full_weights: Path, tmp_path: Path, seed: int
) -> None:
    """The header of safetensors itself: names, types, shapes and offsets of the tensors."""
    rng, whole = np.random.default_rng(seed), full_weights.read_bytes()
    size = 8 + struct.unpack("<Q", whole[:8])[0]
    path, refused = tmp_path / "fuzz.safetensors", 0
    for _ in range(100):
        changed_bytes = bytearray(whole)
        for _ in range(int(rng.integers(1, 5))):
            changed_bytes[int(rng.integers(size))] = int(rng.integers(256))
        path.write_bytes(changed_bytes)
        try:
            assert all(v.isfinite().all() for v in load_model(path).state_dict().values())
        except CheckpointError:
            refused += 1
    assert refused > 50


def test_tensors_of_other_types(tiny_weights: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_weights)
    with safe_open(tiny_weights, framework="pt") as file:
        metadata = file.metadata()
    for kind in (torch.int8, torch.bool, torch.float64, torch.float8_e4m3fn):
        path = tmp_path / "kind.safetensors"
        save_file({k: v.to(kind) for k, v in tensors.items()}, path, metadata=metadata)
        assert load_model(path).codec.latent_mean.dtype == torch.float32
    complex_ones = {k: torch.complex(v.float(), v.float()) for k, v in tensors.items()}
    save_file(complex_ones, tmp_path / "c.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match="complex"):
        load_model(tmp_path / "c.safetensors")


def test_another_card_leaves_the_networks_what_they_were(
    tiny_weights: Path, tmp_path: Path
) -> None:
    """A calibration writes one: what was trained beside the networks still belongs to them."""
    model = load_model(tiny_weights)
    with_card(tiny_weights, tmp_path / "other.safetensors", model.card | {"name": "calibrated"})
    other = load_model(tmp_path / "other.safetensors")
    assert other.digest != model.digest
    assert other.networks_digest == model.networks_digest
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert other.networks_digest != model.networks_digest
