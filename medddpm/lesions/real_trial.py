"""The lesions that a clean scan has of its own, in the noisy scan and in the restored one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medddpm.benchmark.measure import Case
from medddpm.errors import ConfigError
from medddpm.lesions.real import RealLesion, find_lesions, lesion_rows
from medddpm.lesions.summary import DRAWS, interval
from medddpm.lesions.trial import (
    LesionOptions,
    Trial,
    restore_trial,
    tissue_mask,
    trial_facts,
)
from medddpm.restoration.restorer import Restorer

_FIGURES = (
    "contrast_noisy",
    "contrast_restored",
    "volume_noisy",
    "volume_restored",
    "cnr_clean",
    "cnr_noisy",
    "cnr_restored",
)


def find_own_lesions(case: Case, options: LesionOptions, draw: int) -> list[RealLesion]:
    """The bright lesions of a clean scan; the same for each draw.

    Raises:
        ConfigError: There is none.
    """
    image = case.volume.data / np.float32(case.scale)
    found = find_lesions(image, case.regions["foreground"], tissue_mask(case), case.volume.spacing)
    if not found:
        raise ConfigError(f"{case.volume.case_id}: no bright lesion of 3 mm or more was found")
    return found


def measure_own_lesions(
    case: Case,
    found: list[RealLesion],
    trial: Trial,
    options: LesionOptions,
    restorer: Restorer | None,
) -> dict[str, Any]:
    """Restore the scan with noise; what became of each of its lesions, ready for JSON.

    Args:
        case: The clean scan.
        found: Its lesions.
        trial: What is done.
        options: The run.
        restorer: Our model; only our own methods need it.

    Raises:
        ConfigError: Our model or another package is missing.
    """
    began = time.perf_counter()
    noisy, restored = restore_trial(case, case.volume.data, trial, options, restorer)
    facts = trial_facts(case, trial, restored, time.perf_counter() - began)
    clean = case.volume.data / np.float32(case.scale)
    rows = lesion_rows(clean, noisy, restored, found)
    places = [[(part.start + part.stop) // 2 for part in lesion.box] for lesion in found]
    lesions = [row | {"place": place} for row, place in zip(rows, places, strict=True)]
    return facts | {"lesions": lesions}


def summarise_own_lesions(
    cells: Sequence[Mapping[str, Any]], subjects: Mapping[str, str], *, draws: int = DRAWS
) -> list[dict[str, Any]]:
    """One line a noise level and method: means over the lesions, with 95 % intervals.

    A lesion counts once, with its mean over the draws of the noise. The bootstrap takes subjects
    with replacement, then lesions of each.

    Args:
        cells: As `measure_own_lesions` gives them.
        subjects: Who each case is of.
        draws: Of the bootstrap.
    """
    groups: dict[tuple[float, str, str], dict[tuple[str, int], list[list[float]]]] = {}
    for cell in cells:
        lesions = groups.setdefault((cell["sigma"], cell["method"], cell["sigma_source"]), {})
        for index, row in enumerate(cell["lesions"]):
            figures = [float(row[name]) for name in _FIGURES]
            lesions.setdefault((cell["case"], index), []).append(figures)
    lines = []
    for (sigma, method, source), lesions in sorted(groups.items(), key=lambda item: item[0][0]):
        people = [subjects[case] for case, _ in lesions]
        values = np.array([np.mean(rows, axis=0) for rows in lesions.values()])
        means = _bootstrap_means(values, people, draws)
        line: dict[str, Any] = {"sigma": sigma, "method": method, "sigma_source": source}
        line |= {"lesions": len(values), "scans": len({case for case, _ in lesions})}
        for column, name in enumerate(_FIGURES):
            low, high = interval(means[:, column])
            line |= {name: float(values[:, column].mean())}
            line |= {f"{name}_low": low, f"{name}_high": high}
        lines.append(line)
    return lines


def _bootstrap_means(values: Any, people: Sequence[str], draws: int) -> Any:
    """(draws, K) means of (N, K) values, drawn by person and then by lesion."""
    rng, names = np.random.default_rng(0), sorted(set(people))
    rows = {name: np.flatnonzero([person == name for person in people]) for name in names}
    means = []
    for _ in range(draws):
        chosen = [rows[names[i]] for i in rng.integers(len(names), size=len(names))]
        picks = np.concatenate([rng.choice(part, size=len(part)) for part in chosen])
        means.append(values[picks].mean(axis=0))
    return np.array(means)
