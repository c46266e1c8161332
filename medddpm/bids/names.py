"""Names of a BIDS data set: which scans it holds, and what their restored copies are called."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from medddpm.workflows.outputs import NIFTI_SUFFIXES, Target, file_stem

SUFFIXES = frozenset(
    {"T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio", "T2star"}
    | {"FLASH", "PD", "UNIT1", "MP2RAGE", "MEGRE", "MESE", "VFA", "IRT1", "MTR", "MPM", "TB1EPI"}
)
"""Suffixes of anatomical magnitude images (BIDS 1.10, "Magnetic Resonance Imaging", anat)."""


def is_bids(folder: Path) -> bool:
    """True if the folder is the root of a BIDS data set."""
    return (folder / "dataset_description.json").is_file() and any(folder.glob("sub-*"))


def find_bids_scans(
    root: Path, subjects: Collection[str] = (), sessions: Collection[str] = ()
) -> list[Path]:
    """The anatomical magnitude scans of a data set, sorted.

    Args:
        root: The data set.
        subjects: Labels without "sub-"; all if none is given.
        sessions: Labels without "ses-"; all, and scans without session, if none is given.
    """
    found = []
    for pattern in ("sub-*/anat/*", "sub-*/ses-*/anat/*"):
        for path in root.glob(pattern):
            known = entities(file_stem(path))
            if (
                path.name.endswith(NIFTI_SUFFIXES)
                and known["suffix"] in SUFFIXES
                and known.get("part", "mag") == "mag"
                and (not subjects or known.get("sub") in subjects)
                and (not sessions or known.get("ses") in sessions)
            ):
                found.append(path)
    return sorted(found)


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
