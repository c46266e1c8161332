"""Options that several commands share, and the parsers of their values."""

from __future__ import annotations

import math
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medddpm.cli import groups
from medddpm.errors import ConfigError

NoiseKind = Literal["rician", "gaussian", "ncchi"]
Mode = Literal["mean", "sample", "ensemble"]
Backend = Literal["torch", "compile", "onnx", "openvino"]
OutputFormat = Literal["nifti", "dicom"]
NumberType = Literal["float32", "input", "uint8", "int16", "uint16", "int32"]


class SimulatedNoise(StrEnum):
    """What can be simulated; an enumeration, because typer takes no list of literals."""

    ACQUIRED = "acquired"
    ELLIPSE = "ellipse"
    WHITE = "white"
    RICIAN = "rician"
    GAUSSIAN = "gaussian"
    NCCHI = "ncchi"

    @property
    def white_kind(self) -> NoiseKind | None:
        """Law of white noise; None for that of an acquisition."""
        return _WHITE_KINDS.get(self)


_WHITE_KINDS: dict[SimulatedNoise, NoiseKind] = {
    SimulatedNoise.WHITE: "rician",
    SimulatedNoise.RICIAN: "rician",
    SimulatedNoise.GAUSSIAN: "gaussian",
    SimulatedNoise.NCCHI: "ncchi",
}

InputPath = Annotated[
    Path, typer.Argument(metavar="INPUT", help="A NIfTI or DICOM file, or a folder of DICOM.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace outputs that exist; without it they are kept.")
]
Reference = Annotated[
    Path | None,
    typer.Option(
        help="Another contrast of the same person, which helps mode mean.",
        rich_help_panel=groups.REFERENCE,
    ),
]
ReferenceWeights = Annotated[
    Path | None,
    typer.Option(
        help="Those of `medddpm train reference`, if not the shipped ones.",
        rich_help_panel=groups.REFERENCE,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Take scans of another modality than MR too.",
        rich_help_panel=groups.FILES,
    ),
]
Trust = Annotated[
    Literal["sform", "qform"] | None,
    typer.Option(
        help="Which to take where a NIfTI file has an sform and qform that disagree.",
        rich_help_panel=groups.FILES,
    ),
]
CleanScans = Annotated[Path, typer.Argument(help="Clean NIfTI: a file, a folder or a CSV.")]
Tables = Annotated[Path, typer.Option(help="Folder for the tables; a rerun goes on in it.")]
Fractions = Annotated[
    list[float] | None, typer.Option(help="Fraction of the intensity scale; repeatable.")
]
SigmaSource = Annotated[
    Literal["blind", "oracle", "both"],
    typer.Option(help="Methods estimate sigma, or are told it, or run with each."),
]
Crop = Annotated[
    str | None, typer.Option(metavar="X,Y,Z", help="Box around the foreground's middle.")
]
Include = Annotated[str, typer.Option(help="Pattern of scan names.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many scans.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=groups.MACHINE)
]
Weights = Annotated[str, typer.Option(help="A shipped name or a .safetensors file.")]
Seed = Annotated[int, typer.Option(help="Fixes the noise field; same seed, same bytes.")]
Coils = Annotated[int, typer.Option(min=1, help="Receiver coils, for --noise ncchi.")]
AcquisitionFile = Annotated[
    Path | None,
    typer.Option(
        "--acquisition", help="JSON of an acquisition, or a sidecar of `medddpm simulate`."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Set a config field; may be given repeatedly."),
]


def given(**flags: Any) -> dict[str, Any]:
    """The flags that were given, lists as tuples; the others have the defaults of the options.

    Example:
        >>> given(sigmas=[0.05], crop=None)
        {'sigmas': (0.05,)}
    """
    found = {name: value for name, value in flags.items() if value is not None and value != []}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}


_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}


def parse_memory(text: str | None) -> float | None:
    """Gigabytes (1e9 bytes) of "8GB", "500 MB" or "2GiB"; None stays None.

    Example:
        >>> parse_memory("500MB")
        0.5
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT])(I?)B?\s*", text.upper())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"--memory takes a size with its unit such as 8GB or 500MB, got {text!r}")
    base = 1024 if match[3] else 1000
    return float(float(match[1]) * base ** _POWERS[match[2]] / 1e9)


def parse_sigma(text: str) -> float | None:
    """A noise level in scan units, or None for "auto"."""
    if text == "auto":
        return None
    try:
        sigma = float(text)
    except ValueError:
        raise ConfigError(f"--sigma takes a number or auto, got {text!r}") from None
    if not math.isfinite(sigma) or sigma <= 0:
        raise ConfigError(f"--sigma must be a positive number in scan units, or auto, got {text}")
    return sigma


def parse_device(text: str) -> str:
    """The name of a device, checked for its form only: torch is not asked here."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", text) is None:
        raise ConfigError(f"--device takes auto, cpu, cuda or cuda:N, got {text!r}")
    return text


def parse_crop(text: str | None) -> tuple[int, int, int] | None:
    """The box of "96,96,96" in voxels; None stays None."""
    if text is None:
        return None
    try:
        x, y, z = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--crop is {text!r}; give three whole numbers X,Y,Z") from error
    return x, y, z
