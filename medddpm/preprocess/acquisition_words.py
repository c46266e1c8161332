"""A simulated acquisition in words."""

from __future__ import annotations

from medddpm.preprocess.acquisition import Acquisition

_KINDS = {"rician": "Rician", "gaussian": "Gaussian, no magnitude"}
_NUMBERS = ("first", "second", "third")
_SPLINES = {1: "linear", 3: "cubic"}


def in_words(acquisition: Acquisition) -> str:
    """What was simulated, but for the level of the noise.

    Example:
        >>> in_words(Acquisition(0.05, matrix=(0.62, 0.62, 0.9), elliptical=(0, 1, 2)))
        'Rician; 62 x 62 x 90 % of the matrix acquired, an ellipse'
    """
    a = acquisition
    law = _KINDS.get(a.kind, f"sum of squares of {a.coils} coils")
    return "; ".join([law, *_sampling(a), *_afterwards(a)])


def _sampling(a: Acquisition) -> list[str]:
    said = []
    ellipse = f", an ellipse over axes {_axes(a.elliptical)}" if len(a.elliptical) == 2 else ""
    ellipse = ", an ellipse" if len(a.elliptical) == 3 else ellipse
    if min(a.matrix) < 1 or ellipse:
        shares = " x ".join(f"{100 * share:.0f}" for share in a.matrix)
        said.append(f"{shares} % of the matrix acquired{ellipse}")
    if a.filter != "none" and a.filter_strength > 0:
        where = "" if len(a.filtered) == 3 else f" along axes {_axes(a.filtered)}"
        said.append(f"{a.filter} filter of strength {a.filter_strength:.2f}{where}")
    axis = _NUMBERS[a.partial_axis]
    if a.partial_fourier < 1:
        rest = "completed by symmetry" if a.homodyne else "filled with zeros"
        said.append(f"partial Fourier {a.partial_fourier:.3g} along the {axis} axis, {rest}")
    if a.acceleration > 1:
        said.append(f"accelerated {a.acceleration} times along the {axis} axis, {a.coils} coils")
    return said


def _afterwards(a: Acquisition) -> list[str]:
    said = []
    if a.normalised:
        said.append("intensities normalised")
    if a.blur:
        word = "smoothed" if a.blur > 0 else "sharpened"
        said.append(f"{word} by {abs(a.blur):.2f} voxels")
    if any(a.rotation):
        angles = ", ".join(f"{angle:.1f}" for angle in a.rotation)
        said.append(f"rotated by {angles} degrees ({_SPLINES[a.interpolation]})")
    if a.masked:
        said.append("background set to zero")
    if a.bits:
        said.append(f"rounded to {a.bits} bits")
    return said


def _axes(axes: tuple[int, ...]) -> str:
    return " and ".join(str(axis + 1) for axis in axes)
