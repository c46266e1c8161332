"""What a name stands for: something of ours, or a function of anybody's, by its import path.

`package.module:function` is the form of entry points (Python Packaging User Guide, "Entry points
specification"). A function that was given as such keeps that form in configs and sidecars, so
that a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from medddpm.errors import ConfigError

T = TypeVar("T")


def named(name: str, known: Mapping[str, T], what: str, group: str = "") -> T:
    """The thing of this name.

    Args:
        name: One of `known`, one that an installed package adds, or an import path.
        known: Ours, by name.
        what: What it is, for the message: "sampler".
        group: Entry point group through which packages add others.

    Raises:
        ConfigError: There is none of that name, or it cannot be imported or called.
    """
    if name in known:
        return known[name]
    added = _added(group)
    found: Any
    if name in added:
        found = _loaded(added[name].value, f"the {what} {name}")
    elif ":" in name:
        found = _loaded(name, f"the {what}")
    else:
        raise ConfigError(
            f"{what} {name!r} is unknown; choose from {', '.join([*known, *added])}, or give an "
            "import path such as package.module:function"
        )
    return found  # type: ignore[no-any-return]  # its signature is the caller's to say


def path_of(thing: str | Callable[..., Any], what: str) -> str:
    """The name itself, or the import path of a function.

    Raises:
        ConfigError: The function has no path, such as one that is defined inside another.
    """
    if isinstance(thing, str):
        return thing
    path = f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}"
    if "<" in path or path.startswith(":") or path.endswith(":"):
        raise ConfigError(
            f"the {what} {thing!r} has no import path, and a run with it could not be repeated; "
            "define it at the top of a module"
        )
    return path


def names(known: Mapping[str, Any], group: str) -> list[str]:
    """Ours, then those that installed packages add."""
    return [*known, *(n for n in _added(group) if n not in known)]


def _added(group: str) -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group=group)} if group else {}


def _loaded(path: str, what: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{what} cannot be imported from {path}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{what} at {path} is no function")
    return found
