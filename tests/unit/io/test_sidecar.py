"""The page on the sidecar has each of its fields, and an example that is one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medddpm.io.outputs import write_json
from medddpm.io.sidecar import Sidecar, read_sidecar, write_sidecar

PAGE = Path(__file__).parents[3].joinpath("docs", "sidecar.md").read_text(encoding="utf-8")


def names_of(part: dict[str, Any], parts: dict[str, Any], before: str = "") -> Iterator[str]:
    """All fields of a part of the JSON schema by the names on disk, as the page writes them."""
    for name, field in part["properties"].items():
        told = json.dumps(field)
        inner = re.findall(r"#/\$defs/(\w+)", told)
        if inner and inner[0] != "DicomOptions":
            dot = "[]." if '"array"' in told else "."
            yield from names_of(parts[inner[0]], parts, before + name + dot)
        else:
            yield before + name


def test_the_table_has_each_field_once() -> None:
    schema, told = Sidecar.model_json_schema(), []
    for line in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE):
        first, *more = re.findall("`(.*?)`", line)
        stem = first.rpartition(".")[0]
        told += [first, *(stem + name if name.startswith(".") else name for name in more)]
    assert sorted(told) == sorted(names_of(schema, schema["$defs"]))


def test_the_example_is_a_sidecar_and_is_written_as_it_stands(tmp_path: Path) -> None:
    [text] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    write_json(tmp_path / "a.json", json.loads(text))
    write_sidecar(tmp_path / "b.json", read_sidecar(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
