"""Pseudonyms, and the one folder that can undo them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from medddpm.data.tables import write_text
from medddpm.errors import ConfigError, OutputError
from medddpm.io.lock import lock_of
from medddpm.io.tables import read_table, write_table

_KEY_BYTES = 32


class Pseudonyms:
    """Names that stay the same under one key and tell nothing without it: HMAC-SHA-256.

    Args:
        key: Secret bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def digest(self, kind: str, text: str, length: int = 10) -> str:
        """Hexadecimal digits that stand for `text`.

        Args:
            kind: What it is: "subject", "series", "site"; the same text gives other digits.
            text: What shall not be seen.
            length: Number of digits.
        """
        message = f"{kind}\0{text}".encode(errors="surrogateescape")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:length]

    def subject(self, original: str) -> str:
        """The pseudonym of a patient."""
        return f"sub-{self.digest('subject', original.strip())}"

    def uid(self, original: str) -> str:
        """A DICOM UID that stands for another one (PS3.5 B.2: 2.25. and a number of 128 bits)."""
        return f"2.25.{int(self.digest('uid', original, 32), 16)}"


def private_folder(out: Path) -> Path:
    """The folder of `out` that only its owner may read; made if missing."""
    folder = out / "private"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise OutputError(f"cannot write into {out}: {error.strerror}") from None
    return folder


def pseudonyms_of(out: Path, key: Path | None = None) -> Pseudonyms:
    """The pseudonyms of a prepared folder; the first call makes its key.

    Args:
        out: The prepared folder.
        key: A file of another key to use, such as that of another site; it is copied.

    Raises:
        ConfigError: The key file is missing or short, or the folder has another key already.
    """
    place = private_folder(out) / "key"
    given = _read_key(key) if key else None
    if place.is_file():
        kept = _read_key(place)
        if given not in (None, kept):
            raise ConfigError(
                f"{out} was prepared with another key than {key}; one folder has one key: "
                "leave --key away, or take another OUT"
            )
        return Pseudonyms(kept)
    chosen = given or secrets.token_bytes(_KEY_BYTES)
    write_private(place, chosen.hex() + "\n")
    return Pseudonyms(chosen)


def _read_key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        raise ConfigError(f"{path} is no key: it holds 64 hexadecimal digits") from None
    if len(key) < _KEY_BYTES:
        raise ConfigError(f"the key in {path} is too short: 64 hexadecimal digits are needed")
    return key


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    write_text(path, text)
    path.chmod(0o600)


class Owner(NamedTuple):
    """Whose a scan is: its name, the pseudonym, the source's own id, and its first file."""

    scan: str
    subject: str
    original: str
    source: str


def write_mapping(path: Path, rows: Iterable[Owner]) -> None:
    """Write which scan is whose."""
    write_table(path, Owner._fields, sorted(rows))
    path.chmod(0o600)


def read_mapping(path: Path) -> list[Owner]:
    """Which scan is whose; nothing if there is no such file."""
    if not path.is_file():
        return []
    return [Owner(*(line[n] for n in Owner._fields)) for line in read_table(path, Owner._fields)]


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Keep a second process out of a prepared folder; a killed one leaves no lock behind."""
    lock = lock_of(private_folder(out) / "lock")
    if lock is None:
        raise OutputError(f"another `medddpm prepare` is at work in {out}; wait until it ends")
    try:
        yield
    finally:
        lock.release()
