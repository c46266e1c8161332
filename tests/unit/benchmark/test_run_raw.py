from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.benchmark.run_raw import RawBenchmark, _cases, _coarser, benchmark_raw
from medddpm.errors import ConfigError
from medddpm.preprocess.resample import resampled
from medddpm.volume import Geometry, Volume


@pytest.mark.parametrize("acs", [12, 16])
def test_calibration_sees_the_lines_that_every_mask_keeps_and_no_others(
    acs: int, tmp_path: Path, save_nifti: Any, head: Callable[..., NDArray[np.float32]]
) -> None:
    path = tmp_path / "head.nii.gz"
    save_nifti(path, head((40, 44, 48)), np.eye(4))
    case = _cases(path, RawBenchmark(coils=3, acs=acs, planes=4))(0.02, "vd1d", 2.0)
    assert case.problem.centre.shape[-2:] == (acs, acs)


def test_unknown_methods_and_a_single_draw_are_refused() -> None:
    with pytest.raises(ConfigError, match="cg-sense-restored"):
        RawBenchmark(methods=("grappa",))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no spread"):
        RawBenchmark(samples=1)
    with pytest.raises(ConfigError, match="no length"):
        RawBenchmark(spacing=-1.0)


def test_a_scan_that_is_not_there_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no NIfTI scan in .*missing"):
        benchmark_raw(tmp_path / "missing.nii.gz", tmp_path / "out")


def test_coarser_raw_data_cover_the_same_field_of_view(
    head: Callable[..., NDArray[np.float32]],
) -> None:
    image = head((40, 44, 48))
    volume = Volume(image, Geometry(image.shape, np.diag([1.0, 1.0, 3.0, 1.0])), case_id="head")
    coarse = _coarser(volume, 2.0)
    assert coarse.geometry.shape == (20, 22, 48), "the thick axis does not become finer"
    np.testing.assert_allclose(coarse.spacing, (2, 2, 3))
    np.testing.assert_allclose(
        coarse.affine @ [9.5, 10.5, 23.5, 1], volume.affine @ [19.5, 21.5, 23.5, 1]
    )
    back = resampled(coarse.data, image.shape)
    assert np.corrcoef(back.ravel(), image.ravel())[0, 1] > 0.97
    assert _coarser(volume, None) is volume
