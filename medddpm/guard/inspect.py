"""The guard: all that is looked at in one restoration, and what is usual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import CheckpointError
from medddpm.guard.checks import GuardReport, judge
from medddpm.guard.known import Known, Usual, uncalibrated
from medddpm.guard.quality import quality_findings
from medddpm.guard.residual import Finding, residual_findings
from medddpm.guard.tissue import tissue_shift
from medddpm.preprocess.noise_law import NoiseKind

Array = NDArray[np.float32]
_LEAST_CERTAIN = 99.0


@dataclass(frozen=True)
class Guard:
    """What the guard goes by.

    Attributes:
        usual: The usual range of each check, measured with these weights and such options; None
            if nobody has, and wide ranges hold.
        false_alarms: By name of the check: share of good restorations that it flags.
    """

    usual: Usual | None = None
    false_alarms: Mapping[str, float] = field(default_factory=dict)


def guard_of(
    card: Mapping[str, Any], arrays: Mapping[str, Array], options: Mapping[str, Any]
) -> Guard:
    """The guard that a weights file holds for a restoration with these options.

    Ranges hold for the options that they were measured with, above all for one mode.

    Args:
        card: Of the weights.
        arrays: What is with them; see `model.Model.arrays`.
        options: Of the restoration, by name.

    Raises:
        CheckpointError: What the file holds is damaged.
    """
    mode = options.get("mode")
    found = card.get("guard", {}).get(mode)
    if found is None or any(options.get(k) != v for k, v in found.get("options", {}).items()):
        return Guard()
    try:
        names = found["checks"]
        table = arrays[f"guard.{mode}.findings"]
        known = Known(
            arrays[f"guard.{mode}.features"],
            arrays[f"guard.{mode}.levels"],
            {name: table[:, i] for i, name in enumerate(names)},
            arrays[f"guard.{mode}.spread"],
        )
        reach, ranges = (
            {name: (_number(low), _number(high)) for name, (low, high) in found[part].items()}
            for part in ("reach", "ranges")
        )
        return Guard(Usual(known, reach, ranges), dict(found["false_alarms"]))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"the guard's calibration in the weights is damaged ({error!r}); redo it with "
            "`medddpm calibrate-guard`"
        ) from error


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def inspect(
    y: NDArray[Any],
    x_hat: NDArray[Any],
    sigma: float | NDArray[Any],
    mask: NDArray[Any],
    *,
    guard: Guard,
    kind: NoiseKind = "rician",
    coils: int = 1,
    affine: NDArray[np.float64] | None = None,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    features: Array | None = None,
    std: NDArray[Any] | None = None,
) -> GuardReport:
    """The guard's verdict on one restoration.

    Args:
        y: (X, Y, Z) noisy scan as a fraction of the intensity scale.
        x_hat: (X, Y, Z) restored scan, likewise.
        sigma: Noise standard deviation, likewise: a number or an (X, Y, Z) map.
        mask: (X, Y, Z) foreground.
        guard: What is usual.
        kind: Law of the noise that was assumed.
        coils: Coils of "ncchi".
        affine: (4, 4), voxel to mm RAS, to tell places.
        spacing: Voxel edges in mm.
        features: Of the latents of x_hat, see `latent_features`, or None.
        std: (X, Y, Z) of an ensemble, or None.

    Raises:
        GeometryError: They do not lie on one grid.
        ConfigError: The mask is empty, or sigma is negative or not finite.
    """
    level = float(np.median(np.asarray(sigma)))
    if np.max(sigma) == 0:
        return _without_noise(bool((y[mask] == x_hat[mask]).all()))
    findings = find_all(y, x_hat, sigma, mask, kind=kind, coils=coils, spacing=spacing, std=std)
    ranges = uncalibrated(level) if guard.usual is None else guard.usual.of(features, level)
    if features is not None and guard.usual is not None:
        findings["strangeness"] = Finding(guard.usual.known.strangeness(features))
    return judge(findings, ranges, guard.false_alarms, affine)


def find_all(
    y: NDArray[Any],
    x_hat: NDArray[Any],
    sigma: float | NDArray[Any],
    mask: NDArray[Any],
    *,
    kind: NoiseKind = "rician",
    coils: int = 1,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    std: NDArray[Any] | None = None,
) -> dict[str, Finding]:
    """What is found, without a verdict; arguments and errors as in `inspect`."""
    findings = residual_findings(y, x_hat, sigma, mask, kind=kind, coils=coils, spacing=spacing)
    findings |= quality_findings(x_hat, mask, spacing)
    level = float(np.median(np.asarray(sigma)))
    shift, _, _ = tissue_shift(y, x_hat, level, mask, kind=kind, coils=coils)
    findings |= {
        "tissue_shift": Finding(shift),
        "noise_level": Finding(level),
        "finest_edge": Finding(float(min(spacing))),
        "coarsest_edge": Finding(float(max(spacing))),
    }
    if std is not None:
        spread = (std / np.maximum(sigma, 1e-6))[mask]
        findings["disagreement"] = Finding(float(np.percentile(spread, _LEAST_CERTAIN)))
    return findings


def _without_noise(unchanged: bool) -> GuardReport:
    """The report for sigma 0: there is nothing to remove."""
    messages = () if unchanged else ("the scan was changed although sigma is 0",)
    return GuardReport(unchanged, messages, ())
