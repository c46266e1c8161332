"""How many bytes a file really holds: what a header claims is compared with it before reading."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 20
_GZIP = 31
"""zlib's window bits for a gzip member, with its header and checksum."""
_MAGIC = b"\x1f\x8b"
_CGROUP = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def is_gzip(path: Path) -> bool:
    """True if the name says that the file is compressed."""
    return path.name.lower().endswith((".gz", ".mgz"))


def content_length(path: Path) -> int:
    """Bytes that a file holds once it is unpacked; of a gzip file every checksum is compared.

    Raises:
        EOFError: A gzip member is cut short.
        zlib.error: It is damaged, or there is none.
    """
    if not is_gzip(path):
        return path.stat().st_size
    with path.open("rb") as file:
        return _unpacked_length(file)


def _unpacked_length(file: BinaryIO) -> int:
    """Length of all members of a gzip file (RFC 1952, section 2.2), in little memory.

    What follows the last complete member and begins no other is left out, as gunzip does.
    """
    total, rest = 0, b""
    member = zlib.decompressobj(_GZIP)
    while True:
        rest = rest or file.read(_CHUNK)
        if not rest:
            raise EOFError("the compressed data end before their checksum")
        total += len(member.decompress(rest, _CHUNK))
        rest = member.unconsumed_tail
        if member.eof:
            rest = _next_member(member.unused_data, file)
            if not rest.startswith(_MAGIC):
                return total
            member = zlib.decompressobj(_GZIP)


def _next_member(rest: bytes, file: BinaryIO) -> bytes:
    """What follows a member, without the zeros that may pad it; two bytes or more if there are."""
    rest = rest.lstrip(b"\0")
    while len(rest) < len(_MAGIC):
        more = file.read(_CHUNK)
        if not more:
            break
        rest = (rest + more).lstrip(b"\0")
    return rest


def total_memory() -> int:
    """Bytes of memory that this process may have at most: the machine's, or its cgroup's limit."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP:
        try:
            limits.append(int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no cgroup, or "max"
            continue
    return min(limits)
