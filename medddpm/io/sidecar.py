"""The sidecar: what the JSON beside a restored scan says. docs/sidecar.md is its table.

It is written and read here alone. What an object of the program is called may change; the names
here are those on disk; only what was set is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from medddpm.errors import NoSidecarError, VolumeReadError
from medddpm.io.acquired import Acquired
from medddpm.io.dicom_write import DicomOptions
from medddpm.io.frame_facts import FrameFacts, Part
from medddpm.io.nifti_forms import Trust
from medddpm.io.outputs import write_json
from medddpm.io.stored import NumberType

SCHEMA_VERSION = 1
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls a field that a model, or a dataclass, does not have."""


def _named(*names: str) -> AfterValidator:
    """Refuses a mapping without these names."""

    def check(found: dict[str, Any]) -> dict[str, Any]:
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        return found

    return AfterValidator(check)


def _some(found: tuple[FrameFacts, ...]) -> tuple[FrameFacts, ...]:
    """Refuses none at all; a `min_length` would count those without error alone."""
    if not found:
        raise ValueError("there is none")
    return found


class FileFacts(Part):
    """A file beside the scan: its name, SHA-256 and, beside NIfTI, its place."""

    file: str
    sha256: str
    path: str | None = None


class PhaseFacts(Part):
    """How the phase of a scan was given.

    Attributes:
        given_as: "phase" or "imaginary", of a second file; "complex", in the file of the scan.
        units: What the values of the phase were taken for, in words.
        file: The second file.
    """

    given_as: Literal["phase", "imaginary", "complex"]
    units: str | None = None
    file: FileFacts | None = None


class InputFacts(Part):
    """The scan that was restored; no names, no dates.

    Attributes:
        case_id: What the scan is called; of DICOM a hash.
        format: "nifti", "mgh" or "dicom".
        sha256: Of its files; None if they are not known.
        num_files: How many.
        shape: (X, Y, Z) or (X, Y, Z, T).
        spacing_mm: Voxel edges in mm.
        orientation: Anatomical direction of each array axis, such as "RAS".
        path: Relative to the sidecar; None for DICOM, whose paths may name patients.
        phase: Where its phase came from, if it was restored with it.
    """

    case_id: str
    format: str
    sha256: str | None
    num_files: int
    shape: list[int]
    spacing_mm: list[float]
    orientation: str
    path: str | None = None
    phase: PhaseFacts | None = None


class RunFacts(Part):
    """How the scan was read and the result is written.

    Attributes:
        format: "nifti" or "dicom".
        force: Whether other modalities than MR were taken.
        trust: "sform" or "qform", if that was said.
        dtype: Number type of the scan in NIfTI.
        dicom: How DICOM is written; None for NIfTI.
    """

    format: str = "nifti"
    force: bool = False
    trust: Trust | None = None
    dtype: NumberType = "float32"
    dicom: DicomOptions | None = None


class WeightsFacts(Part):
    """The weights.

    Attributes:
        sha256: Of the file.
        name: Of the model.
        source: A shipped name, or the file's path relative to the sidecar.
    """

    sha256: str
    name: str
    source: str = "default"


class IntervalFacts(Part):
    """What stands behind the interval of an ensemble.

    Attributes:
        level: Its nominal coverage, 0 to 1.
        calibrated: Whether the weights hold a calibration.
        calibrated_for_other_options: Options that it was made with and this scan was not.
    """

    level: float
    calibrated: bool
    calibrated_for_other_options: dict[str, Any] = Field(default_factory=dict)


class SeriesFacts(Part):
    """How the frames of a scan were restored together, before each alone.

    Attributes:
        method: "mppca".
        library: That did it, with its version.
        frames: Numbers of those that took part, from 0.
        patch: Voxels of a patch along each axis of the acquired grid.
    """

    method: str
    library: str
    frames: tuple[int, ...]
    patch: tuple[int, int, int]

    def words(self, count: int) -> str:
        """The same in words, of a scan of so many frames."""
        x, y, z = self.patch
        taken = "all" if len(self.frames) == count else f"{len(self.frames)} of {count}"
        return (
            f"{taken} were restored together first, by {self.method.upper()} ({self.library}) in "
            f"patches of {x} x {y} x {z} voxels"
        )


class NoiseFilesFacts(Part):
    """Files that said what is known of the noise."""

    map: FileFacts | None = None
    spectrum: FileFacts | None = None


class ReferenceFacts(Part):
    """A scan of another contrast that helped.

    Attributes:
        case_id: What it is called; of DICOM a hash.
        format: "nifti", "mgh" or "dicom".
        sha256: Of its files.
        path: Relative to the sidecar; None for DICOM, whose paths may name patients.
        weights: Of the network that used it; a shipped name, or a path relative to the sidecar.
    """

    case_id: str
    format: str
    sha256: str | None
    path: str | None = None
    weights: WeightsFacts


class RoundingFacts(Part):
    """What the number type of the output cost.

    Attributes:
        dtype: The type.
        step: Between its values, in scan units.
        clipped_voxels: Voxels beyond it.
    """

    dtype: str
    step: float
    clipped_voxels: int


class OutputFacts(Part):
    """What was written.

    Attributes:
        voxels_sha256: Of shape and float32 values of the scan.
        maps_sha256: The same of each map.
        maps: File of each map.
        files: SHA-256 of each file.
    """

    voxels_sha256: str
    maps_sha256: dict[str, str]
    maps: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] | None = None


class BidsFacts(Part):
    """What BIDS asks for of a derivative; it comes first, and nowhere else."""

    description: str = Field(default="", alias="Description")
    sources: list[str] = Field(default=[], alias="Sources")
    skull_stripped: bool = Field(default=False, alias="SkullStripped")
    generated_by: list[dict[str, str]] = Field(default=[], alias="GeneratedBy")


class _Head(BidsFacts):
    """What a sidecar begins with."""

    schema_version: int = SCHEMA_VERSION
    statement: str
    time: str = ""
    input: InputFacts
    run: RunFacts = RunFacts()


class Facts(Part):
    """What a restoration says of itself.

    Attributes:
        options: All of them, by the names of `RestoreOptions`.
        weights: Whose.
        device: Where it ran.
        torch: Version of PyTorch.
        seconds: How long it took.
        interval: Of an ensemble.
        guard_calibrated: Whether what is usual was measured for these weights and options.
        frames: One each, from 0.
        header: What the scan's header says of its acquisition.
        series: How the frames were restored together; None if each was alone.
    """

    options: Annotated[dict[str, Any], _named("mode", "seed")]
    weights: WeightsFacts
    device: str
    torch: str = ""
    seconds: float
    interval: IntervalFacts | None = None
    guard_calibrated: bool | None = None
    frames: Annotated[tuple[FrameFacts, ...], AfterValidator(_some)]
    header: Acquired | None = None
    series: SeriesFacts | None = None

    @property
    def blank_frames(self) -> list[int]:
        """The frames that the restoration found blank, from 0."""
        return [index for index, frame in enumerate(self.frames) if frame.blank]

    @property
    def shown_frame(self) -> int:
        """The frame that stands for the scan: the first that is not blank."""
        return next((index for index, frame in enumerate(self.frames) if not frame.blank), 0)

    @property
    def shown(self) -> FrameFacts:
        """What is known of that frame."""
        return self.frames[self.shown_frame]

    @property
    def messages(self) -> list[str]:
        """Alarms of the guard in any frame, each sentence once."""
        return list(dict.fromkeys(text for frame in self.frames for text in frame.guard.messages))

    @property
    def notices(self) -> list[str]:
        """Its notices, likewise."""
        return list(dict.fromkeys(text for frame in self.frames for text in frame.guard.notices))


class _Tail(Part):
    """What a sidecar ends with."""

    versions: Annotated[dict[str, str], _named("medddpm")]
    machine: dict[str, str] = Field(default_factory=dict)
    noise_files: NoiseFilesFacts = NoiseFilesFacts()
    reference: ReferenceFacts | None = None
    rounding: RoundingFacts | None = None
    output: OutputFacts | None = None


class Sidecar(_Tail, Facts, _Head):  # fields come in the order on disk: that of the last base first
    """All that is needed to do a restoration again, and what came out of it.

    Attributes:
        schema_version: Of these fields.
        statement: What the result is not.
        time: In UTC.
        input: The scan.
        run: How it was read and written.
        versions: Of this package, Python and what computes and reads.
        machine: What the last bits may depend on, beside versions.
        noise_files: What said how noisy the scan is.
        reference: Another contrast that helped, if there was one.
        rounding: What the number type cost; None for float32.
        output: What was written; None until it is.
    """


def write_sidecar(path: Path, sidecar: BidsFacts) -> None:
    """Write what was set of a sidecar, or of that of a map in a BIDS derivative, as JSON."""
    write_json(path, sidecar.model_dump(by_alias=True, exclude_unset=True))


def read_sidecar(path: Path) -> Sidecar:
    """The sidecar in a file.

    Raises:
        NoSidecarError: The file cannot be read, or is something else.
        VolumeReadError: It is of a newer release, or has a field that none has.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _none(path, "it is gone, or no JSON") from error
    told = content if isinstance(content, dict) and "statement" in content else {}
    version = told.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise VolumeReadError(
            f"{path} has schema_version {version}, and this release of medddpm reads up to "
            f"{SCHEMA_VERSION}; install a newer one"
        )
    try:
        return Sidecar.model_validate(content)
    except ValidationError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: ValidationError) -> VolumeReadError:
    """What is wrong first: with all of it, else a field of what is a sidecar otherwise."""
    found = {".".join(map(str, one["loc"])): one for one in error.errors()}
    wrong = {place: one for place, one in found.items() if one["type"] not in _UNKNOWN}
    for place, one in wrong.items():
        return _none(path, f"{place or 'all of it'}: {one['msg']}")
    return VolumeReadError(
        f"{path} has a field {next(iter(found))}, which no sidecar of schema {SCHEMA_VERSION} has; "
        "take it out"
    )


def _none(path: Path, why: str) -> NoSidecarError:
    return NoSidecarError(f"{path} is no sidecar of `medddpm restore`: {why}")
