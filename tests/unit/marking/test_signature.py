from __future__ import annotations

import json
import math
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from medddpm.errors import ConfigError, MissingExtraError, OutputError
from medddpm.marking.key import new_key, read_key
from medddpm.marking.signature import (
    fingerprint,
    new_signing_key,
    read_public_key,
    read_signing_key,
    sign,
    verify,
)

CONTENT: dict[str, Any] = {
    "synthetic": True,
    "spacing": [1.0, 0.1 + 0.2, 1e-7],
    "who": "Zoë",
    "output": {"voxels_sha256": "ab" * 32},
}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return new_signing_key(tmp_path / "signer")


def test_what_was_signed_is_known_again_from_disk(pair: tuple[Path, Path], tmp_path: Path) -> None:
    public = read_public_key(pair[1])
    path = tmp_path / "a.json"
    path.write_text(json.dumps(sign(CONTENT, read_signing_key(pair[0])), indent=3))
    read = json.loads(path.read_text())
    assert verify(read, public) == ("good", fingerprint(public))
    assert verify(dict(reversed(read.items())), public)[0] == "good"  # order is no content


@pytest.mark.parametrize(
    "change",
    [
        {"synthetic": False},
        {"extra": 1},
        {"output": {"voxels_sha256": "cd" * 32}},
        {"signature": {"algorithm": "Ed25519"}},
        {"signature": "yes"},
        {"signature": None},
    ],
)
def test_what_was_changed_is_not(pair: tuple[Path, Path], change: dict[str, Any]) -> None:
    signed = sign(CONTENT, read_signing_key(pair[0]))
    assert verify({**signed, **change}, read_public_key(pair[1])) == ("bad", "")


def test_a_cut_signature_is_bad(pair: tuple[Path, Path]) -> None:
    signed = sign(CONTENT, read_signing_key(pair[0]))
    signed["signature"]["value"] = signed["signature"]["value"][:-8]
    assert verify(signed)[0] == "bad"


def test_only_the_given_key_makes_it_good(pair: tuple[Path, Path], tmp_path: Path) -> None:
    signed = sign(CONTENT, read_signing_key(pair[0]))
    other = read_public_key(new_signing_key(tmp_path / "other")[1])
    named = fingerprint(read_public_key(pair[1]))
    assert verify(signed) == ("of another key", named)
    assert verify(signed, other) == ("of another key", named)
    assert verify(CONTENT, other) == ("none", "")


def test_what_is_no_number_is_signed_as_it_is_written(pair: tuple[Path, Path]) -> None:
    signed = sign({"seconds": math.nan, "path": Path("a")}, read_signing_key(pair[0]))
    assert (signed["seconds"], signed["path"]) == (None, "a")
    assert verify(json.loads(json.dumps(signed)), read_public_key(pair[1]))[0] == "good"


def test_secrets_are_private_and_never_replaced(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = new_key(tmp_path / "key")
    for secret in (path, pair[0]):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    first = path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        new_key(path)
    with pytest.raises(OutputError, match="exists already"):
        new_signing_key(pair[0])
    assert path.read_bytes() == first
    assert read_key(path).secret == bytes.fromhex(first.decode())
    assert repr(read_key(path)) == "Key()"
    assert new_key(tmp_path / "second").read_bytes() != first


def test_a_wrong_key_file_is_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    short, large = tmp_path / "short", tmp_path / "large"
    short.write_text("abcd\n")
    large.write_bytes(b"0" * 20_000)
    for wrong in (short, large, pair[0], tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match=wrong.name):
            read_key(wrong)
    for wrong in (short, large, pair[1], tmp_path / "none"):
        with pytest.raises(ConfigError, match=wrong.name):
            read_signing_key(wrong)
    for wrong in (short, large, pair[0], tmp_path / "none"):
        with pytest.raises(ConfigError, match=wrong.name):
            read_public_key(wrong)


def test_without_cryptography_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(MissingExtraError, match=r"cryptography.*sign"):
        new_signing_key(tmp_path / "signer")
    assert not (tmp_path / "signer").exists()
    assert verify(CONTENT) == ("none", "")  # nothing to verify needs nothing
