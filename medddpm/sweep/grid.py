"""The grid of a sweep: the values of each field, and one cell for each choice of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from medddpm.config import Config, load_config
from medddpm.errors import ConfigError

_LONGEST = 80
_OPEN, _CLOSE = "[{(", "]})"


@dataclass(frozen=True)
class Cell:
    """One choice of values.

    Attributes:
        name: Of its folder: its settings, the same in every run of the sweep.
        settings: The text of the value of each field that the sweep varies.
        config: What it trains with.
    """

    name: str
    settings: dict[str, str]
    config: Config


def make_grid(config: str, assignments: Sequence[str]) -> list[Cell]:
    """Every combination of the values, the last field varying fastest.

    Args:
        config: A YAML file or a shipped name.
        assignments: "FIELD=VALUE,VALUE,..."; a field with one value is set in all cells. A comma
            inside brackets, braces or quotes does not end a value: "diffusion.channels=[8,8],[16]".

    Raises:
        ConfigError: No field has two values, one is given twice, or a value cannot be used.
    """
    values: dict[str, list[str]] = {}
    for text in assignments:
        field, equals, rest = text.partition("=")
        field = field.strip()
        if not equals or not field:
            raise ConfigError(f"--set takes FIELD=VALUE,VALUE, got {text!r}")
        if field in values:
            raise ConfigError(f"--set {field} is given twice; give all its values in one")
        values[field] = split_values(rest)
        if len(set(values[field])) < len(values[field]) or "" in values[field]:
            raise ConfigError(f"--set {text}: a value is empty or stands there twice")
    fixed = [f"{field}={found[0]}" for field, found in values.items() if len(found) == 1]
    varied = {field: found for field, found in values.items() if len(found) > 1}
    if not varied:
        raise ConfigError(
            "a sweep needs a field with two values or more, such as "
            "--set diffusion.schedule=linear,cosine"
        )
    cells = []
    for choice in product(*varied.values()):
        settings = dict(zip(varied, choice, strict=True))
        overrides = [f"{field}={value}" for field, value in settings.items()]
        resolved = load_config(config, [*fixed, *overrides])
        cells.append(Cell(cell_name(settings), settings, resolved))
    return cells


def split_values(text: str) -> list[str]:
    """The values of a list, at the commas that stand in no bracket, brace or quote.

    Example:
        >>> split_values("[8,8],[16,16]")
        ['[8,8]', '[16,16]']
    """
    values, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in _OPEN) - (character in _CLOSE)
            if character == "," and depth == 0:
                values.append("")
                continue
        values[-1] += character
    return [value.strip() for value in values]


def cell_name(settings: dict[str, str]) -> str:
    """A folder name for the settings: the same for the same ones, in whatever order.

    Example:
        >>> cell_name({"diffusion.schedule": "cosine", "diffusion.channels": "[16,16]"})
        'channels-16x16_schedule-cosine'
    """
    last = [field.rpartition(".")[2] for field in settings]
    parts, plain = [], True
    for field in sorted(settings):
        short = field.rpartition(".")[2]
        value = re.sub(r"\s*,\s*", "x", settings[field].strip("[]"))
        plain = plain and re.fullmatch(r"[\w.+-]+", value, re.ASCII) is not None
        value = re.sub(r"[^\w.+-]+", "-", value, flags=re.ASCII)
        parts.append(f"{short if last.count(short) == 1 else field}-{value}")
    name = "_".join(parts)
    if plain and len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:8]
    return f"{name[:_LONGEST]}-{digest}"
