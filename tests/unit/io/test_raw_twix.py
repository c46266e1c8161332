"""Readouts as twixtools gives them, without a file: no real one may be in the tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medddpm.errors import VolumeReadError
from medddpm.io import raw_twix
from medddpm.io.raw_twix import read_twix

pytest.importorskip("twixtools")


class Block:
    """One readout of twixtools' `Mdb`."""

    def __init__(
        self, data: Any, line: int, slice_: int = 0, flags: tuple[str, ...] = (), depth: float = 0
    ) -> None:
        self.data, self.cLin, self.cPar, self.cSlc = data, line, 0, slice_
        self.cEco = self.cPhs = self.cRep = self.cSet = 0
        self.flags = flags
        place = SimpleNamespace(Sag=1.0, Cor=2.0, Tra=depth)
        self.mdh = SimpleNamespace(
            CenterCol=data.shape[1] // 2,
            CenterLin=4,
            CenterPar=0,
            ReadOutOffcentre=0.0,
            SliceData=SimpleNamespace(SlicePos=place, Quaternion=(1.0, 0.0, 0.0, 0.0)),
        )

    def is_flag_set(self, name: str) -> bool:
        return name in self.flags

    def is_image_scan(self) -> bool:
        return not {"NOISEADJSCAN", "PHASCOR", "PATREFSCAN"} & set(self.flags)


def scan(blocks: list[Block], **space: Any) -> dict[str, Any]:
    protocol = {
        "sKSpace": {"ucTrajectory": 1, "ucDimension": 2, "lBaseResolution": 6}
        | {"lPhaseEncodingLines": 8}
        | space,
        "sSliceArray": {"asSlice": [{"dReadoutFOV": 60.0, "dPhaseFOV": 80.0, "dThickness": 3.0}]},
    }
    return {"mdb": blocks, "hdr": {"MeasYaps": protocol, "Meas": {}}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "meas.dat"
    path.write_bytes(b"x")
    return path


def data(rng: np.random.Generator) -> Any:
    return (rng.normal(size=(2, 12)) + 1j * rng.normal(size=(2, 12))).astype(np.complex64)


def test_slices_lie_in_order_and_lines_where_they_belong(
    source: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = {(s, y): data(rng) for s in (0, 1) for y in range(8)}
    depth = {0: 4.5, 1: 0.0}  # the second slice lies below the first
    blocks = [Block(d, y, s, depth=depth[s]) for (s, y), d in lines.items()]
    noise = [Block(data(rng), 0, flags=("NOISEADJSCAN",))]
    monkeypatch.setattr(raw_twix, "_parsed", lambda path: [scan(noise), scan(blocks)])
    found = read_twix(source)
    assert found.kspace.shape == (1, 2, 2, 12, 8, 1)
    np.testing.assert_array_equal(found.kspace[0, 0, :, :, 3, 0], lines[1, 3])
    np.testing.assert_array_equal(found.kspace[0, 1, :, :, 3, 0], lines[0, 3])
    assert found.noise is not None
    np.testing.assert_array_equal(found.noise, noise[0].data)
    assert found.image_shape == (6, 8, 2)
    assert found.spacing == pytest.approx((10, 10, 4.5))
    assert found.fov_mm == (120.0, 80.0, 3.0)
    middle = found.affine @ [3, 4, 0, 1]
    np.testing.assert_allclose(middle[:3], [-1, -2, 0], atol=1e-6)


def test_reflected_lines_are_turned_and_references_stay_apart(
    source: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = data(rng), data(rng)
    blocks = [
        Block(first, 2, flags=("REFLECT",)),
        Block(second, 4, flags=("PATREFSCAN",)),
    ]
    monkeypatch.setattr(raw_twix, "_parsed", lambda path: [scan(blocks)])
    found = read_twix(source)
    np.testing.assert_array_equal(found.kspace[0, 0, :, :, 2, 0], first[:, ::-1])
    assert not found.mask[..., 4, 0].any()
    assert found.calibration is not None
    np.testing.assert_array_equal(found.calibration[0][0, 0, :, :, 4, 0], second)


def test_radial_empty_and_incomplete_protocols_are_refused(
    source: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads(content: dict[str, Any]) -> None:
        monkeypatch.setattr(raw_twix, "_parsed", lambda path: [content])
        read_twix(source)

    block = Block(data(rng), 0)
    with pytest.raises(VolumeReadError, match=r"not Cartesian \(spiral\).*convert it to ISMRMRD"):
        reads(scan([block], ucTrajectory=4))
    with pytest.raises(VolumeReadError, match="no line of an image"):
        reads(scan([Block(data(rng), 0, flags=("NOISEADJSCAN",))]))
    bare = scan([block])
    del bare["hdr"]["MeasYaps"]["sSliceArray"]
    with pytest.raises(VolumeReadError, match="lacks what is needed"):
        reads(bare)
