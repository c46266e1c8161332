from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.benchmark.run_raw import RawBenchmark, _cases
from medddpm.errors import ConfigError


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
