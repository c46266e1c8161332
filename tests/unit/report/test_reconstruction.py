from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from medddpm.errors import GeometryError
from medddpm.report.picture import panel_picture
from medddpm.report.reconstruction import reconstruction_page
from medddpm.volume import Geometry

SHAPE = (12, 14, 10)
GEOMETRY = Geometry(SHAPE, np.diag([1.0, 1.2, 2.0, 1.0]))


def ball(level: float) -> Any:
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return np.where(sum(a**2 for a in axes) < 0.7, level, 0).astype(np.float32)


def facts(**held: Any) -> dict[str, Any]:
    frame = {
        "frame": "contrast <1>",
        "acceleration": 4.0,
        "coils": 6,
        "calibration": [24, 24, 24],
        "scale_in_noise": 50.0,
    }
    if held:
        frame["held_out"] = {"share": 0.05, **held}
    return {
        "statement": "Not a medical device.",
        "time": "now",
        "input": {
            "words": "8 coils",
            "format": "ismrmrd",
            "image": list(SHAPE),
            "spacing_mm": [1, 1.2, 2],
            "placed": False,
            "sha256": "ab12",
            "facts": {"te_ms": 3.5},
        },
        "noise": "own",
        "options": {"method": "ours", "mode": "ensemble", "seed": 3, "coils": None},
        "interval": {"level": 0.9, "calibrated": True, "scales": [1.53]},
        "units": "signal over noise",
        "weights": "cd34",
        "device": "cpu",
        "seconds": 1.0,
        "versions": {"medddpm": "1"},
        "machine": {"system": "x"},
        "frames": [frame],
    }


def page(told: dict[str, Any], name: str = "scan") -> str:
    scans = {"zero-filled": ball(40), "ours": ball(50)}
    return reconstruction_page(name, told, scans, {"std": ball(2)}, GEOMETRY)


def test_the_page_tells_what_the_sidecar_does() -> None:
    held = {"error_in_noise": 1.06, "error_of_others": {"cg-sense": 1.4}}
    text = page(facts(**held), "<b>name</b>")
    for word in ("<td>1.060</td>", "<td>1.400</td>", "ab12", "cd34", "te ms", "3.5", "1.53"):
        assert word in text
    assert "one in 4.0 samples of k-space by ours" in text
    assert "predicted to 1.06 times their noise" in text
    assert 'class="summary good"' in text
    assert "unknown: about the origin" in text
    assert "&lt;b&gt;name&lt;/b&gt;" in text
    assert "contrast &lt;1&gt;" in text
    assert "<b>" not in text
    assert "mispredicted" not in text


def test_what_is_predicted_badly_is_flagged() -> None:
    assert "mispredicted by 1.62 of its noise" in page(facts(error_in_noise=1.62))
    assert "Held-out k-space" not in page(facts())
    told = facts()
    told["interval"]["calibrated"] = False
    assert "too narrow" in page(told)


def test_panels_show_all_images_in_one_window() -> None:
    file = io.BytesIO()
    scans = {"dim": ball(25), "bright": ball(50)}
    panel_picture(file, scans, {"std": ball(1)}, spacing=GEOMETRY.spacing)
    picture = imread(io.BytesIO(file.getvalue()))
    grey = picture[..., :3].mean(axis=-1)
    height, third = grey.shape[0], grey.shape[1] // 3
    middle = grey[height // 6 - 10 : height // 6 + 10]  # of the first row of planes
    dim, bright = (
        np.median(middle[:, start + third // 2 - 10 : start + third // 2 + 10])
        for start in (0, third)
    )
    assert bright == pytest.approx(1 / 1.05, abs=0.05)
    assert dim == pytest.approx(bright / 2, abs=0.03)


def test_images_on_two_grids_are_refused() -> None:
    with pytest.raises(GeometryError, match="different grids"):
        panel_picture(
            io.BytesIO(), {"a": ball(1)}, {"b": np.zeros((3, 3, 3))}, spacing=GEOMETRY.spacing
        )
