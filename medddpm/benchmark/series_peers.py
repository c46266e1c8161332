"""Denoisers of other packages that take all frames of a scan at once.

DIPY has both (BSD-3-Clause). They leave the bias that noise gives to a magnitude where it is, as
their users meet it; with "-unbiased" it is taken off afterwards, by the law of the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from io import StringIO

import numpy as np
from numpy.typing import NDArray

from medddpm.benchmark.peers import UNBIASED, package
from medddpm.errors import ConfigError
from medddpm.io.gradients import UNWEIGHTED, Gradients
from medddpm.preprocess.noise import expected_signal
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.restoration.series import mppca as _mppca
from medddpm.restoration.series import patch_of

Image = NDArray[np.float32]
SeriesPeer = Callable[[Image, NoiseLaw, Gradients | None], Image]
"""(y, law, gradients) -> x_hat: y (X, Y, Z, T) on the intensity scale, as is sigma, one number."""


def mppca(y: Image, law: NoiseLaw, gradients: Gradients | None) -> Image:
    """MPPCA (Veraart et al. 2016) in patches of 5 voxels an axis, or of more than frames."""
    frames = [np.ascontiguousarray(y[..., index]) for index in range(y.shape[3])]
    return np.stack(_mppca(frames, patch_of(y.shape[:3], len(frames))), axis=-1)


def patch2self(y: Image, law: NoiseLaw, gradients: Gradients | None) -> Image:
    """Patch2Self (Fadnavis et al. 2020) in its second version (2024), with DIPY's defaults."""
    if gradients is None:
        raise ConfigError(
            "patch2self tells frames with diffusion weighting from others: put the .bval file "
            "beside the scan, under its name"
        )
    denoise = package("dipy.denoise.patch2self").patch2self
    before = np.random.get_state()
    np.random.seed(0)  # of the sketch, which DIPY draws from the one generator of all
    try:
        with redirect_stderr(StringIO()):  # its bars
            found = denoise(y, gradients.bvals, shift_intensity=False, b0_threshold=UNWEIGHTED)
    finally:
        np.random.set_state(before)
    return np.asarray(found, np.float32)


def _unbiased(peer: SeriesPeer, y: Image, law: NoiseLaw, gradients: Gradients | None) -> Image:
    return expected_signal(peer(y, law, gradients), law.sigma, law.dof)


SERIES_PEERS: dict[str, SeriesPeer] = {
    "mppca": mppca,
    "mppca" + UNBIASED: partial(_unbiased, mppca),
    "patch2self": patch2self,
    "patch2self" + UNBIASED: partial(_unbiased, patch2self),
}
