"""Names, import paths and entry points."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint

import pytest

from medddpm import named
from medddpm.errors import ConfigError

KNOWN = {"sine": math.sin}


def test_ours_goes_first_then_packages_then_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("cosine", "math:cos", "medddpm.waves")
    monkeypatch.setattr(named, "entry_points", lambda group: [point] if "waves" in group else [])
    assert named.named("sine", KNOWN, "wave", "medddpm.waves") is math.sin
    assert named.named("cosine", KNOWN, "wave", "medddpm.waves") is math.cos
    assert named.named("math:tan", KNOWN, "wave", "medddpm.waves") is math.tan
    assert named.names(KNOWN, "medddpm.waves") == ["sine", "cosine"]
    with pytest.raises(ConfigError, match="choose from sine, cosine, or give an import path"):
        named.named("square", KNOWN, "wave", "medddpm.waves")


@pytest.mark.parametrize(
    "path", ["math:nothing", "no_such_package:sin", "math:pi", ":sin", "math:"]
)
def test_what_cannot_be_imported_or_called_is_named(path: str) -> None:
    with pytest.raises(ConfigError, match="wave"):
        named.named(path, KNOWN, "wave")


def test_a_function_is_kept_by_its_path() -> None:
    assert named.path_of(math.sin, "wave") == "math:sin"
    assert named.path_of("sine", "wave") == "sine"
    with pytest.raises(ConfigError, match="top of a module"):
        named.path_of(lambda x: x, "wave")
