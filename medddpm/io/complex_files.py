"""A scan with its phase, from one file of complex numbers or from two files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medddpm.errors import ConfigError, VolumeReadError
from medddpm.io.files import checksum
from medddpm.io.nifti import is_complex_nifti, read_complex_nifti, read_nifti, suffix_of
from medddpm.io.nifti_forms import Trust
from medddpm.io.phase_units import phase_units
from medddpm.io.provenance import relative_path
from medddpm.io.sidecar import FileFacts, PhaseFacts
from medddpm.volume import ComplexVolume


@dataclass(frozen=True)
class ComplexFiles:
    """The files of a scan with its phase.

    Attributes:
        scan: The magnitude, the real part, or a file of complex numbers.
        phase: Beside a magnitude.
        imaginary: Beside a real part.
    """

    scan: Path
    phase: Path | None = None
    imaginary: Path | None = None

    @classmethod
    def of(
        cls, scan: Path, phase: Path | None = None, imaginary: Path | None = None
    ) -> ComplexFiles | None:
        """These files; None where nothing says that the scan has a phase.

        Raises:
            ConfigError: They do not belong together.
        """
        second = phase or imaginary
        if second is None:
            return cls(scan) if is_complex_nifti(scan) else None
        if phase is not None and imaginary is not None:
            raise ConfigError(
                "--phase belongs to a magnitude, --imaginary to a real part; give one"
            )
        if not suffix_of(scan):
            raise ConfigError(
                f"{scan} is no NIfTI file; --phase and --imaginary are the second file of one scan"
            )
        if is_complex_nifti(scan):
            raise ConfigError(f"{scan} holds complex numbers, and so its phase; give it alone")
        return cls(scan, phase, imaginary)

    @property
    def second(self) -> Path | None:
        """The file beside the scan."""
        return self.phase or self.imaginary

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [self.scan, *([self.second] if self.second is not None else [])]

    def read(self, trust: Trust | None = None) -> tuple[ComplexVolume, str | None]:
        """The scan, and what the values of its phase were taken for, in words.

        Args:
            trust: "sform" or "qform", where those of a file disagree.

        Raises:
            VolumeReadError: A file cannot be read, a magnitude is negative, or a phase is none.
            GeometryError: The two lie on different grids.
            ShapeError: They have different numbers of frames.
        """
        if self.second is None:
            return read_complex_nifti(self.scan, trust=trust), None
        first, second = (read_nifti(path, trust=trust) for path in self.paths)
        if self.imaginary is not None:
            return ComplexVolume(first, second), None
        if first.data.min() < 0:
            raise VolumeReadError(
                f"{self.scan} has negative values (down to {first.data.min():.4g}), which no "
                "magnitude has; a real part goes with --imaginary"
            )
        units = phase_units(second.data, str(self.phase))
        radians = second.with_data(units.radians(second.data))
        return ComplexVolume.of_phase(first, radians), units.words

    def facts(self, units: str | None, folder: Path) -> PhaseFacts:
        """What a sidecar in a folder says of the phase."""
        if self.second is None:
            return PhaseFacts(given_as="complex")
        file = FileFacts(
            file=self.second.name,
            sha256=checksum([self.second]),
            path=relative_path(self.second, folder),
        )
        if self.imaginary is not None:
            return PhaseFacts(given_as="imaginary", file=file)
        return PhaseFacts(given_as="phase", units=units, file=file)
