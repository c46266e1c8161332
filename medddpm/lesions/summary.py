"""What became of lesions over all scans: means, d' and its ratio to other methods, with intervals.

Intervals are percentiles of a bootstrap in two stages: subjects, then lesions and lesion-free
places within each (Davison and Hinkley 1997, section 3.8). All methods are drawn alike, so their
ratios are paired. With a few subjects they are too narrow rather than too wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.lesions.observer import (
    OBSERVERS,
    area_under_curve,
    detectability,
    observer_scores,
)

Cell = Mapping[str, Any]
Line = dict[str, Any]
Values = NDArray[np.float64]

DRAWS = 500
_LEVEL = (2.5, 97.5)
COMPARED = ("contrast_kept", *(f"dprime_{observer}" for observer in OBSERVERS))
"""What each method is held against the others in."""


@dataclass(frozen=True)
class _Part:
    """Lesions of one size and contrast in one cell; numbers (N,), scores (N,) and (F,)."""

    kept: Values
    volume: Values
    scores: dict[str, tuple[Values, Values]]

    def draw(self, lesions: NDArray[np.int64], free: NDArray[np.int64]) -> _Part:
        """Some of the lesions and free places."""
        scores = {name: (a[lesions], b[free]) for name, (a, b) in self.scores.items()}
        return _Part(self.kept[lesions], self.volume[lesions], scores)


def summarise_lesions(
    cells: Sequence[Cell], subjects: Mapping[str, str], *, draws: int = DRAWS
) -> list[Line]:
    """One line a noise level, size, contrast and method.

    "contrast_kept" and "volume_kept" are means over lesions, as shares of the truth; "dprime_"
    and "auc_" with the name of an observer say how well it tells lesions from places without:
    means over scans and draws, since it knows which scan it sees. "_low" and "_high" bound their
    95 % intervals. "over" holds for each other method, and each of `COMPARED`, the ratio to it and
    its interval.

    Args:
        cells: As `lesion_trial.measure_lesions` gives them.
        subjects: Who each case is of.
        draws: Of the bootstrap.
    """
    lines: list[Line] = []
    sizes = list(
        dict.fromkeys(
            (cell["sigma"], row["diameter"], row["contrast"])
            for cell in cells
            for row in cell["lesions"]
        )
    )
    for sigma, diameter, contrast in sorted(sizes):
        groups: dict[tuple[str, str], dict[tuple[str, int], _Part]] = {}
        for cell in (c for c in cells if c["sigma"] == sigma):
            parts = groups.setdefault((cell["method"], cell["sigma_source"]), {})
            parts[cell["case"], cell["draw"]] = _part(cell, diameter, contrast)
        facts = {"sigma": sigma, "diameter": diameter, "contrast": contrast}
        lines += [facts | line for line in _lines(groups, subjects, draws)]
    return lines


def _lines(
    groups: dict[tuple[str, str], dict[tuple[str, int], _Part]],
    subjects: Mapping[str, str],
    draws: int,
) -> list[Line]:
    """The methods of one noise level, size and contrast."""
    keys = list(next(iter(groups.values())))
    truth = {name: _figures([parts[key] for key in keys]) for name, parts in groups.items()}
    found: dict[tuple[str, str], list[dict[str, float]]] = {name: [] for name in groups}
    rng = np.random.default_rng(0)
    first = next(iter(groups.values()))
    for _ in range(draws):
        picks = _picks(keys, first, subjects, rng)
        for name, parts in groups.items():
            found[name].append(_figures([parts[key].draw(a, b) for key, a, b in picks]))
    lines = []
    for name in groups:
        line: Line = {"method": name[0], "sigma_source": name[1]}
        line["lesions"] = sum(len(part.kept) for part in groups[name].values())
        line["scans"] = len({case for case, _ in keys})
        for figure, value in truth[name].items():
            low, high = interval([f[figure] for f in found[name]])
            line |= {figure: value, f"{figure}_low": low, f"{figure}_high": high}
        line["over"] = {
            method_name(*other): {
                figure: _ratio(name, other, figure, truth, found) for figure in COMPARED
            }
            for other in groups
            if other != name
        }
        lines.append(line)
    return lines


def method_name(method: str, source: str) -> str:
    """A method as tables call it: with where its sigma came from, if it had one."""
    return method if source == "none" else f"{method} ({source})"


def interval(values: Sequence[float] | Values) -> tuple[float | None, float | None]:
    """The 95 % percentile interval of bootstrap values; of those that are finite, if any."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return None, None
    low, high = np.percentile(known, _LEVEL)
    return float(low), float(high)


def _ratio(
    name: tuple[str, str],
    other: tuple[str, str],
    figure: str,
    truth: Mapping[tuple[str, str], dict[str, float]],
    found: Mapping[tuple[str, str], list[dict[str, float]]],
) -> list[float | None]:
    """The ratio of one figure to another method's, and its interval."""

    def share(mine: float, theirs: float) -> float:
        return mine / theirs if theirs > 0 else np.nan

    pairs = zip(found[name], found[other], strict=True)
    low, high = interval([share(a[figure], b[figure]) for a, b in pairs])
    middle = share(truth[name][figure], truth[other][figure])
    return [middle if np.isfinite(middle) else None, low, high]


def _picks(
    keys: Sequence[tuple[str, int]],
    parts: Mapping[tuple[str, int], _Part],
    subjects: Mapping[str, str],
    rng: np.random.Generator,
) -> list[tuple[tuple[str, int], NDArray[np.int64], NDArray[np.int64]]]:
    """Subjects with replacement, then lesions and free places of each of their cells."""
    people = sorted({subjects[case] for case, _ in keys})
    picks = []
    for index in rng.integers(len(people), size=len(people)):
        for key in (k for k in keys if subjects[k[0]] == people[index]):
            lesions, (_, free) = len(parts[key].kept), parts[key].scores[OBSERVERS[0]]
            picks.append(
                (key, rng.integers(lesions, size=lesions), rng.integers(len(free), size=len(free)))
            )
    return picks


def _part(cell: Cell, diameter: float, contrast: float) -> _Part:
    rows = [r for r in cell["lesions"] if (r["diameter"], r["contrast"]) == (diameter, contrast)]
    present, absent = (np.array([row[name] for row in rows]) for name in ("present", "absent"))
    signs = np.array([row["sign"] for row in rows], np.float64)
    free = np.array(cell["free"][f"{diameter:g}"])
    return _Part(
        np.array([row["contrast_kept"] for row in rows], np.float64),
        np.array([row["volume_kept"] for row in rows], np.float64),  # None becomes NaN
        {o: observer_scores(present, absent, signs, free, o) for o in OBSERVERS},
    )


def _figures(parts: Sequence[_Part]) -> dict[str, float]:
    figures = {"contrast_kept": float(np.mean(np.concatenate([p.kept for p in parts])))}
    volumes = np.concatenate([p.volume for p in parts])
    known = volumes[np.isfinite(volumes)]
    figures["volume_kept"] = float(known.mean()) if known.size else float("nan")
    for observer in OBSERVERS:
        scores = [part.scores[observer] for part in parts]
        figures[f"dprime_{observer}"] = float(np.mean([detectability(*pair) for pair in scores]))
        figures[f"auc_{observer}"] = float(np.mean([area_under_curve(*pair) for pair in scores]))
    return figures
