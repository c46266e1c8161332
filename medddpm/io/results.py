"""Find again what a restoration wrote and what it read, from its sidecar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medddpm.errors import ConfigError, MedddpmError, NoSidecarError, VolumeReadError
from medddpm.io import Trust, checksum, read_volume, read_volumes
from medddpm.io.complex_files import ComplexFiles
from medddpm.io.outputs import file_stem
from medddpm.io.provenance import describe_input, output_checksum
from medddpm.io.sidecar import PhaseFacts, Sidecar, read_sidecar
from medddpm.volume import ComplexVolume, Volume


@dataclass(frozen=True)
class Result:
    """A restored scan on disk: its sidecar, and what that says."""

    sidecar: Path
    facts: Sidecar = field(repr=False)

    @property
    def stem(self) -> str:
        """Name of the result without suffixes."""
        return self.sidecar.name.removesuffix(".json")

    @property
    def image(self) -> Path:
        """The restored NIfTI file, or the folder of DICOM files.

        Raises:
            VolumeReadError: It is gone.
        """
        places = [self.sidecar.with_name(self.stem + s) for s in (".nii.gz", ".nii", "")]
        there = [path for path in places if path.exists()]
        for path in sorted(there, key=lambda path: self.recorded(path.name) is None):
            return path
        raise VolumeReadError(f"the restored scan of {self.sidecar} is gone; restore it again")

    def read(self) -> Volume:
        """The restored scan; VolumeReadError if it is gone or is not what was written."""
        path = self.image
        self._check_unchanged(path)
        return read_volume(path, force=True, trust=self.trust)

    @property
    def trust(self) -> Trust | None:
        """Which form was trusted, where those of the scan disagree."""
        return self.facts.run.trust

    def read_map(self, name: str) -> Volume | None:
        """A map of an ensemble such as "std"; None if there is none, or nothing was restored."""
        if all(frame.sigma.method == "none" for frame in self.facts.frames):
            return None
        for file in self.map_files(name):
            path = self.sidecar.with_name(file)
            if path.is_file():
                self._check_unchanged(path)
                return read_volume(path, force=True, trust=self.trust)
        return None

    def map_files(self, name: str) -> list[str]:
        """What the file of a map is, or in older sidecars may be, called."""
        told = self.facts.output and self.facts.output.maps.get(name)
        return [told] if told else [f"{self.stem}_{name}{s}" for s in (".nii.gz", ".nii", ".dcm")]

    def recorded(self, file: str) -> str | None:
        """The checksum of a file as it was written; None where the sidecar does not say."""
        output = self.facts.output
        return output.files.get(file) if output and output.files else None

    def _check_unchanged(self, path: Path) -> None:
        written = self.recorded(path.name)
        if written is not None and output_checksum(path) != written:
            raise VolumeReadError(
                f"{path} is not what its sidecar describes: it has changed since it was written; "
                "restore the scan again"
            )


def find_results(paths: Sequence[Path]) -> list[Result]:
    """The results that the paths name, each once.

    Args:
        paths: Restored scans, sidecars, or folders that hold some at any depth.

    Raises:
        ConfigError: There is none.
        VolumeReadError: A path does not exist, or has no sidecar.
    """
    found: dict[Path, Result] = {}
    for path in paths:
        for result in _results(path):
            found.setdefault(result.sidecar.resolve(), result)
    if not found:
        named = ", ".join(str(path) for path in paths) or "nothing"
        raise ConfigError(
            f"no result of `medddpm restore` in {named}; a result is a scan with a .json beside it"
        )
    return list(found.values())


def read_result(sidecar: Path) -> Result:
    """The result that a sidecar describes; errors as of `read_sidecar`."""
    return Result(sidecar, read_sidecar(sidecar))


def find_source(result: Result, given: Path | None = None) -> Volume:
    """The scan that was restored, found by its path and known by its checksum.

    Of one that was restored with its phase it is the magnitude; see `find_complex_source`.

    Args:
        result: Its sidecar names the input, relative to itself; DICOM input it does not name,
            since folders of DICOM often carry names of patients.
        given: Where to look instead: a scan, or a folder of DICOM series.

    Raises:
        VolumeReadError: The scan is gone, has changed, or was never named.
    """
    path, what = _source_path(result, given)
    if result.facts.input.phase is not None:
        return find_complex_source(result, given).magnitude
    expected = result.facts.input.sha256
    sums = []
    bad: list[MedddpmError] = []  # other series of a folder
    for volume in read_volumes(path, force=True, trust=result.trust, on_error=bad.append):
        sums.append(describe_input(volume).sha256)
        if sums[-1] == expected:
            return replace(volume, case_id=result.facts.input.case_id)
    raise VolumeReadError(
        f"{path} is not {what}, or it has changed since: SHA-256 {', '.join(map(str, sums))}, "
        f"expected {expected}{f'; {len(bad)} series cannot be read: {bad[0]}' if bad else ''}"
    )


def find_complex_source(result: Result, given: Path | None = None) -> ComplexVolume:
    """The scan with its phase that was restored, each file known by its checksum.

    Args:
        result: Its sidecar names both files, relative to itself.
        given: Where the scan is now; its second file is looked for beside it, too.

    Raises:
        VolumeReadError: A file is gone, or has changed.
    """
    path, what = _source_path(result, given)
    told = result.facts.input.phase
    if told is not None and result.facts.input.format == "dicom":
        return _complex_series(result, path, told)
    files, expected = ComplexFiles(path), {path: result.facts.input.sha256}
    if told is not None and told.file is not None:
        places = [] if told.file.path is None else [result.sidecar.parent / told.file.path]
        places += [] if given is None else [given.with_name(told.file.file)]
        second = next((place for place in places if place.is_file()), None)
        if second is None:
            raise VolumeReadError(
                f"the {told.given_as} of {what}, {told.file.file}, is gone; put it where it was, "
                "or beside the scan that --source names"
            )
        files = replace(files, **{told.given_as: second})
        expected[second] = told.file.sha256
    for file, before in expected.items():
        if checksum([file]) != before:
            raise VolumeReadError(f"{file} has changed since {result.stem} was restored from it")
    scan, _ = files.read(result.trust)
    return replace(scan, real=replace(scan.real, case_id=result.facts.input.case_id))


def _complex_series(result: Result, path: Path, told: PhaseFacts) -> ComplexVolume:
    """Both DICOM series of a scan, each known by its checksum, below one folder."""
    second = "" if told.file is None else told.file.sha256
    bad: list[MedddpmError] = []  # other series of the folder
    series = {
        describe_input(volume).sha256: volume
        for volume in read_volumes(path, force=True, on_error=bad.append)
    }
    expected = (result.facts.input.sha256, second)
    if any(digest not in series for digest in expected):
        raise VolumeReadError(
            f"{path} does not hold both series that {result.stem} was restored from, or they have "
            "changed since; give the folder above both with --source"
        )
    files = ComplexFiles(path, **{told.given_as: path})
    scan, _ = files.joined(*(series[digest] for digest in expected))
    return replace(scan, real=replace(scan.real, case_id=result.facts.input.case_id))


def _source_path(result: Result, given: Path | None) -> tuple[Path, str]:
    """Where the scan is that was restored, and what messages call it."""
    path, what = given, f"the scan that {result.stem} was restored from"
    if path is None:
        named = result.facts.input.path
        if named is None:
            raise VolumeReadError(f"the sidecar does not say where {what} is; give --source")
        path = result.sidecar.parent / named
    if not path.exists():
        raise VolumeReadError(f"{what} is gone: {path} does not exist; give --source")
    return path, what


def _results(path: Path) -> list[Result]:
    """The results that a path stands for."""
    path = path if path.name not in ("", "..") else path.resolve()  # ".", "/": they have no name
    if not path.exists():
        raise VolumeReadError(f"{path} does not exist")
    if path.suffix == ".json":
        return [read_result(path)]
    stem = file_stem(path) if path.is_file() else path.name
    beside = path.parent / f"{stem}.json"
    own = _result(beside)
    if own is not None and (path.is_file() or _is_series(own, path)):
        return [own]
    if path.is_file():
        raise VolumeReadError(f"{path} has no sidecar {beside.name} beside it: it is no result")
    sidecars = sorted(path.rglob("*.json"))
    return [result for p in sidecars if (result := _result(p)) is not None]


def _result(sidecar: Path) -> Result | None:
    """The same as `read_result`; None of a file that is no sidecar."""
    try:
        return read_result(sidecar)
    except NoSidecarError:
        return None


def _is_series(result: Result, folder: Path) -> bool:
    """Whether a folder is what a sidecar of its name describes, not that of other results."""
    files = result.facts.output and result.facts.output.files
    return result.image == folder if files is None else folder.name in files
