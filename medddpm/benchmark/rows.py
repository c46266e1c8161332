"""What runs of several denoisers share: their models, their rows on disk, what is said of them."""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medddpm.benchmark.figures import Planes, axial_plane
from medddpm.benchmark.methods import Method, parse_methods
from medddpm.benchmark.options import BenchmarkOptions, NoiseName, Source
from medddpm.benchmark.peers import peer_version
from medddpm.errors import ConfigError
from medddpm.io import read_volume
from medddpm.io.kept import Kept
from medddpm.io.provenance import checksum, versions
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Volume

_SIGMAS = ("sigma", "sigma_true", "sigma_own", "sigma_told")


@dataclass(frozen=True)
class Trial:
    """One row of a scan: kind and level of its noise, method, and where that gets its sigma."""

    noise: NoiseName
    sigma: float
    method: Method
    source: Source


@dataclass(frozen=True)
class BenchmarkRun:
    """What all rows of one run share: its options, and what its methods need."""

    options: BenchmarkOptions
    methods: list[Method]
    peers: dict[str, str]
    restorers: dict[str, Restorer]
    weights: str
    gmap: Volume | None
    gmap_sha256: str

    def trials(self) -> Iterator[Trial]:
        """All rows of a scan, noise by noise."""
        options = self.options
        for noise, sigma in product(options.noises, options.sigmas):
            for method in self.methods:
                for source in options.sources(method, noise):
                    yield Trial(noise, sigma, method, source)

    def restorer(self, method: Method) -> Restorer | None:
        """What holds the method's model, if it has one."""
        return self.restorers[method.weights or self.weights] if method.needs_model else None

    def digest(self, method: Method) -> str:
        """Checksum of the method's weights."""
        restorer = self.restorer(method)
        return restorer.model.digest if restorer else ""


def with_units(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of simulated noise for a CSV file: the names of their columns say the unit of sigma."""
    units = {name: f"{name}_fraction" for name in _SIGMAS}
    return [{units.get(name, name): value for name, value in row.items()} for row in rows]


def prepare_run(
    options: BenchmarkOptions,
    gmap: Path | None = None,
    weights: str | Path = "default",
    device: str = "auto",
) -> BenchmarkRun:
    """Find the packages and load the models that the methods need.

    Args:
        options: What is compared.
        gmap: A scan on the grid of all of them that multiplies sigma of white noise.
        weights: Our model, unless a method names its own ("mean@weights=FILE").
        device: Where it runs.

    Raises:
        ConfigError: One is missing, or a map of the noise has no use.
    """
    if gmap is not None and options.noise.gfactor:
        raise ConfigError("a g-map and a simulated g-factor were both asked for; give one")
    if gmap is not None and "white" not in options.noises:
        raise ConfigError("a g-map amplifies white noise: ask for it too, with --noise white")
    methods = parse_methods(options.methods)
    peers = {method.name: peer_version(method.name) for method in methods}
    wanted = {method.weights or str(weights) for method in methods if method.needs_model}
    restorers = {name: Restorer.from_pretrained(name, device) for name in sorted(wanted)}
    gain = None if gmap is None else read_volume(gmap)
    mark = "" if gmap is None else checksum([gmap])
    return BenchmarkRun(options, methods, peers, restorers, str(weights), gain, mark)


def with_slice(
    row: Mapping[str, Any], images: Mapping[str, NDArray[Any]], volume: Volume, scale: float
) -> Kept:
    """A row to keep, and beside it one slice of images for its picture.

    Args:
        row: What it holds.
        images: (X, Y, Z) by the names of `Planes`.
        volume: Where they lie.
        scale: What they are divided by.
    """
    arrays: dict[str, Any] = {}
    for name, image in images.items():
        orientation, spacing = volume.geometry.orientation, volume.geometry.spacing
        plane, arrays["aspect"] = axial_plane(image, orientation, spacing)
        arrays[name] = plane / np.float32(scale)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return Kept(row, {".npz": stream.getvalue()})


def kept_planes(kept: Path) -> Planes | None:
    """The slices beside a row; None if there are none."""
    path = kept.with_suffix(".npz")
    if not path.exists():
        return None
    with np.load(path) as file:
        return Planes(file["clean"], file["noisy"], file["restored"], float(file["aspect"]))


def run_facts(run: BenchmarkRun, scans: list[str]) -> dict[str, Any]:
    """What all rows share, for results.json: options, weights, versions, machine.

    Args:
        run: What ran.
        scans: Their names.
    """
    found = versions() | {name: text for name, text in run.peers.items() if text}
    return {
        "options": asdict(run.options) | {"gmap_sha256": run.gmap_sha256},
        "scans": scans,
        "weights_sha256": {name: r.model.digest for name, r in run.restorers.items()},
        "versions": found,
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "device": next((str(r.device) for r in run.restorers.values()), "cpu"),
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
