"""Other denoisers, each behind one call: what a benchmark holds ours against.

All come with the extra `peers` and are imported nowhere else. BM4D is licensed for
non-commercial research only.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import denoise_tv_chambolle

from medddpm.errors import ConfigError, missing_extra
from medddpm.model.shrinkage import Shrinkage
from medddpm.named import named, names
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.preprocess.tiles import pad_mirrored

Image = NDArray[np.float32]
Peer = Callable[[Image, NoiseLaw], Image]
"""(y, law) -> x_hat: y (X, Y, Z) on the intensity scale, as is sigma, which is one number."""
_LEAST_EDGE = 6
"""Voxels an axis that the shrinkage needs."""
_TV_WEIGHT = 0.5
"""In units of sigma: best of 0.3 to 1.5 on a T1w and a T2w training scan, sigma 0.03 to 0.15."""


def identity(y: Image, law: NoiseLaw) -> Image:
    """The noisy scan itself."""
    return y


def shrinkage(y: Image, law: NoiseLaw) -> Image:
    """Sliding DCT shrinkage alone, without a network, with the colour of the noise."""
    x, y_, z = (max(_LEAST_EDGE, n + n % 2) for n in y.shape)
    padded = pad_mirrored(y, (x, y_, z))
    level = torch.full((1, 1, 1, 1, 1), _sigma(law))
    colour = torch.from_numpy(law.colour.block_std())[None]
    spacing, coils = torch.ones(1, 3), torch.tensor([law.num_coils])
    evidence = Shrinkage()(torch.from_numpy(padded)[None, None], level, spacing, coils, colour)
    x, y_, z = y.shape
    image: Image = evidence.base[0, 0, :x, :y_, :z].numpy()
    return image


def bm4d(y: Image, law: NoiseLaw) -> Image:
    """BM4D (Maggioni et al. 2013), told the spectrum, then the bias of the noise taken off.

    On a training scan this correction, an exact one by table and a variance-stabilising transform
    around the filter came within 0.06 dB of each other at sigma 0.03 to 0.15; this is the simplest.
    """
    if not hasattr(np, "trapz"):
        # numpy 2 calls it trapezoid; bm4d 4.2.5 asks for the old name where it is given a spectrum.
        np.trapz = np.trapezoid  # type: ignore[attr-defined, unused-ignore]
    return _unbiased(package("bm4d").bm4d(y, _psd(law, y.shape)), law)


def nlm(y: Image, law: NoiseLaw) -> Image:
    """Non-local means of DIPY, patch radius 1, block radius 2, with its Rician correction."""
    return _nlm(y, law, 2)


def nlm5(y: Image, law: NoiseLaw) -> Image:
    """The same with block radius 5."""
    return _nlm(y, law, 5)


def ants(y: Image, law: NoiseLaw) -> Image:
    """DenoiseImage of ANTs (Manjon et al. 2010), which estimates the noise itself."""
    found_in = package("ants")
    model = "Rician" if law.num_coils else "Gaussian"
    found = found_in.denoise_image(found_in.from_numpy(y), noise_model=model)
    return np.asarray(found.numpy(), np.float32)


def total_variation(y: Image, law: NoiseLaw) -> Image:
    """Total variation (Chambolle 2004), then the bias taken off; the weight is tuned."""
    found = denoise_tv_chambolle(y, weight=_TV_WEIGHT * _sigma(law))  # type: ignore[no-untyped-call, unused-ignore]
    return _unbiased(found, law)


PEERS: dict[str, Peer] = {
    "identity": identity,
    "shrinkage": shrinkage,
    "bm4d": bm4d,
    "nlm": nlm,
    "nlm5": nlm5,
    "ants": ants,
    "tv": total_variation,
}

SIGMA_FREE = ("identity", "ants", "mppca", "patch2self")
"""They take no sigma."""
UNBIASED = "-unbiased"
"""Ends the name of a method of whose result the bias of the noise is taken off."""
_GROUP = "medddpm.methods"
_DISTRIBUTIONS = {
    "bm4d": "bm4d",
    "nlm": "dipy",
    "nlm5": "dipy",
    "ants": "antspyx",
    "tv": "scikit-image",
    "mppca": "dipy",
    "patch2self": "dipy",
}


def peer_of(method: str) -> Peer:
    """The denoiser of this name: of `PEERS`, of an installed package, or of an import path.

    Packages add theirs under the entry point group `medddpm.methods`.

    Raises:
        ConfigError: There is none.
    """
    return named(method, PEERS, "method", _GROUP)


def peer_names() -> list[str]:
    """The names of `PEERS`, and those that installed packages add."""
    return names(PEERS, _GROUP)


def peer_version(method: str) -> str:
    """Name and version of the package behind a method; "" where it is our own.

    Raises:
        ConfigError: The package is not installed.
    """
    distribution = _DISTRIBUTIONS.get(method.removesuffix(UNBIASED))
    if distribution is None:
        return ""
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        raise ConfigError(_missing(method, distribution)) from None


def _nlm(y: Image, law: NoiseLaw, reach: int) -> Image:
    """DIPY's classic method.

    On a T1w and a T2w training scan it beat the blockwise one, DIPY's default, by 2 to 4 dB at
    sigma 0.03 and lost up to 1.2 dB at 0.15.
    """
    found = package("dipy.denoise.nlmeans").nlmeans(
        y,
        sigma=_sigma(law),
        rician=law.num_coils > 0,
        patch_radius=1,
        block_radius=reach,
        num_threads=-1,
        method="classic",
    )
    return np.asarray(found, np.float32)


def _unbiased(image: Any, law: NoiseLaw) -> Image:
    """sqrt(x^2 - (2 L - 1) sigma^2): the mean of a magnitude, where the signal is strong."""
    signal: Image = np.asarray(image, np.float32)
    if law.num_coils > 0:
        bias = (law.dof - 1) * _sigma(law) ** 2
        signal = np.sqrt(np.maximum(signal**2 - bias, 0), dtype=np.float32)
    return signal


def _psd(law: NoiseLaw, shape: tuple[int, ...]) -> float | Image:
    """What BM4D takes: sigma of white noise, or the power of each coefficient of `numpy.fft`."""
    if law.colour.is_white:
        return _sigma(law)
    power = law.colour.power([2 * np.fft.fftfreq(n) for n in shape])
    factor = _sigma(law) ** 2 * power.size / float(np.mean(power, dtype=np.float64))
    return np.asarray(power * factor, np.float32)


def _sigma(law: NoiseLaw) -> float:
    if isinstance(law.sigma, np.ndarray):
        raise AssertionError("a peer is told one number")
    return law.sigma


def package(name: str) -> Any:
    """A module of an extra.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        first = name.split(".")[0]
        raise ConfigError(_missing(first, first)) from error


def _missing(method: str, package: str) -> str:
    what = package if package == method else f"{package}, which {method} needs,"
    return missing_extra(what, "peers")
