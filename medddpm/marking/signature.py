"""Signatures of sidecars: Ed25519 (RFC 8032) over what they say, the hash of the voxels included.

What is signed is the JSON object without its field `signature`, as Python writes it with sorted
keys, no spaces and in UTF-8. Anyone may check a signature with the public key; only who has the
private one can make it. It says who made a scan, and falls off when somebody deletes the sidecar:
the mark does not.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medddpm.errors import ConfigError, MissingExtraError, missing_extra
from medddpm.io import check_output
from medddpm.io.outputs import plain
from medddpm.marking.key import read_small, write_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Verdict = Literal["none", "good", "of another key", "bad"]
"""No signature; by the key that was given; by one that was not; not of this content."""

FIELD = "signature"
_CONTEXT = b"medddpm sidecar 1\0"


def new_signing_key(path: str | Path) -> tuple[Path, Path]:
    """Write a private key (PEM, PKCS 8) that only its owner may read, and PATH.pub beside it.

    Raises:
        OutputError: One of them exists, or cannot be written.
        MissingExtraError: cryptography is not installed.
    """
    keys, serialization = _cryptography()
    path = check_output(path)
    public = check_output(path.with_name(f"{path.name}.pub"))
    key = keys.Ed25519PrivateKey.generate()
    content: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(path, content)
    pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_private(public, pem)
    public.chmod(0o644)
    return path, public


def read_signing_key(path: str | Path) -> Ed25519PrivateKey:
    """The private key in a file; ConfigError if there is none."""
    keys, serialization = _cryptography()
    content = read_small(Path(path), "private key")
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, keys.Ed25519PrivateKey):
        raise ConfigError(
            f"{path} is no private key for signatures, as `medddpm key new --kind signature` "
            "writes it"
        )
    private: Ed25519PrivateKey = key
    return private


def read_public_key(path: str | Path) -> bytes:
    """The 32 bytes of the public key in a file; ConfigError if there is none."""
    keys, serialization = _cryptography()
    content = read_small(Path(path), "public key")
    try:
        key = serialization.load_pem_public_key(content)
    except ValueError:
        key = None
    if not isinstance(key, keys.Ed25519PublicKey):
        raise ConfigError(
            f"{path} is no public key for signatures: it is the .pub file that `medddpm key new "
            "--kind signature` writes"
        )
    raw: bytes = key.public_bytes_raw()
    return raw


def sign(content: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """The content of a sidecar with its signature.

    Args:
        content: What the sidecar says; `output.voxels_sha256` in it binds it to the scan.
        key: The signer's.
    """
    told: dict[str, Any] = plain({k: v for k, v in content.items() if k != FIELD})
    signature = {
        "algorithm": "Ed25519",
        "public_key": _text(key.public_key().public_bytes_raw()),
        "value": _text(key.sign(_signed(told))),
    }
    return {**told, FIELD: signature}


def verify(content: Mapping[str, Any], public_key: bytes | None = None) -> tuple[Verdict, str]:
    """Whether a sidecar is what was signed, and the fingerprint of the key that signed it.

    Args:
        content: Of the sidecar, as read.
        public_key: Of who should have signed it; without it no signer is known.

    Returns:
        "good" only by the key that was given; the fingerprint is "" where there is no signature.
    """
    if FIELD not in content:
        return "none", ""
    keys, _ = _cryptography()
    from cryptography.exceptions import InvalidSignature

    try:
        told = content[FIELD]
        raw = base64.b64decode(told["public_key"], validate=True)
        signer = keys.Ed25519PublicKey.from_public_bytes(raw)
        signer.verify(base64.b64decode(told["value"], validate=True), _signed(content))
    except (InvalidSignature, ValueError, TypeError, KeyError):
        return "bad", ""
    return ("good" if raw == public_key else "of another key"), fingerprint(raw)


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of a public key, the first 16 of its digits."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def _signed(content: Mapping[str, Any]) -> bytes:
    rest = {name: value for name, value in content.items() if name != FIELD}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return _CONTEXT + text.encode("utf-8", "surrogateescape")


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingExtraError(missing_extra("cryptography", "sign")) from None
    return ed25519, serialization
