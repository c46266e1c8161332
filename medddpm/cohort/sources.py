"""Which scans a source holds: a folder of NIfTI, a BIDS data set, a DICOM tree or a manifest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medddpm.cohort.bids.names import find_bids_scans, is_bids, output_stem, reasons
from medddpm.errors import ConfigError, ContentAbsentError, MedddpmError
from medddpm.io import find_images, find_series, why_left_out
from medddpm.io.files import first_twin, is_absent
from medddpm.io.image_files import images_of, parts_of
from medddpm.io.nifti import suffix_of
from medddpm.io.outputs import file_stem, refuse_inputs
from medddpm.io.tables import is_table, read_table

_LABEL = "desc-denoised"


@dataclass(frozen=True)
class Job:
    """One scan to restore: one file, or the files of one DICOM series.

    Attributes:
        name: Unique in its source, without patient data; also where its outputs go.
        files: What is read, absolute.
        folder: Of its outputs, relative to that of the cohort.
        stem: Name of its outputs without suffix; "" names them by series, as `restore` does.
        bids: Path relative to the data set, for a scan of a BIDS data set.
    """

    name: str
    files: tuple[Path, ...]
    folder: str = ""
    stem: str = ""
    bids: str = ""

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that stand for the name."""
        return hashlib.sha256(self.name.encode(errors="surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class Found:
    """The scans of a source, and what in it cannot be read at all.

    Attributes:
        jobs: By name.
        broken: Name to reason, such as a DICOM file that is cut short.
        left_out: Images that are no scans to restore, and why.
    """

    jobs: list[Job]
    broken: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)


def find_jobs(source: Path, out: Path) -> Found:
    """The scans of `source`.

    Args:
        source: A folder of NIfTI or MGH files and DICOM series (searched through), a BIDS data
            set (its anatomical scans), or a CSV with a column `file`.
        out: Where outputs will go; not inside a source that is searched through.

    Raises:
        ConfigError: There is no such source, or no scan in it, or two scans have one output.
        OutputError: An output would replace an input.
    """
    source, out = source.absolute(), out.absolute()
    broken: dict[str, str] = {}
    left_out: dict[str, str] = {}
    if is_table(source):
        jobs = list(_listed(source))
        refuse_inputs(_outputs(jobs, out), [source, *(p for job in jobs for p in job.files)])
    elif not source.is_dir():
        raise ConfigError(f"{source} is neither a folder nor a CSV with a column 'file'")
    elif is_bids(source):
        check_root(source, out)
        found = find_bids_scans(source)
        jobs = [bids_job(source, path) for path in found.scans]
        left_out = found.left_out
    else:
        if source.resolve() in (out.resolve(), *out.resolve().parents):
            raise ConfigError(f"{out} lies in {source}: what was restored would be restored again")
        jobs, broken, left_out = _series_jobs(source)
        jobs += file_jobs((p.relative_to(source), p) for p in _images(source))
    if not jobs and not broken:
        why = "; ".join(["", *reasons(left_out)])
        raise ConfigError(f"{source} holds no NIfTI, MGH or DICOM scan to restore{why}")
    refuse_meeting(jobs, out)
    return Found(sorted(jobs, key=lambda job: job.name), broken, left_out)


def check_root(raw: Path, out: Path) -> None:
    """Raise ConfigError if a derivative would be written among its raw data."""
    if raw.resolve() == out.resolve():
        raise ConfigError(
            f"{out} is the raw data set itself, and what was restored would be restored again; "
            f"write to {out / 'derivatives' / 'medddpm'}"
        )


def refuse_meeting(jobs: Iterable[Job], out: Path) -> None:
    """Raise ConfigError if two scans have one output, as the file system of `out` sees names."""
    twin = first_twin((str(Path(job.folder) / (job.stem or job.name)) for job in jobs), out)
    if twin is not None:
        raise ConfigError(f"two scans would both be written to {twin}; rename one")


def _outputs(jobs: Iterable[Job], out: Path) -> Iterator[Path]:
    """What the scans of a list may replace, and the tables of the cohort."""
    yield from (out / name for name in ("cohort.csv", "cohort.json", "cohort.html"))
    for job in jobs:
        yield from (out / job.folder / f"{job.stem}{s}" for s in ("", ".nii.gz", ".json", ".html"))


def bids_job(root: Path, path: Path) -> Job:
    """The job of one scan of a BIDS data set."""
    relative = path.relative_to(root)
    stem = file_stem(path)
    return Job(
        name=str(relative.parent / stem),
        files=(path,),
        folder=str(relative.parent),
        stem=output_stem(stem),
        bids=relative.as_posix(),
    )


def file_jobs(files: Iterable[tuple[Path, Path]]) -> list[Job]:
    """Jobs of (path relative to the source, path); scans that share a stem keep their suffix."""
    pairs = list(files)
    stems = Counter(relative.parent / file_stem(relative) for relative, _ in pairs)
    jobs = []
    for relative, path in pairs:
        unique = stems[relative.parent / file_stem(relative)] == 1
        stem = file_stem(relative) if unique else relative.name
        folder = "" if str(relative.parent) == "." else str(relative.parent)
        name = str(relative.parent / stem)
        jobs.append(Job(name, parts_of(path), folder=folder, stem=f"{stem}_{_LABEL}"))
    return jobs


def _images(folder: Path) -> Iterator[Path]:
    yield from (path for path in find_images(folder) if _LABEL not in path.name)


def _series_jobs(source: Path) -> tuple[list[Job], dict[str, str], dict[str, str]]:
    """Series of a DICOM tree; messages name no file, since its name may name a patient."""
    broken: dict[str, str] = {}

    def keep(error: MedddpmError) -> None:
        digest = hashlib.sha256(str(error).encode(errors="surrogateescape")).hexdigest()[:12]
        text = str(error)
        if isinstance(error, ContentAbsentError):
            text = (
                "the content of DICOM files of a folder was not fetched (`datalad get` or `git "
                "annex get` does it), or was moved away; `medddpm info` names it"
            )
        elif not text.startswith("series "):
            text = f"a DICOM file is damaged ({type(error).__name__}); `medddpm info` names it"
        broken[f"unreadable-{digest}"] = text

    jobs: list[Job] = []
    left_out: dict[str, str] = {}
    for item in find_series(source, keep):
        why = why_left_out(item.files)
        if why:
            left_out[item.tag] = why
        else:
            jobs.append(Job(name=item.tag, files=item.files))
    return jobs, broken, left_out


def _listed(manifest: Path) -> Iterator[Job]:
    """Jobs of a CSV; a scan that it leaves out (no file) is left out here."""
    rows = [row for row in read_table(manifest, ("file",), "the list") if row["file"]]
    names = [row.get("scan") or file_stem(Path(row["file"])) for row in rows]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice:
        raise ConfigError(f"{manifest} names two scans {twice!r}; add a column 'scan' of names")
    for name, row in zip(names, rows, strict=True):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ConfigError(f"{manifest}: {name!r} cannot name an output")
        folder, stem = str(Path(name).parent), f"{Path(name).name}_{_LABEL}"
        files = _files_of(row.path(manifest.parent), f"{manifest}, line {row.number}")
        yield Job(name, files, folder="" if folder == "." else folder, stem=stem)


def _files_of(path: Path, what: str) -> tuple[Path, ...]:
    """The files of one scan: an image, or all of a folder of DICOM files."""
    if not path.is_dir():
        return parts_of(path)
    files = tuple(sorted(p for p in path.iterdir() if p.is_file() or is_absent(p)))
    if images_of(p for p in files if suffix_of(p)):
        raise ConfigError(f"{what} names a folder of NIfTI files; give each file a line of its own")
    if not files:
        raise ConfigError(f"{what} names a folder without files")
    return files
