"""What of patches is compared: features of a frozen network, spectra, likeness of pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medddpm.model.model import Model

Features = Callable[[Tensor], Tensor]
"""(1, 1, P, P, P) patch on the intensity scale -> (D,)."""
Values = NDArray[np.float64]

SHELLS = 16
"""Between 0 and the Nyquist frequency."""
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363)
"""Of the first four scales of Wang et al. 2003; a patch of 64 has no fifth."""
_KERNEL = 7
LEAST_EDGE = 64


def encoder_features(model: Model) -> Features:
    """Mean and log deviation over a patch of each latent channel of the autoencoder: (2 C,).

    The network was made for restoring and never saw a draw, so no generator was trained towards it,
    unless the generator is a latent one of the same weights: then the features are what it draws,
    and the distance is kind to it. Take other weights, or another network, to judge between models.
    """

    def features(patch: Tensor) -> Tensor:
        with torch.inference_mode():
            latent = model.codec.encode(patch)[0].flatten(1)
        return torch.cat([latent.mean(dim=1), latent.std(dim=1).clamp_min(1e-6).log()])

    return features


def feature_rows(patches: NDArray[np.float32], features: Features) -> Values:
    """(N, D) of (N, P, P, P)."""
    rows = [features(torch.from_numpy(patch)[None, None]) for patch in patches]
    values: Values = torch.stack(rows).double().cpu().numpy()
    return values


def power_rows(patches: NDArray[np.float32]) -> Values:
    """(N, 16) mean power in shells of frequency up to Nyquist, seen through a Hann window."""
    edge = patches.shape[-1]
    window = np.hanning(edge)
    cube = window[:, None, None] * window[:, None] * window
    full, half = 2 * np.fft.fftfreq(edge), 2 * np.fft.rfftfreq(edge)
    radius = np.sqrt(full[:, None, None] ** 2 + full[:, None] ** 2 + half**2)
    shell = np.minimum((radius * SHELLS).astype(int), SHELLS).ravel()
    counts = np.bincount(shell, minlength=SHELLS + 1)[:SHELLS]
    rows = []
    for patch in patches:
        power = np.abs(np.fft.rfftn(cube * (patch - patch.mean(dtype=np.float64)))) ** 2
        rows.append(np.bincount(shell, power.ravel(), SHELLS + 1)[:SHELLS] / counts)
    return np.stack(rows)


def likeness_of_pairs(patches: NDArray[np.float32], pairs: NDArray[np.intp]) -> Values:
    """(K,) MS-SSIM (Wang et al. 2003) of (K, 2) pairs of patches, by MONAI.

    Four scales and a window of 7, as patches are small.
    """
    from monai.metrics.regression import compute_ms_ssim

    weights = np.array(_WEIGHTS) / sum(_WEIGHTS)
    found = [
        compute_ms_ssim(
            torch.from_numpy(patches[one])[None, None],
            torch.from_numpy(patches[other])[None, None],
            spatial_dims=3,
            kernel_size=_KERNEL,
            weights=weights.tolist(),
        )
        for one, other in pairs
    ]
    values: Values = torch.cat(found)[:, 0].double().numpy()
    return values
