"""Mutations of DICOM headers: what scanners, anonymisers, archives and cut transfers do to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

Mutation = Callable[[Dataset, np.random.Generator], None]
VALUES = (
    b"",
    b" ",
    b"abc ",
    b"1\\2 ",
    b"nan ",
    b"inf ",
    b"-1",
    b"0 ",
    b"1e400 ",
    b"1e-320",
    b"99999999999999999999",
    b"0.5 ",
    b"\\\\",
    b"M ",
    b"\xff\xfe\x00\x01",
    b"x" * 300,
    b"1931-12-31",
    b"MONOCHROME1 ",
)


def set_raw(dataset: Dataset, keyword: str, value: bytes) -> None:
    """A value as it stands in a file, whatever it is, without a word of pydicom."""
    tag = Tag(tag_for_keyword(keyword) or 0)
    value += b" " * (len(value) % 2)
    dataset._dict[tag] = RawDataElement(
        tag, dictionary_VR(tag), len(value), value, 0, False, True, True
    )


def mutate(path: Path, rng: np.random.Generator) -> None:
    """Change one to three things in a file."""
    if rng.random() < 0.1:
        _change_bytes(path, rng)
        return
    dataset = dcmread(path)
    for _ in range(rng.integers(1, 4)):
        [_set_raw, _set_raw, _set_raw, _drop, _swap, _in_sequence][rng.integers(6)](dataset, rng)
    try:
        dataset.save_as(path)
    except Exception:  # not everything can be written: then it is another mutation
        _change_bytes(path, rng)


def _change_bytes(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        del content[rng.integers(len(content)) :]
    for place in rng.integers(0, max(len(content), 1), 4):
        if place < len(content):
            content[place] = rng.integers(256)
    path.write_bytes(bytes(content))


def _element(dataset: Dataset, rng: np.random.Generator) -> Any:
    """One element as it stands in the file: what is no value of its kind is not read."""
    tags = [tag for tag in sorted(dataset.keys()) if tag != 0x7FE00010]
    return dataset.get_item(tags[rng.integers(len(tags))]) if tags else None


def _set_raw(dataset: Dataset, rng: np.random.Generator) -> None:
    """Other bytes, as they may stand in a file, where a value was."""
    element = _element(dataset, rng)
    if element is None:
        return
    value = VALUES[rng.integers(len(VALUES))]
    vr = element.VR if rng.random() < 0.8 else ("LO", "DS", "IS", "US", "UN", "FD")[rng.integers(6)]
    if vr == "SQ":
        del dataset[element.tag]
        return
    dataset._dict[element.tag] = RawDataElement(
        element.tag, vr, len(value), value, 0, False, True, True
    )


def _drop(dataset: Dataset, rng: np.random.Generator) -> None:
    element = _element(dataset, rng)
    if element is not None:
        del dataset[element.tag]


def _swap(dataset: Dataset, rng: np.random.Generator) -> None:
    """The bytes of one attribute in another."""
    one, other = _element(dataset, rng), _element(dataset, rng)
    if one is None or "SQ" in (one.VR, other.VR):
        return
    value = str(one.value).encode("utf-8", "replace")[:64]
    value += b" " * (len(value) % 2)
    dataset._dict[other.tag] = RawDataElement(
        other.tag, other.VR, len(value), value, 0, False, True, True
    )


def _in_sequence(dataset: Dataset, rng: np.random.Generator) -> None:
    """A change at some depth of a sequence, or a sequence that loses its items."""
    found = (dataset.get_item(tag) for tag in sorted(dataset.keys()))
    sequences = [dataset[element.tag] for element in found if element.VR == "SQ"]
    if not sequences:
        _set_raw(dataset, rng)
        return
    element = sequences[rng.integers(len(sequences))]
    if not len(element.value) or rng.random() < 0.1:
        element.value = Sequence([])
        return
    item = element.value[rng.integers(len(element.value))]
    [_set_raw, _drop, _in_sequence][rng.integers(3)](item, rng)
