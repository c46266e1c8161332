"""A whole scan as acquired: which acquisition, and the scan with and without its noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from medddpm.errors import ConfigError
from medddpm.preprocess.acquisition import Acquisition, acquire, draw_acquisition
from medddpm.preprocess.degrade import volume_seed
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.volume import Volume

AcquisitionName = Literal["acquired", "ellipse"]

ELLIPSE = Acquisition(0.0, matrix=(0.62, 0.62, 0.9), elliptical=(0, 1, 2))
"""What many T1w scans are, and nothing else: an ellipse in k-space."""
_DRAW, _FIELDS = -1, -2
"""In place of a frame, in seeds: of what a scan has once."""


@dataclass(frozen=True)
class AcquiredScan:
    """A scan with simulated noise, in its units and place.

    Attributes:
        noisy: 3D or 4D.
        clean: The same chain without noise.
        laws: Noise of each frame, in scan units.
        acquisition: What was simulated; its sigma is a fraction of the intensity scale.
    """

    noisy: Volume
    clean: Volume
    laws: list[NoiseLaw]
    acquisition: Acquisition


def choose_acquisition(
    name: AcquisitionName,
    sigma: float,
    volume: Volume,
    seed: int,
    *,
    given: Acquisition | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Acquisition:
    """The acquisition of one scan; but for sigma it is the same at every level of the noise.

    Args:
        name: "ellipse" is `ELLIPSE`; "acquired" the given one, or else one drawn at random.
        sigma: Fraction of the intensity scale.
        volume: The scan; thick slices are acquired as such.
        seed: With the name of the scan it fixes what is drawn.
        given: An acquisition of one's own.
        changes: Fields that are set on top.

    Raises:
        ConfigError: A field is unknown, or its value out of range.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ConfigError(f"sigma is {sigma}; give a finite fraction, zero or more")
    if name == "ellipse":
        chosen = ELLIPSE
    elif given is not None:
        chosen = given
    else:
        rng = np.random.default_rng(volume_seed(seed, volume.case_id, _DRAW))
        chosen = draw_acquisition(sigma, volume.spacing, rng)
    if changes:
        chosen = parse_acquisition(asdict(chosen) | dict(changes), "the acquisition")
    return replace(chosen, sigma=sigma)


def parse_acquisition(fields: Mapping[str, Any], where: str) -> Acquisition:
    """The acquisition that a JSON file or a person describes; sigma is 0 if it is not there.

    Args:
        fields: By name; lists may stand for tuples, and "0.6,0.6,0.9" for lists.
        where: Named in errors.

    Raises:
        ConfigError: A field is unknown, or its value out of range.
    """
    read = {name: _split(value) for name, value in fields.items()}
    try:
        return TypeAdapter(Acquisition).validate_python({"sigma": 0.0} | read)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "unexpected_keyword_argument":
            known = ", ".join(asdict(ELLIPSE))
            raise ConfigError(f"{where}: {field} is no field; known are {known}") from None
        told = fault["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {field + ': ' if field else ''}{told}") from None


def acquire_scan(volume: Volume, acquisition: Acquisition, scale: float, seed: int) -> AcquiredScan:
    """The scan as acquired, frame by frame.

    All frames have the coils and the fields of the first, and noise of their own.

    Args:
        volume: Clean, 3D or 4D.
        acquisition: What to simulate.
        scale: Intensity scale, in scan units.
        seed: With the name of the scan and the number of the frame it fixes the noise.
    """
    factor = np.float32(scale)
    noisy, clean = (np.empty(volume.data.shape, np.float32) for _ in range(2))
    laws = []
    for index in range(volume.num_frames):
        image = np.asarray(volume.frame(index), np.float32) / factor
        made = acquire(
            image,
            acquisition,
            np.random.default_rng(volume_seed(seed, volume.case_id, index)),
            fields=np.random.default_rng(volume_seed(seed, volume.case_id, _FIELDS)),
        )
        for out, frame in ((noisy, made.noisy), (clean, made.clean)):
            _frame(out, index)[...] = frame * factor
        laws.append(law_times(made.law, scale))
    return AcquiredScan(volume.with_data(noisy), volume.with_data(clean), laws, acquisition)


def law_times(law: NoiseLaw, factor: float) -> NoiseLaw:
    """The law of the image times a factor."""
    if isinstance(law.sigma, np.ndarray):
        return replace(law, sigma=law.sigma * np.float32(factor))
    return replace(law, sigma=float(law.sigma * factor))


def _frame(data: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    return data if data.ndim == 3 else data[..., index]


def _split(value: Any) -> Any:
    """The list that "0.6,0.6,0.9" stands for; other values as they are."""
    if isinstance(value, str) and "," in value:
        return [part.strip() for part in value.split(",")]
    return value
