"""What a benchmark shows: error against noise, gains, and pictures of one slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from medddpm.errors import ShapeError
from medddpm.report.chart import Axis, Series, chart
from medddpm.report.html import Picture, data_uri, pictures
from medddpm.report.planes import CHANGE, png, shades, to_scale

Image = NDArray[np.float32]
Row = Mapping[str, Any]

NOISE_WORDS = {
    "acquired": "noise as acquired",
    "ellipse": "noise in an ellipse of k-space",
    "white": "white noise",
}
_WINDOW = (0.0, 1.05)
_ERROR_SIGMAS = 4.0
_LONGEST_NAME = 48
_SIGMA = Axis("added noise, sigma / intensity scale", low=0)


@dataclass(frozen=True)
class Planes:
    """One axial slice of a case, as fractions of the intensity scale; each (H, W).

    Attributes:
        clean: The truth.
        noisy: What the methods were given.
        restored: What one of them made of it.
        aspect: Height of a pixel over its width.
    """

    clean: Image
    noisy: Image
    restored: Image
    aspect: float


def axial_plane(
    image: NDArray[Any], orientation: str, spacing: Sequence[float]
) -> tuple[Image, float]:
    """The middle axial slice (H, W), front up, the patient's left on the right; and its aspect.

    Args:
        image: (X, Y, Z).
        orientation: Anatomical direction of each array axis, such as "LPS".
        spacing: Voxel edges in mm.
    """
    order = [next(a for a in range(3) if orientation[a] in pair) for pair in ("RL", "AP", "SI")]
    if sorted(order) != [0, 1, 2]:
        raise ShapeError(f"orientation {orientation!r} does not name three different axes")
    flips = tuple(
        slice(None, None, 1 if orientation[axis] == positive else -1)
        for axis, positive in zip(order, "LPS", strict=True)
    )
    turned = image.transpose(order)[flips]
    plane = turned[:, :, turned.shape[2] // 2].T
    return np.ascontiguousarray(plane, dtype=np.float32), spacing[order[1]] / spacing[order[0]]


def montage(panels: Mapping[str, Planes], sigma: float) -> str:
    """HTML: noisy, each method and the truth at one window; below, their errors at one window.

    Args:
        panels: By method, all of the same slice.
        sigma: Noise as a fraction of the scale; errors are shown within 4 sigma.
    """
    first = next(iter(panels.values()))
    images = {"noisy": first.noisy, **{name: p.restored for name, p in panels.items()}}
    shown = {name: _picture(image, first.aspect, name) for name, image in images.items()}
    shown["truth"] = _picture(first.clean, first.aspect, "truth")
    errors = [
        _picture(image - first.clean, first.aspect, f"error: {name}", sigma)
        for name, image in images.items()
    ]
    return pictures(list(shown.values()), len(shown)) + pictures(errors, len(shown))


def repeat_pictures(panels: Mapping[str, Planes], sigma: float) -> str:
    """HTML, a row a method: a repeat, restored, the mean of the other repeats, what was removed.

    Args:
        panels: By method, all of the same slice; the mean of the others is their `clean`.
        sigma: Noise as a fraction of the scale; what was removed is shown within 4 sigma.
    """
    return "".join(
        pictures(
            [
                _picture(planes.noisy, planes.aspect, "a repeat"),
                _picture(planes.restored, planes.aspect, f"restored: {name}"),
                _picture(planes.clean, planes.aspect, "mean of the others"),
                _picture(planes.noisy - planes.restored, planes.aspect, "removed", sigma),
            ]
        )
        for name, planes in panels.items()
    )


def _picture(image: Image, aspect: float, label: str, sigma: float | None = None) -> Picture:
    """A slice at the one window, or with a sigma a difference within 4 of it."""
    low, high = _WINDOW if sigma is None else (-_ERROR_SIGMAS * sigma, _ERROR_SIGMAS * sigma)
    levels = shades(to_scale(image, (aspect, 1.0)), low, high)
    content = png(levels, None if sigma is None else CHANGE)
    return Picture(data_uri(content), _short(label), f"{label}, axial slice", "R", "L")


def score_charts(summary: Sequence[Row]) -> list[Markup]:
    """PSNR and SSIM in the foreground against sigma, one line a method, for a kind of noise."""
    return [
        _against_sigma(summary, noise, key, axis)
        for noise in _noises(summary)
        for key, axis in (
            ("psnr", Axis("PSNR in the foreground, dB", least=2)),
            ("ssim", Axis("SSIM in the foreground", least=0.1)),
        )
    ]


def gain_charts(summary: Sequence[Row]) -> list[Markup]:
    """Gain over the reference, with its interval where there are scans for one; PSNR by time."""
    over = summary[0]["gain_over"]
    axis = Axis(f"gain in PSNR over {over}, dB", least=2)
    found = []
    for noise in _noises(summary):
        found.append(_against_sigma(summary, noise, "gain", axis, lines=[0]))
        cost = [
            Series(
                _short(label),
                [max(line["seconds"], 1e-3) for line in lines],
                [line["psnr"] for line in lines],
                style="dots",
                colour=_colour(summary, label),
            )
            for label, lines in _by_method(summary, noise).items()
        ]
        found.append(
            chart(
                f"Time, {NOISE_WORDS[noise]}",
                cost,
                Axis("seconds a scan", log=True),
                Axis("PSNR in the foreground, dB", least=2),
                words="PSNR against seconds",
            )
        )
    return found


def steps_charts(summary: Sequence[Row]) -> list[Markup]:
    """PSNR and power against steps, where methods differ in these alone; a colour a noise level.

    The first such method is a line, the others, such as other samplers or weights, are dashed.
    """
    found = []
    for noise in _noises(summary):
        lines = [line for line in summary if line["noise"] == noise]
        for key, axis in (
            ("psnr", Axis("PSNR in the foreground, dB", least=2)),
            ("power_high", Axis("power at 0.5 to 0.8 Nyquist, of the truth's", least=0.2)),
        ):
            series = _against_steps([line for line in lines if key in line], key)
            if series:
                title = f"{axis.label.split(',')[0]} by steps, {NOISE_WORDS[noise]}"
                steps = Axis("evaluations of the network, steps of a sample", log=True)
                found.append(chart(title, series, steps, axis, words=title))
    return found


def _against_steps(lines: Sequence[Row], key: str) -> list[Series]:
    """A curve for each method and noise level that there is with two numbers of steps or more."""
    groups: dict[tuple[str, float], list[tuple[int, float]]] = {}
    for line in lines:
        name, steps = without_steps(line["method"])
        if steps is not None:
            groups.setdefault((name, line["sigma"]), []).append((steps, line[key]))
    names = list(dict.fromkeys(name for name, _ in groups))
    return [
        Series(
            _short(f"{name}, sigma {sigma:g}"),
            [steps for steps, _ in sorted(points)],
            [value for _, value in sorted(points)],
            style="line" if name == names[0] else "dashed",
            colour=sorted({sigma for _, sigma in groups}).index(sigma),
        )
        for (name, sigma), points in groups.items()
        if len({steps for steps, _ in points}) > 1
    ]


def without_steps(method: str) -> tuple[str, int | None]:
    """The label of a method without its number of steps, and that number; None if it has none.

    Example:
        >>> without_steps("sample@steps=4,start=3")
        ('sample@start=3', 4)
    """
    name, _, settings = method.partition("@")
    parts = settings.split(",")
    steps = [part.removeprefix("steps=") for part in parts if part.startswith("steps=")]
    others = ",".join(part for part in parts if part and not part.startswith("steps="))
    return name + (f"@{others}" if others else ""), int(steps[0]) if steps else None


def has_interval(line: Row) -> bool:
    """Of one scan there is no interval over scans."""
    return int(line["scans"]) > 1


def _against_sigma(
    summary: Sequence[Row], noise: str, key: str, axis: Axis, lines: Sequence[float] = ()
) -> Markup:
    series = []
    for label, found in _by_method(summary, noise).items():
        known = key == "gain" and all(map(has_interval, found))
        series.append(
            Series(
                _short(label),
                [line["sigma"] for line in found],
                [line[key] for line in found],
                [line[f"{key}_low"] for line in found] if known else [],
                [line[f"{key}_high"] for line in found] if known else [],
                colour=_colour(summary, label),
            )
        )
    words = f"{axis.label} against sigma, {NOISE_WORDS[noise]}"
    title = f"{key.upper() if key != 'gain' else 'Gain'}, {NOISE_WORDS[noise]}, {_scans(summary)}"
    return chart(title, series, _SIGMA, axis, words=words, lines=lines)


def _scans(summary: Sequence[Row]) -> str:
    """How many scans each point is of."""
    counts = sorted({int(line["scans"]) for line in summary})
    told = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"n = {told}"


def level_chart(rows: Sequence[Row]) -> Markup:
    """Sigma that was found over the true one, with its error bar; a colour for each method.

    Args:
        rows: Those with a `sigma_error`.
    """
    series = []
    for number, label in enumerate(dict.fromkeys(method_label(row) for row in rows)):
        mine = [row for row in rows if method_label(row) == label]
        true = [true_sigma(row) for row in mine]
        ratio = [row["sigma_told"] / t for row, t in zip(mine, true, strict=True)]
        reach = [r * min(row["sigma_error"], 1.0) for r, row in zip(ratio, mine, strict=True)]
        low = [r - e for r, e in zip(ratio, reach, strict=True)]
        high = [r + e for r, e in zip(ratio, reach, strict=True)]
        series.append(Series(_short(label), true, ratio, low, high, "dots", number))
    return chart(
        f"Noise level found over true, n = {len(rows)}",
        series,
        Axis("true sigma, own noise included / intensity scale", log=True),
        Axis("found / true", least=0.5),
        words="Sigma found over true sigma, against true sigma",
        lines=[0.9, 1.0, 1.1],
    )


def true_sigma(row: Row) -> float:
    """Noise that was added to a scan and noise of its own together, a fraction of the scale."""
    return float(np.hypot(row["sigma_true"], row["sigma_own"]))


def _noises(summary: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(line["noise"] for line in summary))


def _colour(summary: Sequence[Row], label: str) -> int:
    """One for each method, whatever the noise."""
    return list(dict.fromkeys(method_label(line) for line in summary)).index(label)


def _short(name: str) -> str:
    """A method as a picture has room for it: the end of the path of its weights is left."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:12]}...{name[15 - _LONGEST_NAME :]}"


def method_label(row: Row) -> str:
    """The method with where its sigma came from, if it takes one."""
    return label_of(row["method"], row["sigma_source"])


def label_of(method: str, source: str) -> str:
    """The same of a method and the source of its sigma."""
    return method if source == "none" else f"{method} ({source})"


def _by_method(summary: Sequence[Row], noise: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for line in summary:
        if line["noise"] == noise:
            groups.setdefault(method_label(line), []).append(line)
    return groups
