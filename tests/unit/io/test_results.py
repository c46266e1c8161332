"""Which JSON files are sidecars, and what they tell."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from medddpm.errors import ConfigError, VolumeReadError
from medddpm.io.results import Result, find_results, read_result

FRAME = {
    "sigma": {"sigma": 5.0, "fraction": 0.05, "method": "air"},
    "vae_ceiling_db": 40.0,
    "guard": {"messages": []},
}
FACTS = {
    "statement": "s", "seconds": 1.0, "device": "cpu", "versions": {"medddpm": "0"},
    "options": {"mode": "mean", "seed": 0}, "weights": {"name": "w", "sha256": "0"},
    "frames": [FRAME],
    "input": {
        "case_id": "a", "format": "nifti", "sha256": "0", "num_files": 1, "shape": [1, 1, 1],
        "spacing_mm": [1, 1, 1], "orientation": "RAS",
    },
}  # fmt: skip


def broken(*path: Any, value: Any = None) -> dict[str, Any]:
    """The facts without one of their parts, or with another value there."""
    facts: Any = copy.deepcopy(FACTS)
    at = facts
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return dict(facts)


def test_a_whole_sidecar_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scan.json"
    path.write_text(json.dumps(FACTS))
    assert read_result(path).stem == "scan"
    assert [r.sidecar for r in find_results([tmp_path])] == [path]


@pytest.mark.parametrize(
    "facts",
    [
        broken("frames"),
        broken("frames", value=[]),
        broken("frames", value="many"),
        broken("frames", 0, "guard"),
        broken("frames", 0, "sigma", "fraction"),
        broken("frames", 0, "sigma", value=[1]),
        broken("weights", "sha256"),
        broken("input", value="a.nii"),
        broken("options", "mode"),
    ],
)
def test_a_sidecar_that_lacks_something_is_none(facts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "scan.json"
    path.write_text(json.dumps(facts))
    with pytest.raises(VolumeReadError, match="no sidecar"):
        read_result(path)
    with pytest.raises(ConfigError, match="no result"):
        find_results([tmp_path])


def test_a_map_is_found_by_the_name_that_the_sidecar_tells(tmp_path: Path) -> None:
    told = {**FACTS, "output": {"maps": {"std": "other.nii.gz"}, "files": {"other.nii.gz": "1"}}}
    result = Result(tmp_path / "scan.json", told)
    assert result.map_files("std") == ["other.nii.gz"]
    assert result.map_files("lower")[0] == "scan_lower.nii.gz"
    assert result.recorded("other.nii.gz") == "1"
    assert result.recorded("scan.nii.gz") is None
    assert result.read_map("std") is None
    (tmp_path / "other.nii.gz").write_bytes(b"changed")
    with pytest.raises(VolumeReadError, match="has changed since"):
        result.read_map("std")
