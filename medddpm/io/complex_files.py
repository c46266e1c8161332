"""A scan with its phase, from one file of complex numbers, two files, or two DICOM series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medddpm.errors import ConfigError, VolumeReadError
from medddpm.io.dicom import read_dicom
from medddpm.io.dicom_kind import Component, component_of
from medddpm.io.files import check_there, checksum
from medddpm.io.nifti import is_complex_nifti, read_complex_nifti, read_nifti, suffix_of
from medddpm.io.nifti_forms import Trust
from medddpm.io.phase_units import phase_units
from medddpm.io.provenance import describe_input, relative_path
from medddpm.io.sidecar import FileFacts, PhaseFacts
from medddpm.volume import ComplexVolume, Volume


@dataclass(frozen=True)
class ComplexFiles:
    """The files of a scan with its phase.

    Attributes:
        scan: The magnitude, the real part, or a file of complex numbers; of DICOM a file or folder
            of the series, which may hold the other one too.
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
        if bool(suffix_of(scan)) != bool(suffix_of(second)):
            other = second if suffix_of(scan) else scan
            raise ConfigError(
                f"{other} is no NIfTI file, and the other of the two is one; give two NIfTI files, "
                "or two DICOM series"
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
        if not suffix_of(self.scan):
            return self.joined(*(self._series(number) for number in (0, 1)))
        first, second = (read_nifti(path, trust=trust) for path in self.paths)
        return self.joined(first, second)

    def joined(self, first: Volume, second: Volume) -> tuple[ComplexVolume, str | None]:
        """The scan of its two parts, and what the values of its phase were taken for.

        Args:
            first: Magnitude or real part.
            second: Phase or imaginary part.

        Raises:
            VolumeReadError: A magnitude is negative, or a phase is none.
        """
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

    def _series(self, number: int) -> Volume:
        """The DICOM series of the first or the second part, known by what its headers say.

        Raises:
            VolumeReadError: There is none, or there are several.
        """
        names: tuple[Component, Component] = ("magnitude", "phase")
        if self.imaginary is not None:
            names = ("real part", "imaginary part")
        path = self.paths[min(number, len(self.paths) - 1)]
        check_there(path)
        found = [v for v in read_dicom(path) if component_of(v) == names[number]]
        if len(found) != 1:
            raise VolumeReadError(
                f"{path} holds {len(found) or 'no'} DICOM series that shows the {names[number]}; "
                "give a folder with one"
            )
        return found[0]

    def facts(self, units: str | None, folder: Path) -> PhaseFacts:
        """What a sidecar in a folder says of the phase."""
        if self.second is None:
            return PhaseFacts(given_as="complex")
        if suffix_of(self.second):
            place = relative_path(self.second, folder)
            file = FileFacts(file=self.second.name, sha256=checksum([self.second]), path=place)
        else:  # names of DICOM folders may name patients
            told = describe_input(self._series(1)).sha256 or ""
            file = FileFacts(file="dicom", sha256=told)
        if self.imaginary is not None:
            return PhaseFacts(given_as="imaginary", file=file)
        return PhaseFacts(given_as="phase", units=units, file=file)
