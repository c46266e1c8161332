"""The guard: all that is looked at in one restoration, and what is usual."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from medddpm.errors import CheckpointError
from medddpm.guard.card import GuardCard, GuardCards
from medddpm.guard.checks import GuardReport, judge
from medddpm.guard.known import Known, Usual, uncalibrated
from medddpm.guard.quality import quality_findings
from medddpm.guard.residual import Finding, residual_findings
from medddpm.guard.tissue import tissue_shift
from medddpm.preprocess.frame import Frame
from medddpm.preprocess.noise_law import NoiseLaw

Array = NDArray[np.float32]
_LEAST_CERTAIN = 99.0
_CARDS: TypeAdapter[dict[str, GuardCard]] = TypeAdapter(GuardCards)


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
    card: Mapping[str, Any],
    arrays: Mapping[str, Array],
    mode: str,
    other_than: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Guard:
    """The guard that a weights file holds for a restoration with these options.

    Ranges hold for the options that they were measured with, above all for one mode.

    Args:
        card: Of the weights.
        arrays: What is with them; see `model.Model.arrays`.
        mode: Of the restoration.
        other_than: What differs in its options from those of a calibration.

    Raises:
        CheckpointError: What the file holds is damaged.
    """
    found = _calibrated(card).get(mode)
    if found is None or other_than(found.options):
        return Guard()
    return _guard(mode, found, arrays)


def check_guards(card: Mapping[str, Any], arrays: Mapping[str, Array], channels: int) -> None:
    """Refuse weights whose guard is damaged, for whatever options.

    Args:
        card: Of the weights.
        arrays: What is with them.
        channels: Of their latents.

    Raises:
        CheckpointError: A part is missing, empty, no number or of other latents.
    """
    found = _calibrated(card)
    for mode, calibrated in found.items():
        usual = _guard(mode, calibrated, arrays).usual
        if usual is not None and len(usual.known.spread) != 2 * channels:
            raise _damaged(f"that of {mode} is of latents with other channels than {channels}")
    for name in arrays:
        if name.split(".")[1] not in found:
            raise _damaged(f"{name} is there, and the card says nothing of it")


def _calibrated(card: Mapping[str, Any]) -> dict[str, GuardCard]:
    """What the card says, by mode; empty where nobody has calibrated the guard."""
    if card.get("guard") is None:
        return {}
    try:
        return _CARDS.validate_python(card["guard"])
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _guard(mode: str, found: GuardCard, arrays: Mapping[str, Array]) -> Guard:
    try:
        table = arrays[f"guard.{mode}.findings"]
        if np.ndim(table) != 2 or table.shape[1] != len(found.checks):
            raise _damaged(f"its findings of {mode} are no table of {len(found.checks)} checks")
        known = Known(
            arrays[f"guard.{mode}.features"],
            arrays[f"guard.{mode}.levels"],
            {name: table[:, i] for i, name in enumerate(found.checks)},
            arrays[f"guard.{mode}.spread"],
        )
    except KeyError as error:
        raise _damaged(f"{error.args[0]} is missing") from error
    return Guard(Usual(known, found.reach, found.ranges), found.false_alarms)


def _damaged(why: str) -> CheckpointError:
    return CheckpointError(
        f"the guard's calibration in the weights is damaged ({why}); redo it with "
        "`medddpm calibrate-guard`"
    )


def inspect(
    frame: Frame,
    x_hat: NDArray[Any],
    *,
    guard: Guard,
    features: Array | None = None,
    std: NDArray[Any] | None = None,
) -> GuardReport:
    """The guard's verdict on one restoration.

    Args:
        frame: The noisy scan, with the noise that was assumed.
        x_hat: (X, Y, Z) restored scan as `frame.y` is.
        guard: What is usual.
        features: Of the latents of x_hat, see `latent_features`, or None.
        std: (X, Y, Z) of an ensemble, or None.

    Raises:
        GeometryError: They do not lie on one grid.
        ConfigError: The mask is empty, or sigma is negative or not finite.
    """
    y, law, mask = frame.y, frame.law, frame.mask
    level = float(np.median(np.asarray(law.sigma)))
    if np.max(law.sigma) == 0:
        return _without_noise(bool((y[mask] == x_hat[mask]).all()))
    findings = find_all(y, x_hat, law, mask, spacing=frame.spacing, std=std)
    ranges = uncalibrated(level) if guard.usual is None else guard.usual.of(features, level)
    if features is not None and guard.usual is not None:
        findings["strangeness"] = Finding(guard.usual.known.strangeness(features))
    return judge(findings, ranges, guard.false_alarms, frame.affine)


def find_all(
    y: NDArray[Any],
    x_hat: NDArray[Any],
    law: NoiseLaw,
    mask: NDArray[Any],
    *,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    std: NDArray[Any] | None = None,
) -> dict[str, Finding]:
    """What is found, without a verdict; errors as in `inspect`.

    Args:
        y: (X, Y, Z) noisy scan as a fraction of the intensity scale.
        x_hat: (X, Y, Z) restored scan, likewise.
        law: The noise that was assumed, likewise, on that grid.
        mask: (X, Y, Z) foreground.
        spacing: Voxel edges in mm.
        std: (X, Y, Z) of an ensemble, or None.
    """
    findings = residual_findings(y, x_hat, law, mask, spacing=spacing)
    findings |= quality_findings(x_hat, mask, spacing)
    level = float(np.median(np.asarray(law.sigma)))
    shift, _, _ = tissue_shift(y, x_hat, level, mask, dof=law.dof)
    findings |= {
        "tissue_shift": Finding(shift),
        "noise_level": Finding(level),
        "finest_edge": Finding(float(min(spacing))),
        "coarsest_edge": Finding(float(max(spacing))),
    }
    if std is not None:
        spread = (std / np.maximum(law.sigma, 1e-6))[mask]
        findings["disagreement"] = Finding(float(np.percentile(spread, _LEAST_CERTAIN)))
    return findings


def _without_noise(unchanged: bool) -> GuardReport:
    """The report for sigma 0: there is nothing to remove."""
    messages = () if unchanged else ("the scan was changed although sigma is 0",)
    return GuardReport(unchanged, messages, ())
