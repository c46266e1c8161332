"""A reference from a file: another contrast of the person who was scanned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from medddpm.errors import ConfigError, VolumeReadError
from medddpm.io import Trust, read_volumes
from medddpm.io.dicom_values import value_of
from medddpm.io.provenance import describe_input, input_path, relative_path, source_files
from medddpm.io.sidecar import ReferenceFacts, WeightsFacts
from medddpm.reference.weights import SHIPPED, find_reference_weights
from medddpm.restoration.referenced import Reference
from medddpm.volume import Volume

_ANOTHER = "the reference has another PatientID than the scan: is it the same person?"


@dataclass(frozen=True)
class GivenReference:
    """A reference that was read, and the weights of the network that uses it.

    Attributes:
        reference: The scan with its network.
        weights: "reference", which is shipped, or a file of `medddpm train reference`.
    """

    reference: Reference
    weights: str | Path = SHIPPED

    @classmethod
    def read(
        cls, path: str | Path | None, weights: str | Path | None, trust: Trust | None = None
    ) -> GivenReference | None:
        """The one at this path; None where none was given.

        Args:
            path: A NIfTI or DICOM file, or a folder with one DICOM series.
            weights: As in `GivenReference`; the shipped ones if not given.
            trust: "sform" or "qform", where those of a NIfTI file disagree.

        Raises:
            ConfigError: There are weights without a reference.
            VolumeReadError: It cannot be read, or is several scans, 4D, blank or not finite.
            CheckpointError: The weights are missing or damaged.
        """
        if path is None:
            if weights is not None:
                raise ConfigError("--reference-weights goes with --reference; give that too")
            return None
        path, weights = Path(path), SHIPPED if weights is None else weights
        if not path.exists():
            raise VolumeReadError(f"the reference {path} does not exist")
        volumes = read_volumes(path, trust=trust)
        if len(volumes) != 1:
            raise VolumeReadError(
                f"the reference {path} holds {len(volumes)} scans; give one of them"
            )
        return cls(Reference.of(volumes[0], weights), weights)

    @property
    def files(self) -> list[Path]:
        """What it was read from."""
        return source_files(self.reference.volume)

    def facts(self, folder: Path) -> ReferenceFacts:
        """What a sidecar in a folder says of it; a DICOM folder, which may name people, is not."""
        volume = self.reference.volume
        path = find_reference_weights(self.weights)
        source = SHIPPED if str(self.weights) == SHIPPED else relative_path(path, folder)
        digest = self.reference.trained.digest
        weights = WeightsFacts(sha256=digest, name="reference", source=source)
        return ReferenceFacts(
            case_id=volume.case_id,
            format=volume.format,
            sha256=describe_input(volume).sha256,
            path=input_path(volume, folder),
            weights=weights,
        )

    def of(self, scan: Volume) -> Reference:
        """The reference, with a notice where DICOM says that the scan is of another person."""
        people = [_patient(volume) for volume in (self.reference.volume, scan)]
        if all(people) and people[0] != people[1]:
            return replace(self.reference, notices=(_ANOTHER,))
        return self.reference


def _patient(volume: Volume) -> str:
    """PatientID, "" where it is not known."""
    first = volume.native[0] if volume.format == "dicom" and volume.native else None
    return "" if first is None else str(value_of(first, "PatientID") or "").strip()


def recorded_reference(
    told: ReferenceFacts | None, sidecar: Path, given: Path | None, trust: Trust | None
) -> Reference | None:
    """The reference of a restoration that a sidecar describes; None if it had none.

    Args:
        told: What it says of the reference.
        sidecar: Where.
        given: Where the reference is now, if not where the sidecar says.
        trust: As it was read.

    Raises:
        VolumeReadError: It or its weights are gone or have changed, or it was never named.
    """
    if told is None:
        return None
    if given is None and told.path is None:
        raise VolumeReadError(f"{sidecar} does not say where the reference is; give --reference")
    path = sidecar.parent / (told.path or "") if given is None else given
    source = told.weights.source
    weights = SHIPPED if source == SHIPPED else sidecar.parent / source
    read = GivenReference.read(path, weights, trust)
    assert read is not None
    reference = read.reference
    found = (describe_input(reference.volume).sha256, reference.trained.digest)
    if found != (told.sha256, told.weights.sha256):
        what = f"the reference {path}" if found[0] != told.sha256 else "the reference network"
        raise VolumeReadError(
            f"{what} is not that of {sidecar.name}, or it has changed since; give --reference, or "
            "the same release of medddpm"
        )
    return reference
