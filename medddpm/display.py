"""How a scan shows itself in a notebook: a NiiVue widget where ipyniivue is installed, or a PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

_HEIGHT = 220
_GAP = 4


def mime_bundle(
    scans: Mapping[str, Image], affine: NDArray[np.float64], words: str
) -> dict[str, Any]:
    """What Jupyter shows, by MIME type: the widget if there is one, else HTML with a picture.

    Args:
        scans: (X, Y, Z) arrays in RAS order by label; the first is shown, others below it.
        affine: (4, 4) voxel index to mm, RAS+, of all.
        words: Plain text above them; it is escaped.
    """
    found = {"text/plain": words, "text/html": _html(scans, affine, words)}
    if find_spec("ipyniivue") is not None:
        found |= _widget(scans, affine, words)
    return found


def printable(text: str) -> str:
    """Text that any file can hold; bytes of a name that are no UTF-8 become a backslash and hex."""
    return as_bytes(text).decode("utf-8", "backslashreplace")


def as_bytes(text: str) -> bytes:
    """Text as UTF-8, and the bytes of names that are none as they were (PEP 383)."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, as JSON can hold; it is no part of a name
        return text.encode("utf-8", "backslashreplace")


def planes_png(image: Image, spacing: NDArray[np.float64]) -> bytes:
    """A PNG of the sagittal, coronal and axial plane through the middle, to scale.

    The window is 0 (or less, if the scan is) to 1.05 times the 99.5th percentile of what is above
    0. The patient's left is on the right.

    Args:
        image: (X, Y, Z) in RAS order.
        spacing: Voxel edges in mm.
    """
    from PIL import Image as Pillow

    low, high = _window(image)
    levels = np.clip((image - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    x, y, z = (n // 2 for n in image.shape)
    planes = [(levels[x], 1, 2), (levels[::-1, y], 0, 2), (levels[::-1, :, z], 0, 1)]
    tiles = []
    for plane, across, up in planes:
        ratio = plane.shape[0] * spacing[across] / (plane.shape[1] * spacing[up])
        size = (max(1, round(_HEIGHT * float(ratio))), _HEIGHT)
        tiles.append(Pillow.fromarray(plane.T[::-1]).resize(size, Pillow.Resampling.NEAREST))
    sheet = Pillow.new("L", (sum(t.width + _GAP for t in tiles) - _GAP, _HEIGHT))
    left = 0
    for tile in tiles:
        sheet.paste(tile, (left, 0))
        left += tile.width + _GAP
    file = io.BytesIO()
    sheet.save(file, format="PNG")
    return file.getvalue()


def _window(image: Image) -> tuple[float, float]:
    low = min(0.0, float(image.min()))
    positive = image[image > 0]
    high = 1.05 * float(np.percentile(positive, 99.5)) if positive.size else low + 1.0
    return low, high


def _html(scans: Mapping[str, Image], affine: NDArray[np.float64], words: str) -> str:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    parts = [f"<p>{escape(words)}</p>"]
    for label, image in scans.items():
        data = base64.b64encode(planes_png(image, spacing)).decode("ascii")
        text = escape(f"{label}: sagittal, coronal and axial plane through the middle")
        parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(label)}</figcaption></figure>"
        )
    return "".join(parts)


def _widget(scans: Mapping[str, Image], affine: NDArray[np.float64], words: str) -> dict[str, Any]:
    """The MIME types of words above a NiiVue widget a scan."""
    import ipyniivue
    import ipywidgets
    import nibabel as nib

    children = [ipywidgets.HTML(f"<p>{escape(words)}</p>")]
    for label, image in scans.items():
        low, high = _window(image)
        nifti = nib.nifti1.Nifti1Image(image, affine).to_bytes()  # type: ignore[no-untyped-call]
        volume = ipyniivue.Volume(
            data=nifti, name=f"{label}.nii", cal_min=low, cal_max=high, colormap="gray"
        )
        viewer = ipyniivue.NiiVue(is_radiological_convention=True)
        viewer.load_volumes([volume])
        children += [ipywidgets.HTML(f"<p>{escape(label)}</p>"), viewer]
    found: dict[str, Any] = ipywidgets.VBox(children)._repr_mimebundle_()
    return found
