"""YAML that people write: one reader, which refuses what would be lost or never end."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BeforeValidator

from medddpm.errors import ConfigError

YAML_SWITCH = BeforeValidator(lambda v: {True: "on", False: "off"}[v] if isinstance(v, bool) else v)
"""For a field of "on" and "off", which YAML reads as true and false."""
_MOST_VALUES = 100_000
"""Values of a document with every alias written out; a few lines of aliases may stand for 10^9."""


def parse_yaml(text: str, what: str) -> Any:
    """The content of a YAML document: mappings, lists and plain values.

    Args:
        text: The document.
        what: What messages call it.

    Raises:
        ConfigError: It is no YAML, names a field twice, is nested too deep or too large.
    """
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{what} is not readable as YAML: {_problem(error)}") from None
    except RecursionError:
        raise ConfigError(f"{what} is nested too deep") from None
    except (ValueError, OverflowError, TypeError, AttributeError, KeyError) as error:
        raise ConfigError(f"{what} holds a value that is none: {error}") from None
    if _is_larger(content, _MOST_VALUES):
        raise ConfigError(f"{what} has more than {_MOST_VALUES} values, its aliases written out")
    return content


def _problem(error: yaml.YAMLError) -> str:
    """What is wrong, and where, in one line."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    return f"{where}{getattr(error, 'problem', None) or str(error).splitlines()[0]}"


class _Loader(yaml.SafeLoader):
    """As PyYAML's, which of a field that stands twice silently drops the first."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        fields = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
        twice = next((f for f in fields if f != "<<" and fields.count(f) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"the field {twice!r} stands twice", node.start_mark
            )
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def _is_larger(content: Any, most: int) -> bool:
    """Whether a tree, which may hold itself, has more values than `most`."""
    waiting, seen = [content], 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if seen + len(waiting) > most:
            return True
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set):
            waiting += item
    return False
