"""The secret that a mark is made with, and found with: 32 bytes in a private file."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from medddpm.errors import ConfigError
from medddpm.io import atomic_path, check_output

_BYTES = 32


@dataclass(frozen=True)
class Key:
    """A secret; whoever has it can find the mark, and can put it on any image.

    Attributes:
        secret: 32 bytes.
    """

    secret: bytes = field(repr=False)


def new_key(path: str | Path) -> Path:
    """Write a new random key as 64 hexadecimal digits that only its owner may read.

    Raises:
        OutputError: The file exists, as keys are never replaced, or cannot be written.
    """
    path = check_output(path)
    write_private(path, secrets.token_hex(_BYTES).encode() + b"\n")
    return path


def read_key(path: str | Path) -> Key:
    """The key in a file.

    Raises:
        ConfigError: There is no such file, or it holds something else.
    """
    path = Path(path)
    text = read_small(path, "key")
    try:
        secret = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != _BYTES:
        raise ConfigError(
            f"{path} is no key of a mark: it holds 64 hexadecimal digits, as `medddpm key new` "
            "writes them"
        )
    return Key(secret)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody but its owner may read at any time."""
    with atomic_path(path) as partial:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)


def read_small(path: Path, what: str) -> bytes:
    """The content of a key file; ConfigError if it is missing or far too large for one."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"the {what} {path} cannot be read: {error.strerror or error}") from None
    if len(content) > _LARGEST:
        raise ConfigError(f"{path} is no {what}: it is too large for one")
    return content


_LARGEST = 10_000
"""Bytes."""
