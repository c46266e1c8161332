"""Our scores and noise against the libraries that others use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.metrics.scores import evaluate_arrays, ssim_image
from medddpm.preprocess.noise import estimate_noise
from medddpm.preprocess.noise_law import NoiseLaw

pytestmark = pytest.mark.peers

Head = Callable[..., NDArray[np.float32]]


@pytest.fixture
def pair(head: Head, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    clean = head((40, 44, 36)) / 1000
    noisy = np.hypot(clean + rng.normal(0, 0.05, clean.shape), rng.normal(0, 0.05, clean.shape))
    return clean, noisy.astype(np.float32)


def test_psnr_and_nrmse_against_skimage(
    pair: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    clean, noisy = pair
    ours = evaluate_arrays(clean, noisy, data_range=1.0)
    psnr = metrics.peak_signal_noise_ratio(clean, noisy, data_range=1.0)
    assert ours["psnr_whole"] == pytest.approx(psnr, abs=1e-3)
    nrmse = metrics.normalized_root_mse(clean, noisy, normalization="euclidean")
    assert ours["nrmse_whole"] == pytest.approx(nrmse, rel=1e-4)


def test_ssim_against_monai(pair: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    """Away from the border, where the two pad in different ways, the maps agree."""
    torch = pytest.importorskip("torch")
    regression = pytest.importorskip("monai.metrics.regression")
    clean, noisy = pair
    theirs, _ = regression.compute_ssim_and_cs(
        torch.from_numpy(noisy)[None, None].double(),
        torch.from_numpy(clean)[None, None].double(),
        spatial_dims=3,
        kernel_size=(11, 11, 11),
        kernel_sigma=(1.5, 1.5, 1.5),
        data_range=1.0,
    )
    ours = ssim_image(clean, noisy, 1.0)[5:-5, 5:-5, 5:-5]
    assert float(theirs.mean()) == pytest.approx(float(ours.mean()), abs=2e-3)


def test_noise_against_skimage_wavelets(head: Head, rng: np.random.Generator) -> None:
    pytest.importorskip("pywt")
    restoration = pytest.importorskip("skimage.restoration")
    image = 500 + rng.normal(0, 20, (48, 48, 48))
    image[:4] = 0
    theirs = restoration.estimate_sigma(image[4:])
    ours = estimate_noise(image, law=NoiseLaw("gaussian")).sigma
    assert ours == pytest.approx(20, rel=0.03)
    # The wavelet estimate of scikit-image 0.26 reads 18.9 here, where 20 is right.
    assert abs(ours - 20) < abs(theirs - 20) + 0.4
