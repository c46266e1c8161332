"""Means of a benchmark over its scans, and paired intervals of what a method gains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medddpm.errors import ConfigError

Row = dict[str, Any]
_FACTS = ("case", "noise", "law", "coils", "sigma", "method", "sigma_source")
_REFERENCES = ("bm4d", "identity")


def bootstrap_interval(
    differences: Sequence[float], *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of paired differences (Efron and Tibshirani 1993, ch. 13).

    Args:
        differences: One a scan; of a single scan the interval has no width.
        level: Coverage.
        draws: Resamples of the scans.
        seed: Of the resampling.

    Raises:
        ConfigError: There is no difference.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size == 0:
        raise ConfigError("there is no case to take an interval over")
    picks = np.random.default_rng(seed).integers(values.size, size=(draws, values.size))
    tail = 50 * (1 - level)
    low, high = np.percentile(values[picks].mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)


def choose_reference(methods: Sequence[str], wanted: str | None = None) -> str:
    """The method that gains are taken over: the wanted one, or bm4d, identity or the first.

    Raises:
        ConfigError: The wanted one is not among the methods.
    """
    if wanted is not None and wanted not in methods:
        raise ConfigError(f"reference {wanted!r} is none of the methods: {', '.join(methods)}")
    preferred = (*_REFERENCES, *methods) if wanted is None else (wanted,)
    return next(name for name in preferred if name in methods)


def summarise(rows: list[Row], reference: str) -> list[Row]:
    """One line a kind and level of noise, method and source of its sigma: means, paired gains.

    Each number of the rows is averaged over the scans that have it. "gain" is the PSNR over the
    reference's in the foreground, in dB, and "ssim_gain" that of SSIM, each with its 95 %
    interval. A reference that ran twice counts with the true sigma.
    """
    groups: dict[tuple[str, float], dict[tuple[str, str], list[Row]]] = {}
    for row in rows:
        same = groups.setdefault((row["noise"], row["sigma"]), {})
        same.setdefault((row["method"], row["sigma_source"]), []).append(row)
    noises = list(dict.fromkeys(row["noise"] for row in rows))
    summary = []
    for noise, sigma in sorted(groups, key=lambda key: (noises.index(key[0]), key[1])):
        same = groups[noise, sigma]
        base = _base(same, reference)
        for (method, source), mine in same.items():
            line: Row = {"noise": noise, "sigma": sigma, "method": method}
            line |= {"sigma_source": source, "scans": len(mine), "gain_over": reference}
            for name, metric in (("gain", "psnr"), ("ssim_gain", "ssim")):
                gains = [row[metric] - base[row["case"]][metric] for row in mine]
                low, high = bootstrap_interval(gains)
                line |= {name: float(np.mean(gains)), f"{name}_low": low, f"{name}_high": high}
            summary.append(line | _means(mine))
    return summary


def _base(same: dict[tuple[str, str], list[Row]], reference: str) -> dict[str, Row]:
    """The reference's rows of one kind and level of noise, by scan."""
    found = [same.get((reference, source)) for source in ("oracle", "blind", "none")]
    return {row["case"]: row for row in next(rows for rows in found if rows)}


def _means(rows: list[Row]) -> dict[str, float]:
    columns = dict.fromkeys(name for row in rows for name in row if name not in _FACTS)
    means = {}
    for name in columns:
        values = [row[name] for row in rows if isinstance(row.get(name), int | float)]
        if values:
            means[name] = float(np.mean(values))
    return means
