"""What a benchmark can run, by name: ours with its settings, the VAE alone, and the peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from medddpm.benchmark.peers import SIGMA_FREE, peer_names, peer_of
from medddpm.benchmark.series_peers import SERIES_PEERS
from medddpm.errors import ConfigError
from medddpm.io.yaml_text import parse_yaml
from medddpm.preprocess.tiles import batches, blended, pad_mirrored, plan_tiles
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restorer import Restorer

Image = NDArray[np.float32]

OURS = ("mean", "sample", "ensemble")
CEILING = "vae"
_FILES = ("weights", "reference", "reference_weights")
_NOT_HERE = ("mode", "sigma", "noise", "coils", "seed")


@dataclass(frozen=True)
class Method:
    """One method of a benchmark.

    Attributes:
        label: Its name and options, such as "mean@fidelity=0.5,shifts=4".
        name: Of ours, "vae", or of a peer; see `peers.peer_of`.
        changes: Options of `Restorer.restore`; of ours only.
        source: Where its sigma comes from, if that was asked for it alone.
        weights: Its own weights, a shipped name or a file; those of the run if not given.
        reference: File of another contrast that helps it, if any.
        reference_weights: Of the network that uses it; the shipped ones if not given.
    """

    label: str
    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    source: Literal["oracle", "blind"] | None = None
    weights: str | None = None
    reference: str | None = None
    reference_weights: str | None = None

    @property
    def needs_model(self) -> bool:
        """True for our own methods and the VAE round trip."""
        return self.name in (*OURS, CEILING)

    @property
    def needs_sigma(self) -> bool:
        """True if it wants to know the level of the noise."""
        return self.name not in (CEILING, *SIGMA_FREE)

    @property
    def is_of_series(self) -> bool:
        """True if it takes all frames of a scan at once, and no single image."""
        return self.name in SERIES_PEERS or self.changes.get("frames", "each") != "each"


def parse_method(text: str) -> Method:
    """The method that "NAME" or "NAME@OPTION=VALUE,OPTION=VALUE" stands for.

    "oracle" or "blind" among the options says where this method's sigma comes from, and
    "weights=FILE" which model it is: so a run compares models. "reference=FILE" is another contrast
    of the same person, and "reference_weights=FILE" the network that uses it.

    Raises:
        ConfigError: The name, an option or its value is none that can be used.

    Example:
        >>> parse_method("mean@fidelity=0.5").changes
        {'fidelity': 0.5}
    """
    name, at, settings = text.partition("@")
    if name not in (*OURS, CEILING):
        _check_peer(name)
    parts = settings.split(",") if at else []
    source: Literal["oracle", "blind"] | None = None
    if "oracle" in parts:
        source = "oracle"
    elif "blind" in parts:
        source = "blind"
    parts = [part for part in parts if part not in ("oracle", "blind")]
    label = f"{name}@{','.join(parts)}" if parts else name
    files, parts = _files_among(parts)
    foreign = name not in OURS and (parts or set(files) - {"weights"})
    if foreign or (files and name not in (*OURS, CEILING)):
        raise ConfigError(f"method {text!r}: only {', '.join(OURS)} take settings")
    given = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not equals or option in _NOT_HERE:
            raise ConfigError(f"method {text!r}: {part!r} is no setting such as fidelity=0.5")
        # For YAML off is False; here it is a choice.
        what = f"method {text!r}: {option}"
        given[option] = value if value in ("on", "off") else parse_yaml(value, what)
    try:
        options = TypeAdapter(RestoreOptions).validate_python(given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ConfigError(f"method {text!r}: {fault['loc'][0]}: {fault['msg']}") from None
    changes = {option: getattr(options, option) for option in given}
    return Method(label, name, changes, source, **files)


def _files_among(parts: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The settings that name files, and the other ones."""
    pairs = [part.partition("=") for part in parts]
    files = {name: value for name, equals, value in pairs if equals and name in _FILES}
    return files, [part for part in parts if part.partition("=")[0] not in files]


def _check_peer(name: str) -> None:
    if name in SERIES_PEERS:
        return
    if name not in peer_names() and ":" not in name:
        known = [*OURS, CEILING, *peer_names(), *SERIES_PEERS]
        raise ConfigError(
            f"method {name!r} is unknown; choose from {', '.join(known)}, or give an import path "
            "such as package.module:function"
        )
    peer_of(name)


def parse_methods(texts: Sequence[str]) -> list[Method]:
    """Each of the methods, once.

    Raises:
        ConfigError: One is unknown, or there is none.
    """
    if not texts:
        raise ConfigError("there is no method to run")
    return [parse_method(text) for text in dict.fromkeys(texts)]


@torch.inference_mode()
def round_trip(restorer: Restorer, x: Image) -> Image:
    """A clean image through the autoencoder and back, tile by tile: the ceiling of the method.

    Args:
        restorer: Holds the autoencoder.
        x: (X, Y, Z) on the intensity scale.
    """
    options, codec = RestoreOptions(), restorer.model.codec
    shape = (x.shape[0], x.shape[1], x.shape[2])
    plan = plan_tiles(shape, options.tile, options.overlap, restorer.model.multiple)

    def there_and_back(stack: Image, _: object) -> Image:
        tile = torch.from_numpy(stack).to(restorer.device)[:, None]
        out: Image = codec.decode(codec.encode(tile))[:, 0].float().cpu().numpy()
        return out

    groups = batches(plan, 1, np.zeros(plan.padded, dtype=bool))
    return blended(plan, pad_mirrored(x, plan.padded), groups, there_and_back)
