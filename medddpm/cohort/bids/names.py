"""Names of a BIDS data set: which scans it holds, and what their restored copies are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from medddpm.errors import ConfigError
from medddpm.io.outputs import NIFTI_SUFFIXES, Target, file_stem

SUFFIXES = frozenset(
    {"T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio", "T2star"}
    | {"FLASH", "PD", "UNIT1", "MP2RAGE", "MEGRE", "MESE", "VFA", "IRT1", "MTR", "MPM", "MTS"}
    | {"TB1EPI"}
)
"""Suffixes of anatomical images (BIDS 1.10, schema/rules/files/raw/anat.yaml)."""
MAPS = frozenset(
    {"T1map", "T2map", "T2starmap", "R1map", "R2map", "R2starmap", "PDmap", "MTRmap", "MTsat"}
    | {"T1rho", "MWFmap", "MTVmap", "Chimap", "S0map", "M0map"}
)
"""Suffixes of quantitative maps, which are computed and have no noise of magnitude."""


@dataclass(frozen=True)
class BidsScans:
    """The images of a data set.

    Attributes:
        scans: Anatomical magnitude scans, sorted.
        left_out: Other images in folders `anat`, relative to the data set, and why.
    """

    scans: list[Path]
    left_out: dict[str, str]


def is_bids(folder: Path) -> bool:
    """True if the folder is the root of a BIDS data set."""
    return (folder / "dataset_description.json").is_file() and any(folder.glob("sub-*"))


def find_bids_scans(
    root: Path, subjects: Collection[str] = (), sessions: Collection[str] = ()
) -> BidsScans:
    """The anatomical magnitude scans of a data set, and what in its folders `anat` is none.

    Args:
        root: The data set.
        subjects: Labels without "sub-"; all if none is given.
        sessions: Labels without "ses-"; all, and scans without session, if none is given.

    Raises:
        ConfigError: A scan is there twice, as .nii and as .nii.gz.
    """
    scans: dict[Path, Path] = {}
    left_out: dict[str, str] = {}
    for path in sorted(p for n in ("sub-*/anat", "sub-*/ses-*/anat") for p in root.glob(f"{n}/*")):
        known, place = entities(file_stem(path)), path.parent / file_stem(path)
        if not path.name.endswith(NIFTI_SUFFIXES) or path.name.startswith("."):
            continue
        if subjects and known.get("sub") not in subjects:
            continue
        if sessions and known.get("ses") not in sessions:
            continue
        reason = why_not(known)
        if reason:
            left_out[path.relative_to(root).as_posix()] = reason
        elif place in scans:
            raise ConfigError(
                f"{root} has {path.relative_to(root)} and {scans[place].name}, one name for two "
                "files; take one of them out"
            )
        else:
            scans[place] = path
    return BidsScans(sorted(scans.values()), left_out)


def why_not(known: Mapping[str, str]) -> str:
    """Why an image with these entities is not restored; "" if it is."""
    part = known.get("part", "mag")
    if part != "mag":
        return f"part-{part} is no magnitude image"
    if known["suffix"] in MAPS:
        return f"{known['suffix']} is a quantitative map, without noise of a known law"
    if known["suffix"] == "defacemask":
        return "defacemask is a mask, and no scan"
    return "" if known["suffix"] in SUFFIXES else f"{known['suffix']} is no anatomical suffix"


def reasons(left_out: Mapping[str, str]) -> list[str]:
    """Lines that say how many images were left out, and why."""
    counts = Counter(left_out.values())
    return [f"left out, {count} x: {reason}" for reason, count in sorted(counts.items())]


def entities(stem: str) -> dict[str, str]:
    """The entities of a file name, such as {"sub": "01", "run": "2", "suffix": "T1w"}."""
    *pairs, suffix = stem.split("_")
    return dict(pair.split("-", 1) for pair in pairs if "-" in pair) | {"suffix": suffix}


def output_stem(stem: str, label: str = "denoised") -> str:
    """The name of a derived scan.

    Example:
        >>> output_stem("sub-01_run-1_T1w")
        'sub-01_run-1_desc-denoised_T1w'
    """
    *pairs, suffix = stem.split("_")
    kept = [pair for pair in pairs if not pair.startswith("desc-")]
    return "_".join([*kept, f"desc-{label}", suffix])


@dataclass(frozen=True)
class BidsTarget(Target):
    """The outputs of one scan, with maps named `desc-denoisedstd` and so on."""

    def part(self, name: str) -> Path:
        """A map that belongs to the scan."""
        return self.folder / f"{output_stem(self.stem, f'denoised{name}')}{self.suffix}"
