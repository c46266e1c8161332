from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Head = Callable[[tuple[int, int, int]], Any]


@pytest.fixture
def make_bids(head: Head, save_nifti: Any, rng: np.random.Generator) -> Callable[..., Path]:
    """Writes a raw BIDS data set of small heads: make_bids(folder, ["sub-01", "sub-02"])."""

    def make(
        folder: Path,
        subjects: Iterable[str],
        *,
        suffixes: Iterable[str] = ("T1w",),
        participants: str | None = None,
        description: Mapping[str, Any] | None = None,
    ) -> Path:
        folder.mkdir(parents=True)
        facts = {"Name": "heads", "BIDSVersion": "1.10.0", "License": "CC0", **(description or {})}
        (folder / "dataset_description.json").write_text(json.dumps(facts))
        if participants is not None:
            (folder / "participants.tsv").write_text(participants)
        for subject in subjects:
            for suffix in suffixes:
                place = folder / subject / "anat" / f"{subject}_{suffix}.nii.gz"
                place.parent.mkdir(parents=True, exist_ok=True)
                data = head((20, 24, 20)) * rng.uniform(0.8, 1.2, (20, 24, 20))
                save_nifti(place, data.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
        return folder

    return make


@pytest.fixture
def write_csv() -> Callable[..., Path]:
    """Writes a table: write_csv(path, ("file", "subject"), ("a.nii", "1"), ...)."""

    def write(path: Path, *rows: Iterable[object]) -> Path:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return path

    return write
