from __future__ import annotations

import base64
import io
import re
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from medddpm import display
from medddpm.volume import Geometry, Volume


def picture_of(bundle: dict[str, str]) -> np.ndarray:
    [data] = re.findall(r'src="data:image/png;base64,([^"]+)"', bundle["text/html"])
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.fixture
def no_widget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "find_spec", lambda name: None)


@pytest.mark.usefixtures("no_widget")
def test_a_volume_shows_three_planes_to_scale() -> None:
    shape = (20, 30, 10)
    data = np.ones(shape, np.float32)
    bundle = Volume(data, Geometry(shape, np.diag([1, 1, 3, 1])), case_id="<b>a</b>")
    shown = bundle._repr_mimebundle_()
    assert "20 x 30 x 10 voxels of 1 x 1 x 3 mm" in shown["text/plain"]
    assert "<b>" not in shown["text/html"]
    image = picture_of(shown)
    widths = [220, 147, 147]  # 30 over 30 mm, 20 over 30 mm, 20 over 30 mm
    assert image.shape == (220, sum(widths) + 8)


@pytest.mark.usefixtures("no_widget")
def test_the_left_of_the_patient_is_on_the_right() -> None:
    """A bright spot in the patient's left, back and lower corner, in an LPS array."""
    shape = (24, 24, 24)
    data = np.zeros(shape, np.float32)
    data[...] = 100
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = [23, 23, 0]
    data[20:, :, 12] = 1000  # index 20 and more is left
    image = picture_of(Volume(data, Geometry(shape, affine))._repr_mimebundle_())
    axial = image[:, -220:]
    assert axial[:, -20:].mean() > 3 * axial[:, :20].mean()


@pytest.mark.usefixtures("no_widget")
@pytest.mark.parametrize("value", [0.0, -5.0, 7.0])
def test_a_flat_scan_and_a_4d_one_show_too(value: float) -> None:
    geometry = Geometry((8, 8, 8), np.eye(4))
    data = np.full((8, 8, 8, 2), value, np.float32)
    assert picture_of(Volume(data, geometry)._repr_mimebundle_()).size > 0


def test_to_ras_keeps_every_voxel_where_it_is(rng: np.random.Generator) -> None:
    affine = np.array([[0, -2.0, 0, 5], [0, 0, 3.0, 1], [-1.0, 0, 0, 9], [0, 0, 0, 1]])
    scan = Volume(rng.random((4, 5, 6, 2)).astype(np.float32), Geometry((4, 5, 6), affine))
    ras = scan.to_ras()
    assert ras.geometry.orientation == "RAS"
    to_ras = np.linalg.inv(ras.affine) @ affine
    for index in [(0, 0, 0), (3, 1, 5), (2, 4, 1)]:
        x, y, z = np.rint(to_ras @ [*index, 1])[:3].astype(int)
        np.testing.assert_array_equal(ras.data[x, y, z], scan.data[index])


@pytest.mark.skipif(find_spec("ipyniivue") is None, reason="ipyniivue is not installed")
def test_with_ipyniivue_it_is_a_widget(phantom: Volume) -> None:
    bundle = phantom._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "phantom" in bundle["text/plain"] + bundle["text/html"]


def test_showing_imports_no_torch() -> None:
    import subprocess

    code = (
        "import sys, numpy as np; from medddpm.volume import *; "
        "Volume(np.ones((4, 4, 4), 'f4'), Geometry((4, 4, 4), np.eye(4)))._repr_mimebundle_(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
