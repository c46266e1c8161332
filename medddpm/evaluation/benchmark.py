"""Ours and the peers on the same noise, scored alike: one row a scan, noise level and method."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import ConfigError
from medddpm.evaluation.metrics import evaluate_images, psnr
from medddpm.evaluation.peers import PEERS
from medddpm.preprocess.degrade import NoiseKind, num_coils, simulate
from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.preprocess.noise import estimate_noise
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Geometry, Volume

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
OURS = ("mean", "sample", "ensemble")
_CLASSES = ("dark", "middle", "bright")


@dataclass(frozen=True)
class BenchmarkOptions:
    """What one run compares.

    Attributes:
        sigmas: Noise levels as fractions of the intensity scale of each scan.
        methods: "mean", "sample", "ensemble" and names of `PEERS`.
        noise: Law of the noise.
        coils: Coils of "ncchi".
        gfactor: Multiply sigma by a smooth map of 1 to 2.5, as parallel imaging would.
        sigma_source: Methods are told the true sigma, or an estimate from the noisy scan.
        crop: Box of so many voxels around the middle of the foreground; None is the whole scan.
        seed: Of the noise.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    sigmas: tuple[Annotated[float, Gt(0)], ...] = (0.03, 0.05, 0.09)
    methods: tuple[str, ...] = ("identity", "shrinkage", "mean")
    noise: NoiseKind = "rician"
    coils: Annotated[int, Ge(1)] = 1
    gfactor: bool = False
    sigma_source: Literal["blind", "oracle"] = "blind"
    crop: tuple[int, int, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        known = (*OURS, *PEERS)
        for method in self.methods:
            if method not in known:
                raise ConfigError(f"method {method!r} is unknown; choose from {', '.join(known)}")


@dataclass(frozen=True)
class Case:
    """A clean scan with the regions that it is scored in.

    Attributes:
        volume: The scan, cropped.
        scale: Its intensity scale, in scan units.
        regions: Masks (X, Y, Z) by name; "foreground" is the one to quote.
    """

    volume: Volume
    scale: float
    regions: dict[str, Mask]


def prepare_case(volume: Volume, crop: tuple[int, int, int] | None) -> Case:
    """The first frame of a scan, cropped, with its regions.

    The regions are found on the whole scan: the foreground, three classes of its brightness (in
    a T1w brain about CSF, grey and white matter), its strongest edges, and the air.
    """
    image = np.asarray(volume.frame(0), np.float32)
    inside = foreground_mask(image)
    scale = intensity_scale(image, inside)
    box = _box(inside, crop)
    regions = {name: mask[box] for name, mask in _regions(image, inside).items()}
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ [*(s.start for s in box), 1])[:3]
    part = np.ascontiguousarray(image[box])
    return Case(Volume(part, Geometry(part.shape, affine), case_id=volume.case_id), scale, regions)


def run_method(
    case: Case, sigma: float, method: str, options: BenchmarkOptions, restorer: Restorer | None
) -> dict[str, Any]:
    """One row: restore the noisy case with one method, and score it.

    Args:
        case: The clean scan.
        sigma: Noise as a fraction of the case's intensity scale.
        method: One of the options' methods.
        options: The run.
        restorer: Our model; only our own methods need it.
    """
    noisy = _noisy(case, sigma, options)
    began = time.perf_counter()
    restored, told = _restored(noisy, case, sigma, method, options, restorer)
    seconds = time.perf_counter() - began
    clean, found = case.volume.data, restored.astype(np.float32)
    inside = case.regions["foreground"]
    row: dict[str, Any] = {"case": case.volume.case_id, "sigma": sigma, "method": method}
    row |= {"sigma_told": told, "seconds": round(seconds, 3), "peak_gb": round(_peak_gb(), 3)}
    row |= asdict(evaluate_images(clean, found, inside, case.scale).inside)
    for name, mask in case.regions.items():
        if mask.any():
            row[f"psnr_{name}"] = psnr(clean, found, case.scale, mask)
            row[f"bias_{name}"] = float(np.mean((found - clean)[mask])) / case.scale
    return row


def bootstrap_interval(
    differences: Sequence[float], *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of paired differences (Efron and Tibshirani 1993, ch. 13)."""
    values = np.asarray(differences, dtype=np.float64)
    if values.size == 0:
        raise ConfigError("there is no case to take an interval over")
    picks = np.random.default_rng(seed).integers(values.size, size=(draws, values.size))
    tail = 50 * (1 - level)
    low, high = np.percentile(values[picks].mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)


def _noisy(case: Case, sigma: float, options: BenchmarkOptions) -> Volume:
    """The case with its noise, the same for every method."""
    own = sigma * case.scale / intensity_scale(case.volume.data)
    gmap = _gfactor(case.volume.data.shape) if options.gfactor else None
    return simulate(
        case.volume, own, kind=options.noise, coils=options.coils, gmap=gmap, seed=options.seed
    )


def _restored(
    noisy: Volume,
    case: Case,
    sigma: float,
    method: str,
    options: BenchmarkOptions,
    restorer: Restorer | None,
) -> tuple[Image, float]:
    """The restored scan, and the sigma that the method was told, as a fraction of the scale."""
    law: dict[str, Any] = {"noise": options.noise, "coils": options.coils}
    oracle = options.sigma_source == "oracle"
    if method in OURS:
        if restorer is None:
            raise ConfigError(f"method {method} needs a model; give weights")
        law |= {"mode": method, "seed": options.seed}
        law |= {"sigma": sigma * case.scale} if oracle else {}
        done = restorer.restore(noisy, **law)
        told = done.facts["frames"][0]["sigma"]["sigma"] / case.scale
        return done.volume.data, float(told)
    level = sigma * case.scale
    if not oracle:
        spacing = noisy.spacing
        level = estimate_noise(
            noisy.data, kind=options.noise, coils=options.coils, spacing=spacing
        ).sigma
    scale = case.scale
    y = np.ascontiguousarray(noisy.data / scale, dtype=np.float32)
    with torch.inference_mode():
        x_hat = PEERS[method](y, level / scale, num_coils(options.noise, options.coils))
    return x_hat * np.float32(scale), level / scale


def _regions(image: Image, inside: Mask) -> dict[str, Mask]:
    labels = _classes(image, inside)
    regions = {"foreground": inside}
    regions |= {name: inside & (labels == i) for i, name in enumerate(_CLASSES)}
    slope = ndimage.gaussian_gradient_magnitude(image, 1.0)
    regions["edges"] = inside & (slope >= np.quantile(slope[inside], 0.9))
    regions["air"] = ~ndimage.binary_dilation(inside, iterations=2) & (image != 0)
    return regions


def _classes(image: Image, inside: Mask) -> NDArray[np.int64]:
    """Three classes of brightness: a Gaussian mixture by expectation maximisation."""
    values = image[inside][:: max(1, int(inside.sum()) // 100_000)].astype(np.float64)
    low, high = np.percentile(values, [2, 98])
    means = low + (high - low) * np.array([1, 3, 5]) / 6
    spreads, shares = np.full(3, (high - low) / 6 + 1e-12), np.full(3, 1 / 3)
    for _ in range(50):
        weights = _responsibilities(values, means, spreads, shares)
        total = weights.sum(axis=1) + 1e-12
        means = weights @ values / total
        spreads = np.sqrt((weights * (values - means[:, None]) ** 2).sum(axis=1) / total) + 1e-12
        shares = total / values.size
    order = np.argsort(means)
    flat = _responsibilities(
        image.ravel().astype(np.float64), *(a[order] for a in (means, spreads, shares))
    )
    labels: NDArray[np.int64] = flat.argmax(axis=0).reshape(image.shape)
    return labels


def _responsibilities(
    values: NDArray[np.float64],
    means: NDArray[np.float64],
    spreads: NDArray[np.float64],
    shares: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(3, N): how much each class accounts for each value."""
    z = (values - means[:, None]) / spreads[:, None]
    logs = np.log(shares / spreads)[:, None] - 0.5 * z**2
    weights = np.exp(logs - logs.max(axis=0))
    out: NDArray[np.float64] = weights / weights.sum(axis=0)
    return out


def _box(inside: Mask, crop: tuple[int, int, int] | None) -> tuple[slice, ...]:
    if crop is None:
        return tuple(slice(0, n) for n in inside.shape)
    middle = [int(np.median(index)) for index in np.nonzero(inside)]
    box = []
    for centre, wanted, length in zip(middle, crop, inside.shape, strict=True):
        size = min(wanted, length)
        start = min(max(centre - size // 2, 0), length - size)
        box.append(slice(start, start + size))
    return tuple(box)


def _gfactor(shape: tuple[int, ...]) -> Image:
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    distance = np.sum([a**2 for a in axes], axis=0)
    gain: Image = (1 + 1.5 * np.exp(-distance / 0.3)).astype(np.float32)
    return gain


def _peak_gb() -> float:
    """Most memory that the process ever held: it can only grow from row to row."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
