"""How a node behaves; read from one YAML file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from medddpm.errors import ConfigError
from medddpm.io.yaml_text import parse_yaml

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True)
class Rules:
    """Which series are restored; all that is given must hold.

    Attributes:
        modality: Modalities.
        description: Regular expression that is found in the series description.
        contrast: BIDS suffixes such as "T1w"; a series of unknown contrast is then left out.
        min_images: Fewest images, or frames of an enhanced object.
    """

    __pydantic_config__ = _STRICT
    modality: tuple[str, ...] = ("MR",)
    description: str = ""
    contrast: tuple[str, ...] = ()
    min_images: int = 2


@dataclass(frozen=True)
class Tls:
    """Files of keys, in PEM.

    Attributes:
        cert: Our certificate.
        key: Its key.
        ca: Certificates that a peer's must come from; peers then must show one.
        send: Whether the destination speaks TLS, too.
    """

    __pydantic_config__ = _STRICT
    cert: Path
    key: Path
    ca: Path
    send: bool = True


@dataclass(frozen=True)
class NodeOptions:
    """All that is not said by a flag.

    Attributes:
        rules: Which series are restored.
        quiet_s: A series is complete when no image of it came for so long.
        cut_off_s: The same for a series whose association was lost, or that came before the node
            started: its sender may go on later.
        poll_s: How often folders are looked at.
        max_associations: At once; more are rejected.
        max_file_mb: Largest object that is taken.
        min_free_gb: Free space below which nothing is taken (status A700).
        retry_s: Wait after the first failed sending; doubles each time.
        max_retry_s: Longest wait.
        max_refusals: A destination that refuses objects so often gets no more of that series. One
            that cannot be reached is tried for ever.
        commitment: Ask the destination for storage commitment if it offers it.
        commitment_wait_s: How long its answer may take before it is asked again, three times.
        tls: Keys; without them the node speaks plain DICOM.
    """

    __pydantic_config__ = _STRICT
    rules: Rules = field(default_factory=Rules)
    quiet_s: float = 30.0
    cut_off_s: float = 300.0
    poll_s: float = 1.0
    max_associations: int = 20
    max_file_mb: float = 2048.0
    min_free_gb: float = 5.0
    retry_s: float = 10.0
    max_retry_s: float = 600.0
    max_refusals: int = 10
    commitment: bool = True
    commitment_wait_s: float = 3600.0
    tls: Tls | None = None


@dataclass(frozen=True)
class Peer:
    """Where derived series go."""

    aet: str
    host: str
    port: int


def load_options(path: Path | None) -> NodeOptions:
    """The options of a YAML file; the defaults without one.

    Raises:
        ConfigError: It cannot be read, or has a field or value that is not known.
    """
    if path is None:
        return NodeOptions()
    try:
        content = parse_yaml(path.read_text(encoding="utf-8-sig"), str(path)) or {}
        options = TypeAdapter(NodeOptions).validate_python(content)
        re.compile(options.rules.description)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error
    except re.error as error:
        raise ConfigError(f"{path}: rules.description is no regular expression: {error}") from error
    return options


def parse_peer(text: str) -> Peer:
    """A destination.

    Example:
        >>> parse_peer("PACS@10.0.0.2:104")
        Peer(aet='PACS', host='10.0.0.2', port=104)
    """
    found = re.fullmatch(r"([^@]+)@(.+):(\d{1,5})", text)
    if not found or not 0 < int(found[3]) < 65536:
        raise ConfigError(f"{text!r} is no destination; write it as AET@HOST:PORT")
    return Peer(check_aet(found[1]), found[2].strip("[]"), int(found[3]))


def check_aet(text: str) -> str:
    """An AE title without outer spaces: 1 to 16 characters of ASCII, no backslash (PS3.5 6.2)."""
    title = text.strip()
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", title):
        raise ConfigError(f"{text!r} is no AE title: 1 to 16 ASCII characters without a backslash")
    return title
