"""Which JSON files are sidecars, and what they tell."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.sidecars import content_of, sidecar_of

from medddpm.errors import ConfigError, VolumeReadError
from medddpm.io.outputs import write_json
from medddpm.io.results import Result, find_results, read_result
from medddpm.io.sidecar import SCHEMA_VERSION, read_sidecar, write_sidecar

CHECK = {"name": "peak", "value": 1.2}


def broken(*path: Any, value: Any = None) -> dict[str, Any]:
    """The facts without one of their parts, or with another value there."""
    facts: Any = content_of()
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
    path.write_text(json.dumps(content_of()))
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
        broken("versions", "medddpm"),
        broken("frames", 0, "guard", value={"messages": [], "checks": [CHECK | {"value": "many"}]}),
        broken("frames", 0, "guard", value={"messages": [], "checks": [CHECK | {"where": "here"}]}),
        broken("frames", 0, "guard", value={"messages": [], "checks": [CHECK | {"where": [1]}]}),
    ],
)
def test_a_sidecar_that_lacks_something_is_none(facts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "scan.json"
    path.write_text(json.dumps(facts))
    with pytest.raises(VolumeReadError, match="no sidecar"):
        read_result(path)
    with pytest.raises(ConfigError, match="no result"):
        find_results([tmp_path])


@pytest.mark.parametrize(
    ("facts", "place"),
    [
        (broken("unheard_of", value=1), "unheard_of"),
        (broken("frames", 0, "sigma", "kurtosis", value=3), "frames.0.sigma.kurtosis"),
        (broken("frames", 0, "guard", "new_check", value=1.0), "frames.0.guard.new_check"),
        (broken("header", value={"edge": [None] * 3, "echo": 1}), "header.echo"),
    ],
)
def test_a_field_that_no_sidecar_has_is_an_error(
    facts: dict[str, Any], place: str, tmp_path: Path
) -> None:
    """It is not passed over in a folder either."""
    path = tmp_path / "scan.json"
    path.write_text(json.dumps(facts))
    for find in (lambda: read_result(path), lambda: find_results([tmp_path])):
        with pytest.raises(VolumeReadError, match=f"scan.json has a field {place}, which") as known:
            find()
        assert known.value.exit_code == 3


def test_a_sidecar_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.json"
    path.write_text(json.dumps(content_of(schema_version=SCHEMA_VERSION + 1, unheard_of=1)))
    with pytest.raises(VolumeReadError, match="install a newer one"):
        read_result(path)
    path.write_text(json.dumps({"schema_version": 99}))  # of something else
    with pytest.raises(ConfigError, match="no result"):
        find_results([tmp_path])


def test_what_was_read_is_written_the_same(tmp_path: Path) -> None:
    """Also null for what is no number; what was not told stays away."""
    told = content_of()
    told["frames"][0] |= {"vae_ceiling_db": None, "blank": True}
    told = {"Description": "d", "schema_version": 1, **told}
    write_json(tmp_path / "a.json", told)
    facts = read_sidecar(tmp_path / "a.json")
    assert math.isnan(facts.frames[0].vae_ceiling_db)
    write_sidecar(tmp_path / "b.json", facts)
    assert json.loads((tmp_path / "b.json").read_text()) == told


def test_a_map_is_found_by_the_name_that_the_sidecar_tells(tmp_path: Path) -> None:
    output = {"maps": {"std": "other.nii.gz"}, "files": {"other.nii.gz": "1"}}
    output |= {"voxels_sha256": "0", "maps_sha256": {}}
    result = Result(tmp_path / "scan.json", sidecar_of(output=output))
    assert result.map_files("std") == ["other.nii.gz"]
    assert result.map_files("lower")[0] == "scan_lower.nii.gz"
    assert result.recorded("other.nii.gz") == "1"
    assert result.recorded("scan.nii.gz") is None
    assert result.read_map("std") is None
    (tmp_path / "other.nii.gz").write_bytes(b"changed")
    with pytest.raises(VolumeReadError, match="has changed since"):
        result.read_map("std")
