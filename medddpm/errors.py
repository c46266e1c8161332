"""The exception tree. A user's mistake raises one of these; anything else is a bug.

Every class carries the exit code that the command line returns for it:
2 usage or config, 3 unreadable input, 4 geometry, 5 output cannot be written, 7 some scans of a
cohort failed. 6 is no error: the output was written, and a check raised a flag (a guard, a failed
cell of a sweep, a copied scan). 130 is an interrupt.
"""

from __future__ import annotations

from typing import ClassVar


class MedddpmError(Exception):
    """Base of all errors that a user can cause and mend."""

    exit_code: ClassVar[int] = 1


class ConfigError(MedddpmError, ValueError):
    """An option or a config field has a value that cannot be used."""

    exit_code = 2


class NoNoiseError(ConfigError):
    """A scan shows no noise that could be measured: a label map, a mask, a synthetic image."""


class MemoryBudgetError(ConfigError):
    """The memory budget is smaller than one tile needs."""


class MissingExtraError(MedddpmError, ImportError):
    """An optional dependency is not installed."""

    exit_code = 2


def missing_extra(what: str, extra: str) -> str:
    """The message that something of an extra is not installed, and how to install it.

    Nothing is published yet, so the extra comes from the clone.

    Example:
        >>> missing_extra("pynetdicom", "node")
        "pynetdicom is not installed: in the clone of medddpm, run pip install -e '.[node]'"
    """
    return f"{what} is not installed: in the clone of medddpm, run pip install -e '.[{extra}]'"


class VolumeReadError(MedddpmError, OSError):
    """A scan cannot be read, or what was read is no scan that we can restore."""

    exit_code = 3


class ContentAbsentError(VolumeReadError):
    """A link or pointer is there, and the content it stands for was not fetched."""


class NoSidecarError(VolumeReadError):
    """A file is no sidecar of a restoration: it is damaged, or something else."""


class DicomSeriesError(VolumeReadError):
    """A DICOM series is incomplete, ambiguous or of the wrong kind."""


class CheckpointError(MedddpmError, OSError):
    """A weights or checkpoint file is missing, cut short or of another version."""

    exit_code = 3


class GeometryError(MedddpmError, ValueError):
    """Affines or grids are singular, contradictory or do not match."""

    exit_code = 4


class ShapeError(MedddpmError, ValueError):
    """An array has a shape that the operation cannot take."""

    exit_code = 4


class OutputError(MedddpmError, OSError):
    """An output cannot be written, or exists already."""

    exit_code = 5


class CohortError(MedddpmError):
    """Some scans of a cohort failed, or were not reached; the others are done."""

    exit_code = 7


class SamplingDivergedError(MedddpmError, ArithmeticError):
    """A network or a sampler produced NaN or infinity."""


class OptionWarning(UserWarning):
    """An option was set that does nothing beside the others; the message says why."""


class ValuesWarning(UserWarning):
    """Values of a scan are unusual; the message says what was done with them."""


class GeometryWarning(UserWarning):
    """A geometry was repaired or is unusual; the message says what was done."""


class LeftOutWarning(UserWarning):
    """Something in the input was passed over; the message says what and why."""
