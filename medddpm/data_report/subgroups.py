"""Is a group of scans restored worse than the others? Bootstrap over subjects, corrected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medddpm.benchmark.figures import method_label
from medddpm.data.manifest import ScanRow
from medddpm.data_report.groups import CONTRAST, VARIABLES, Variable
from medddpm.metrics.bootstrap import bootstrap_interval

Row = Mapping[str, Any]
Verdict = Literal[
    "worse", "better", "no clear difference", "too few to tell", "no others to compare with"
]
Values = NDArray[np.float64]

MIN_SUBJECTS = 5
"""A group with fewer subjects, or with fewer others to compare with, gets no verdict."""
CONFIDENCE = 0.95
_DRAWS = 2000
_ROUNDING = 1e-9
"""Equal scores have no spread, and means that differ in the last bits."""


@dataclass(frozen=True)
class Score:
    """How well one scan was restored."""

    scan: ScanRow
    value: float


@dataclass(frozen=True)
class GroupQuality:
    """How well one group was restored, and the rest.

    Attributes:
        variable: Such as "sex".
        group: Such as "F".
        subjects: In the group.
        others: Subjects that have scans outside it.
        scans: In the group.
        mean: Of its subjects.
        interval: Of that mean, 95 %; None below `MIN_SUBJECTS`.
        difference: Mean of the group less that of the rest; None if there is no rest.
        difference_interval: Of it, 95 % for all groups of the table together; None where there
            are too few subjects.
        same_contrast: The difference when each scan is compared with those of its contrast; None
            for the contrast itself, and where there is no difference.
        verdict: In words.
    """

    variable: str
    group: str
    subjects: int
    others: int
    scans: int
    mean: float
    interval: tuple[float, float] | None
    difference: float | None
    difference_interval: tuple[float, float] | None
    same_contrast: float | None
    verdict: Verdict


@dataclass(frozen=True)
class MethodQuality:
    """One method's restorations, by group.

    Attributes:
        method: As the benchmark names it.
        sigmas: Noise levels that each score is the mean over.
        metric: "psnr" or "ssim".
        scans: That were scored.
        subjects: That they are of.
        incomplete: Scans that lack a noise level, or a finite number, and were set aside.
        comparisons: Groups that the intervals of the differences are corrected for.
        groups: In the order of the page.
    """

    method: str
    sigmas: tuple[float, ...]
    metric: str
    scans: int
    subjects: int
    incomplete: int
    comparisons: int
    groups: list[GroupQuality]

    @property
    def worse(self) -> list[GroupQuality]:
        """The groups that are flagged."""
        return [group for group in self.groups if group.verdict == "worse"]


def compare_groups(
    rows: Iterable[tuple[ScanRow, Row]], metric: str, *, seed: int = 0
) -> list[MethodQuality]:
    """For each method but "identity", which is the noisy scan, the quality of each group.

    The score of a scan is its mean over the noise levels. Scans of one subject are not
    independent: a subject counts once in a group, with the mean of its scans there, and the
    bootstrap draws subjects.

    Args:
        rows: Of a benchmark, each with the scan that it is of.
        metric: A column in which more is better.
        seed: Of the bootstrap.
    """
    methods: dict[str, list[tuple[ScanRow, Row]]] = {}
    for scan, row in rows:
        if row["method"] != "identity":
            methods.setdefault(method_label(row), []).append((scan, row))
    return [_method_quality(name, mine, metric, seed) for name, mine in methods.items()]


def _method_quality(
    method: str, rows: Sequence[tuple[ScanRow, Row]], metric: str, seed: int
) -> MethodQuality:
    sigmas = tuple(sorted({row["sigma"] for _, row in rows}))
    scans = {scan.scan: scan for scan, _ in rows}
    values: dict[str, dict[float, float]] = {}
    for scan, row in rows:
        values.setdefault(scan.scan, {})[row["sigma"]] = row[metric]
    scores = [
        Score(scans[name], float(np.mean(list(found.values()))))
        for name, found in sorted(values.items())
        if len(found) == len(sigmas) and np.isfinite(list(found.values())).all()
    ]
    groups, comparisons = group_qualities(scores, seed=seed)
    subjects = len({score.scan.subject for score in scores})
    set_aside = len(values) - len(scores)
    return MethodQuality(
        method, sigmas, metric, len(scores), subjects, set_aside, comparisons, groups
    )


def group_qualities(
    scores: Sequence[Score], *, variables: Sequence[Variable] = VARIABLES, seed: int = 0
) -> tuple[list[GroupQuality], int]:
    """Each group against the rest, and how many of them could be compared.

    Intervals of differences are the difference plus or minus a quantile of Student's t times the
    bootstrap's standard error (Efron and Tibshirani 1993, ch. 12), which is scaled by
    sqrt(n / (n - 1)), with n subjects on the smaller side and n - 1 degrees of freedom (Hesterberg
    2015, sec. 5: percentile intervals are too narrow for small n), and not below that of a spread
    common to both sides. The level is Bonferroni's for all groups that are compared.

    Args:
        scores: One a scan.
        variables: What scans are grouped by.
        seed: Of the bootstrap.
    """
    if not scores:
        return [], 0
    subjects = {name: n for n, name in enumerate(sorted({s.scan.subject for s in scores}))}
    who = np.array([subjects[s.scan.subject] for s in scores], dtype=np.int64)
    values = np.array([s.value for s in scores], dtype=np.float64)
    centred = values - _means_of(values, [CONTRAST.group(s.scan) for s in scores])
    cells = []
    for variable in variables:
        labels = np.array([variable.group(s.scan) for s in scores])
        for group in _ordered(labels, who, variable):
            cells.append(_Cell(variable, group, labels == group, who, len(subjects)))
    comparisons = sum(cell.comparable for cell in cells)
    level = 1 - (1 - CONFIDENCE) / max(comparisons, 1)
    rng = np.random.default_rng(seed)
    n = len(subjects)
    draws = rng.multinomial(n, np.full(n, 1 / n), size=_DRAWS).astype(np.float64)
    return [cell.quality(values, centred, draws, level) for cell in cells], comparisons


@dataclass(frozen=True)
class _Cell:
    """One group: which scans are in it, and whose scans they all are."""

    variable: Variable
    group: str
    member: NDArray[np.bool_]
    who: NDArray[np.int64]
    num_subjects: int

    @property
    def sizes(self) -> tuple[int, int]:
        """Subjects with scans in the group, and with scans outside it."""
        return len(set(self.who[self.member])), len(set(self.who[~self.member]))

    @property
    def comparable(self) -> bool:
        """Enough subjects on both sides."""
        return min(self.sizes) >= MIN_SUBJECTS

    def sides(self, values: Values) -> tuple[Values, Values]:
        """Each subject's mean (subjects,) in the group and outside it; NaN where it has none."""
        return tuple(  # type: ignore[return-value]
            _subject_means(values[side], self.who[side], self.num_subjects)
            for side in (self.member, ~self.member)
        )

    def quality(self, values: Values, centred: Values, draws: Values, level: float) -> GroupQuality:
        """The line of the table."""
        inside, rest = self.sides(values)
        subjects, others = self.sizes
        mine = inside[np.isfinite(inside)]
        difference = float(np.nanmean(inside) - np.nanmean(rest)) if others else None
        same_contrast = None
        if others and self.variable is not CONTRAST:
            near, far = self.sides(centred)
            same_contrast = float(np.nanmean(near) - np.nanmean(far))
        interval = None
        if difference is not None and self.comparable:
            reach = max(_reach(inside, rest, draws, level), _ROUNDING * float(abs(mine).max()))
            interval = difference - reach, difference + reach
        return GroupQuality(
            variable=self.variable.name,
            group=self.group,
            subjects=subjects,
            others=others,
            scans=int(self.member.sum()),
            mean=float(mine.mean()),
            interval=bootstrap_interval(list(mine), draws=_DRAWS)
            if subjects >= MIN_SUBJECTS
            else None,
            difference=difference,
            difference_interval=interval,
            same_contrast=same_contrast,
            verdict=_verdict(others, interval),
        )


def _reach(inside: Values, rest: Values, draws: Values, level: float) -> float:
    """Half the width of the interval of the difference."""
    differences = _drawn_means(draws, inside) - _drawn_means(draws, rest)
    n = int(min(np.isfinite(inside).sum(), np.isfinite(rest).sum()))
    error = float(np.nanstd(differences, ddof=1)) * np.sqrt(n / (n - 1))
    error = max(error, _pooled_error(inside, rest))
    return float(stats.t.ppf(0.5 + level / 2, n - 1) * error)


def _pooled_error(inside: Values, rest: Values) -> float:
    """Standard error of the difference if both sides have one spread.

    Scores are skewed, and a small group that missed the tail has too small a spread of its own.
    0 if a subject is on both sides: then the two means are not independent.
    """
    mine, others = np.isfinite(inside), np.isfinite(rest)
    if (mine & others).any():
        return 0.0
    n, m = int(mine.sum()), int(others.sum())
    squares = (n - 1) * np.var(inside[mine], ddof=1) + (m - 1) * np.var(rest[others], ddof=1)
    return float(np.sqrt(squares / (n + m - 2) * (1 / n + 1 / m)))


def _drawn_means(draws: Values, means: Values) -> Values:
    """The mean over each draw's subjects; NaN for a draw that holds none of them."""
    has = np.isfinite(means)
    return _ratio(draws[:, has] @ means[has], draws[:, has].sum(axis=1))


def _verdict(others: int, interval: tuple[float, float] | None) -> Verdict:
    if not others:
        return "no others to compare with"
    if interval is None:
        return "too few to tell"
    if interval[1] < 0:
        return "worse"
    return "better" if interval[0] > 0 else "no clear difference"


def _subject_means(values: Values, who: NDArray[np.int64], num_subjects: int) -> Values:
    counts = np.bincount(who, minlength=num_subjects)
    sums = np.bincount(who, weights=values, minlength=num_subjects)
    return _ratio(sums, counts)


def _ratio(sums: NDArray[Any], counts: NDArray[Any]) -> Values:
    """Sums over counts; NaN where there is nothing to count."""
    means = np.full(len(sums), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _means_of(values: Values, labels: Sequence[str]) -> Values:
    """For each value, the mean of those with its label."""
    _, which = np.unique(np.array(labels, dtype=str), return_inverse=True)
    return _ratio(np.bincount(which, weights=values), np.bincount(which))[which]


def _ordered(labels: NDArray[Any], who: NDArray[np.int64], variable: Variable) -> list[str]:
    sizes = {str(group): len(set(who[labels == group])) for group in np.unique(labels)}
    return sorted(sizes, key=lambda group: variable.sort_key(group, sizes[group]))
