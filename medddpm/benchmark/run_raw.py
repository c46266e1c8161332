"""Reconstructions compared on simulated raw data of clean scans."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from medddpm.errors import ConfigError
from medddpm.io import checksum, find_images, read_volume, without_padding
from medddpm.io.kept import Kept, keep, key_of
from medddpm.io.outputs import file_stem, write_csv
from medddpm.metrics.scores import evaluate_images
from medddpm.model.interval import NOMINAL
from medddpm.model.model import find_weights
from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.preprocess.resample import resampled, resampled_affine
from medddpm.reconstruction.interval import interval_scale
from medddpm.reconstruction.masks import MaskKind, middle, sampling_lines
from medddpm.reconstruction.methods import SPARSE, TIKHONOV, Solved, solve_frame
from medddpm.reconstruction.options import METHODS, Method, ReconstructOptions
from medddpm.reconstruction.plug_and_play import PlugOptions
from medddpm.reconstruction.prior import Prior
from medddpm.reconstruction.problem import Problem
from medddpm.reconstruction.scan import frame_problem, spread_of
from medddpm.reconstruction.simulated_raw import simulate_raw
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Geometry, Volume

RESTORED: Literal["cg-sense-restored"] = "cg-sense-restored"
"""CG-SENSE, then `restore` on its magnitude alone, which is what to do without this method."""
Compared = Method | Literal["cg-sense-restored"]
COMPARED: tuple[Compared, ...] = (*METHODS[:-1], RESTORED, METHODS[-1])
_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of a method's own weight: the best of them is quoted."""
_OTHER_FACTORS = {"cg-sense": (*_FACTORS, 8.0, 16.0, 32.0), RESTORED: (0.25, 1.0, 4.0)}
"""The best weight of CG-SENSE grows with the noise: at 0.05 it is two to four times its own."""
_MARGIN, _MULTIPLE = 3, 16
"""Voxels of air around the head at least, and what its field of view is a multiple of."""
_ITERATIONS = {"cg-sense": 15, RESTORED: 15, "tv": 30, "l1-wavelet": 30}
_COLUMNS = ("case", "mask", "R", "sigma", "method", "weight", "psnr", "ssim", "nrmse", "seconds")
_SETTINGS = ("coils", "acs", "planes", "seed", "spacing")
Row = dict[str, Any]


@dataclass(frozen=True)
class RawBenchmark:
    """What is compared.

    Attributes:
        masks: Kinds of undersampling.
        accelerations: R.
        sigmas: Noise, as fractions of the intensity scale.
        methods: What is compared; those with a weight run with several, and the best is quoted.
        coils: Of the simulated receiver.
        acs: Lines of calibration.
        planes: Planes across the readout that are reconstructed, in the middle; the whole head is
            simulated and calibrated.
        seed: Of coils, phase, noise and masks.
        plug: How "ours" runs.
        samples: Draws of an ensemble of "ours", whose interval is held against the truth; 0 for
            the expected image alone.
        spacing: Of the raw data, in mm: k-space is cropped to voxels of that edge; None keeps all
            of it. No axis becomes finer.

    Raises:
        ConfigError: A method is unknown, one draw alone is asked for, or the spacing is no length.
    """

    masks: tuple[MaskKind, ...] = ("vd2d", "vd1d")
    accelerations: tuple[float, ...] = (4.0, 8.0)
    sigmas: tuple[float, ...] = (0.02, 0.05)
    methods: tuple[Compared, ...] = COMPARED
    coils: int = 8
    acs: int = 24
    planes: int = 32
    seed: int = 0
    plug: PlugOptions = field(default_factory=PlugOptions)
    samples: int = 0
    spacing: float | None = None

    def __post_init__(self) -> None:
        if self.spacing is not None and not 0 < self.spacing < np.inf:
            raise ConfigError(f"a spacing of {self.spacing} mm is no length; give millimetres")
        for method in self.methods:
            if method not in COMPARED:
                raise ConfigError(f"method {method!r} is unknown; choose of {', '.join(COMPARED)}")
        if self.samples == 1:
            raise ConfigError("one draw has no spread; give --samples 2 or more, or 0 for none")


def benchmark_raw(
    data: str | Path,
    out: str | Path,
    *,
    options: RawBenchmark | None = None,
    restore: RestoreOptions | None = None,
    weights: str | Path = "default",
    device: str = "auto",
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """One row a scan, mask, R, noise, method and weight, in OUT/results.csv; a rerun goes on.

    Maps and noise come from the undersampled data alone; PSNR is that of the magnitude in the
    foreground, at data range 1 of the intensity scale, against the scan before coils and noise.

    With samples, rows of "ours" hold the share of the foreground in the 90 % interval ("coverage"),
    what it was before it was widened ("coverage_unscaled"), the scale, and the held-out error.

    Args:
        data: A clean scan, or a folder of them.
        out: Folder for the table.
        options: What is compared.
        restore: Tiles of the networks.
        weights: A shipped name or a weights file.
        device: Where the networks run.
        on_row: Called with each row.

    Raises:
        ConfigError: There is no scan.
    """
    options, out, data = options or RawBenchmark(), Path(out), Path(data)
    files = find_images(data, deep=False) if data.is_dir() else [data] * data.is_file()
    if not files:
        raise ConfigError(f"no NIfTI scan in {data}; give a file or a folder of them")
    restorer = cache(lambda: Restorer.from_pretrained(weights, device=device))
    used = {**asdict(restore or RestoreOptions()), "memory_gb": None}
    networks = {"weights": checksum([find_weights(weights)]), "plug": asdict(options.plug)} | used
    rows: list[Row] = []
    for file in files:
        source, case_of = checksum([file]), _cases(file, options)
        for sigma, kind, r, (method, factor) in product(
            options.sigmas, options.masks, options.accelerations, _wanted(options)
        ):
            told = (file_stem(file), kind, f"{r:g}", f"{sigma:g}", method, f"{factor:g}")
            cells = dict(zip(_COLUMNS, told, strict=False))
            setting = {name: getattr(options, name) for name in _SETTINGS}
            prior = _networks_of(method, networks, options)
            parts = cells | setting | {"source": source, "iterations": _ITERATIONS, "prior": prior}
            parts |= {"calibration": "acs x acs"}

            def measured(
                case: Row = cells, factor: float = factor, case_of: MakeCase = case_of
            ) -> Kept:
                found = case_of(float(case["sigma"]), case["mask"], float(case["R"]))
                model = restorer() if case["method"] in (RESTORED, "ours") else None
                return Kept(case | _run(found, case["method"], factor, options, model, restore))

            rows.append(keep(out / "rows" / f"{key_of(parts)}.json", measured))
            write_csv(out / "results.csv", rows)
            if on_row:
                on_row(rows[-1])
    return rows


def best_rows(rows: Sequence[Row]) -> list[Row]:
    """Of each case and method the row of the best weight, by PSNR."""
    best: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row[c] for c in _COLUMNS[:5])
        if key not in best or float(row["psnr"]) > float(best[key]["psnr"]):
            best[key] = row
    return list(best.values())


def table_text(rows: Sequence[Row]) -> str:
    """Markdown: a line a mask, R and noise, PSNR in dB a method, averaged over scans."""
    best = best_rows(rows)
    methods = [m for m in COMPARED if any(row["method"] == m for row in best)]
    lines = [
        "| mask | R | sigma | " + " | ".join(methods) + " |",
        "|---" * (3 + len(methods)) + "|",
    ]
    keys = dict.fromkeys((row["mask"], row["R"], row["sigma"]) for row in best)
    for key in keys:
        cells = []
        for method in methods:
            found = [
                float(row["psnr"])
                for row in best
                if (row["mask"], row["R"], row["sigma"]) == key and row["method"] == method
            ]
            cells.append(f"{np.mean(found):.2f}" if found else "")
        lines.append(f"| {' | '.join(map(str, key))} | {' | '.join(cells)} |")
    seconds = [
        f"{np.mean([float(row['seconds']) for row in best if row['method'] == m]):.0f} s"
        for m in methods
    ]
    return "\n".join([*lines, "| seconds | | | " + " | ".join(seconds) + " |"])


@dataclass(frozen=True)
class _Case:
    problem: Problem
    clean: NDArray[np.float32]
    mask: NDArray[np.bool_]
    unit: float


def _full_case(volume: Volume, sigma: float, options: RawBenchmark) -> _Case:
    """The simulated measurement, calibrated as a whole and then cut to its middle planes.

    Calibration sees the lines that every mask keeps, and no others.
    """
    raw = simulate_raw(volume, sigma, coils=options.coils, seed=options.seed)
    raw = replace(
        raw, calibration=(raw.kspace, raw.mask & middle(raw.mask.shape[-2:], options.acs))
    )
    image = volume.frame(0)
    first = max(0, (len(image) - options.planes) // 2)
    part = slice(first, min(len(image), first + options.planes))
    problem = frame_problem(raw).planes(part.start, part.stop)
    scale = intensity_scale(image)
    mask = foreground_mask(image)[part]
    return _Case(problem, image[part] / np.float32(scale), mask, sigma)


MakeCase = Callable[[float, MaskKind, float], _Case]


def _cases(file: Path, options: RawBenchmark) -> MakeCase:
    """What makes the measurements of one scan, the last of each kind at hand."""
    volume = cache(lambda: _head(_coarser(without_padding(read_volume(file)), options.spacing)))
    full = lru_cache(maxsize=1)(lambda sigma: _full_case(volume(), sigma, options))
    return lru_cache(maxsize=1)(lambda sigma, kind, r: _undersampled(full(sigma), kind, r, options))


def _undersampled(full: _Case, kind: MaskKind, r: float, options: RawBenchmark) -> _Case:
    y, z = full.clean.shape[1:]
    lines = sampling_lines(kind, (y, z), r, acs=options.acs, seed=options.seed)
    return replace(full, problem=full.problem.undersampled(torch.from_numpy(lines)))


def _run(
    case: _Case,
    method: Compared,
    factor: float,
    options: RawBenchmark,
    restorer: Restorer | None,
    restore: RestoreOptions | None,
) -> Row:
    problem = case.problem
    weight = SPARSE.get(method, TIKHONOV) * factor
    settings = ReconstructOptions(
        "cg-sense" if method == RESTORED else method,
        weight=weight,
        iterations=_ITERATIONS.get(method),
        plug=options.plug,
    )
    prior = None
    if method == "ours" and restorer is not None:
        prior = Prior(restorer, problem.spacing, restore)
        if options.samples:
            settings = replace(settings, mode="ensemble", samples=options.samples)
    began = time.perf_counter()
    solved = solve_frame(problem, settings, prior)
    unit = np.float32(problem.scale * case.unit)
    found = solved.image[0].abs().numpy() * unit
    if method == RESTORED and restorer is not None:
        found = _restored(found, problem.spacing, restorer, restore)
    seconds = time.perf_counter() - began
    scores = evaluate_images(case.clean, found, case.mask, 1.0).inside
    return _coverage(case, found, solved, unit) | {
        "psnr": round(scores.psnr, 3),
        "ssim": round(scores.ssim, 4),
        "nrmse": round(scores.nrmse, 4),
        "seconds": round(seconds, 1),
    }


def _restored(
    image: NDArray[np.float32],
    spacing: tuple[float, float, float],
    restorer: Restorer,
    restore: RestoreOptions | None,
) -> NDArray[np.float32]:
    """A magnitude as `restore` has it, which finds the noise by itself."""
    volume = Volume(image, Geometry(image.shape, np.diag([*spacing, 1.0])))
    return restorer.restore(volume, options=restore).volume.data


def _networks_of(method: Compared, networks: Row, options: RawBenchmark) -> Row | None:
    """What the networks and their settings add to the key of a row."""
    if method == RESTORED:
        return {name: value for name, value in networks.items() if name != "plug"}
    if method != "ours":
        return None
    return networks | ({"samples": options.samples} if options.samples else {})


def _coverage(case: _Case, mean: NDArray[np.float32], solved: Solved, unit: np.float32) -> Row:
    """How much of the truth lies in the interval of an ensemble; nothing without one."""
    if not solved.draws:
        return {}
    std = spread_of([draw[0].abs().numpy() * unit for draw in solved.draws])
    distance = np.abs(mean - case.clean)[case.mask] / np.maximum(std[case.mask], 1e-12)
    held = solved.facts["held_out"]
    scale = interval_scale(held["error_in_noise"], held["spread_in_noise"])
    return {
        "coverage": round(float((distance < NOMINAL * scale).mean()), 4),
        "coverage_unscaled": round(float((distance < NOMINAL).mean()), 4),
        "interval_scale": round(scale, 4),
        "held_out_error": held["error_in_noise"],
    }


def _wanted(options: RawBenchmark) -> list[tuple[Compared, float]]:
    """Methods with the factors of their weights."""
    factors = dict.fromkeys(("zero-filled", "ours"), (1.0,)) | _OTHER_FACTORS
    return [
        (method, factor) for method in options.methods for factor in factors.get(method, _FACTORS)
    ]


def _coarser(volume: Volume, spacing: float | None) -> Volume:
    """The first frame on voxels of about `spacing` mm, its k-space cropped."""
    if spacing is None:
        return volume
    old = volume.geometry.shape
    x, y, z = (
        min(n, max(1, round(n * edge / spacing)))
        for n, edge in zip(old, volume.spacing, strict=True)
    )
    affine = resampled_affine(volume.affine, old, (x, y, z))
    image = np.maximum(
        resampled(volume.frame(0), (x, y, z)), 0
    )  # a magnitude has no ripples below 0
    return Volume(image, Geometry((x, y, z), affine), case_id=volume.case_id)


def _head(volume: Volume) -> Volume:
    """The head with a margin of air, as a receiver's field of view has it."""
    inside = np.argwhere(foreground_mask(volume.frame(0)))
    box = []
    for axis, length in enumerate(volume.geometry.shape):
        low, high = int(inside[:, axis].min()) - _MARGIN, int(inside[:, axis].max()) + 1 + _MARGIN
        size = min(-(-(high - low) // _MULTIPLE) * _MULTIPLE, length // 2 * 2)
        low = min(max(0, (low + high - size) // 2), length - size)
        box.append(slice(low, low + size))
    data = np.ascontiguousarray(volume.frame(0)[tuple(box)])
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    x, y, z = data.shape
    return replace(volume, data=data, geometry=Geometry((x, y, z), affine), native=None)
