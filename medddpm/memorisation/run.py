"""Does a trained model copy its training scans? To be asked before synthetic data is exported."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medddpm.config import load_config
from medddpm.data.cache import build_cache, find_scans
from medddpm.data.manifest import bids_subject, read_manifest
from medddpm.errors import CheckpointError, ConfigError, VolumeReadError
from medddpm.io.outputs import check_targets, plain, staged, write_csv, write_html, write_json
from medddpm.io.provenance import versions
from medddpm.memorisation.measure import (
    METRICS,
    Verdict,
    judge,
    num_held_out,
)
from medddpm.memorisation.nearest import Embed, Nearest, find_nearest
from medddpm.memorisation.page import Pair, memorisation_page
from medddpm.model.model import Model, load_model
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.prior import draw_prior
from medddpm.restoration.restorer import pick_device
from medddpm.restoration.tile import TileRestorer
from medddpm.training.batches import fixed_noise
from medddpm.training.data import PackedScans, check_split
from medddpm.training.options import DataOptions

Report = Callable[[str, int, int], None]
_FILES = ("nearest.csv", "memorisation.json", "memorisation.html")
_SHOWN = 8
_POOL = 4
"""Latent voxels along an axis that one element of an embedding averages."""


@dataclass(frozen=True)
class Sample:
    """A patch to judge.

    Attributes:
        kind: "prior" (drawn without a scan), "conditional" (from the noisy patch of a held-out
            scan), "given" (of a scan that was handed in) or "held-out" (real, for the threshold).
        source: The scan that it was made from, or "".
        image: (P, P, P) on the intensity scale.
    """

    kind: str
    source: str
    image: NDArray[np.float32]


@dataclass(frozen=True)
class Memorisation:
    """The verdict, one row a sample, and what was written."""

    verdict: Verdict = field(repr=False)
    rows: list[dict[str, Any]] = field(repr=False)
    paths: list[Path]


@dataclass(frozen=True)
class _Run:
    """A trained run: its networks and the two halves of its scans."""

    model: Model
    device: torch.device
    cache: Path
    options: DataOptions
    train: PackedScans
    held: PackedScans
    subjects: dict[str, str]
    has_prior: bool


def memorisation(
    run: str | Path,
    *,
    samples: int = 32,
    scans: str | Path | None = None,
    alpha: float = 0.01,
    out: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
    on_progress: Report | None = None,
) -> Memorisation:
    """Compare generated samples with all training scans of a run; names the copies.

    Args:
        run: A run folder with cache/ and model.safetensors.
        samples: Drawn without a scan, and as many again from held-out patches in strong noise; or
            patches of each of `scans`.
        scans: NIfTI files to judge in place of drawn samples.
        alpha: Share of held-out real patches that may be called copies by mistake.
        out: Folder for nearest.csv, memorisation.json and memorisation.html; `run`/memorisation.
        device: Where it runs.
        seed: Of the samples.
        overwrite: Replace an earlier report.
        on_progress: Called with what is done.

    Raises:
        ConfigError: The run has no packed scans, none is held out, or a subject is on both sides.
        CheckpointError: The weights have no trained diffusion network.
        VolumeReadError: One of `scans` cannot be read.
    """
    run = Path(run)
    scans = None if scans is None else Path(scans)
    out = None if out is None else Path(out)
    folder = out or run / "memorisation"
    num = num_held_out(alpha)
    if samples < 1:
        raise ConfigError(f"samples is {samples}; at least one is needed")
    known = _open_run(run, device)
    check_targets([folder / name for name in _FILES], overwrite=overwrite)
    report = on_progress or (lambda task, done, total: None)
    if scans is None:
        judged = _drawn(known, samples, seed, report)
    else:
        judged = _given(known, scans, samples, seed)
    held = _held_out(known, num, round_trip=scans is None)
    images = torch.from_numpy(np.stack([s.image for s in (*judged, *held)])).to(known.device)
    with torch.inference_mode():
        embed = _embedder(known.model)
        found = find_nearest(images, known.train.images, embed, on_progress=report)
    near, near_held = found[: len(judged)], found[len(judged) :]
    subjects = [known.subjects[s.source] for s in held]
    verdict = judge(near, near_held, subjects, alpha)
    rows = _rows(known, judged, near, verdict.copies)
    rows += _rows(known, held, near_held, [False] * len(held))
    facts = _facts(known, judged, verdict, alpha, seed)
    paths = _write(folder, rows, facts, _pairs(rows, [*judged, *held], found))
    return Memorisation(verdict, rows[: len(judged)], paths)


def _open_run(run: Path, device: str) -> _Run:
    model = load_model(run / "model.safetensors")
    stage = model.card.get("stages", {}).get("diffusion")
    if stage is None:
        raise CheckpointError(f"{run} has no trained diffusion network; train that stage first")
    if not (run / "cache" / "index.json").exists():
        raise ConfigError(f"{run} has no packed scans (cache/index.json) to compare with")
    options = load_config({"data": stage["data"]}).data
    train = PackedScans(run / "cache", options.holdout, options.patch)
    held = PackedScans(run / "cache", options.holdout, options.patch, validation=True)
    check_split(train, held)
    subjects = _subjects(run, [case.name for case in (*train.cases, *held.cases)])
    both = {subjects[c.name] for c in train.cases} & {subjects[c.name] for c in held.cases}
    if both:
        raise ConfigError(f"{len(both)} subjects are trained on and held out; mend data.holdout")
    where = pick_device(device)
    # A distilled network is taught no draws without a condition.
    has_prior = stage["options"].get("cond_dropout", 0) > 0 and not model.own_sampler
    return _Run(model.to(where), where, run / "cache", options, train, held, subjects, has_prior)


def _subjects(run: Path, names: Sequence[str]) -> dict[str, str]:
    """The subject of each scan: of the manifest, else of its BIDS name, else the scan itself."""
    # beside the cache, which may be a link to that of a prepared folder, or in it
    paths = [run / "cache" / ".." / "manifest.csv", run / "cache" / "manifest.csv"]
    listed = {
        row.scan: row.subject for path in paths if path.is_file() for row in read_manifest(path)
    }
    return {name: listed.get(name) or bids_subject(name) or name for name in names}


def _drawn(known: _Run, samples: int, seed: int, report: Report) -> list[Sample]:
    """Samples without a condition, where the network was trained so, and conditional ones."""
    rng = np.random.default_rng(seed)
    options, size = known.options, known.options.patch
    low, high = np.log([options.sigma_min, options.sigma_max])
    drawn = []
    for number in range(samples if known.has_prior else 0):
        spacing = known.train.cases[int(rng.integers(len(known.train.cases)))].spacing
        sigma = float(np.exp(rng.uniform(low, high)))
        image = draw_prior(known.model, size, sigma=sigma, spacing=spacing, seed=seed + number)
        drawn.append(Sample("prior", "", _plain(image)))
        report("prior samples", number + 1, samples)
    trained = {"fidelity", "joint"} & set(known.model.card["stages"])  # else the plain decoder
    settings = RestoreOptions(mode="sample", fidelity=float(bool(trained)), texture=0.0)
    settings = settings.for_weights(known.model.own_sampler)
    for number, (name, patch, edges) in enumerate(_patches(known.held, samples, rng)):
        x = torch.from_numpy(patch)[None, None]
        noisy = fixed_noise(x, torch.tensor([edges]), options.sigma_max, seed + number)
        law = NoiseLaw(sigma=options.sigma_max)
        tile = TileRestorer(known.model, known.device, law, edges, seed + number, settings)
        image = torch.from_numpy(tile.restore(noisy.y[:, 0].numpy(), [(0, 0, 0)], 0))
        drawn.append(Sample("conditional", name, _plain(image)))
        report("conditional samples", number + 1, samples)
    return drawn


def _given(known: _Run, scans: Path, samples: int, seed: int) -> list[Sample]:
    """Patches of scans that were handed in, as many of each."""
    files = [scans] if scans.is_file() else find_scans(scans)
    with tempfile.TemporaryDirectory() as folder:
        failures = build_cache(files, Path(folder))
        if failures:
            raise VolumeReadError(f"cannot judge {failures[0]}")
        packed = PackedScans(Path(folder), (), known.options.patch)
        num = samples * len(packed.cases)
        drawn = _patches(packed, num, np.random.default_rng(seed))
        return [Sample("given", name, patch) for name, patch, _ in drawn]


def _held_out(known: _Run, num: int, *, round_trip: bool) -> list[Sample]:
    """Real patches that training never saw; through the codec where the samples went through it."""
    found = []
    for name, patch, _ in _patches(known.held, num, np.random.default_rng(1)):
        image = patch
        if round_trip:
            codec, x = known.model.codec, torch.from_numpy(patch)[None, None].to(known.device)
            with torch.inference_mode():
                image = _plain(codec.decode(codec.encode(x)))
        found.append(Sample("held-out", name, image))
    return found


def _patches(
    scans: PackedScans, num: int, rng: np.random.Generator
) -> list[tuple[str, NDArray[np.float32], list[float]]]:
    """(scan, patch, spacing) of random patches, the scans in turn."""
    names = [case.name for case in scans.cases]
    single = [scans.only(number) for number in range(len(names))]
    return [(names[i % len(names)], *single[i % len(names)].draw(rng)) for i in range(num)]


def _plain(image: Tensor) -> NDArray[np.float32]:
    """(P, P, P), without the values below 0 that no packed scan has."""
    plain: NDArray[np.float32] = image.float().clamp_min(0).cpu().numpy()
    return plain.reshape(plain.shape[-3:])


def _embedder(model: Model) -> Embed:
    """The latent means of the autoencoder, standardised as the codec does, and pooled."""

    def embed(images: Tensor) -> Tensor:
        latents = torch.cat([model.codec.encode(image[None]) for image in images])
        width = min(_POOL, latents.shape[-1])
        return torch.nn.functional.avg_pool3d(latents, width).flatten(1)

    return embed


def _rows(
    known: _Run, samples: Sequence[Sample], found: Sequence[Nearest], copies: Sequence[bool]
) -> list[dict[str, Any]]:
    names = [case.name for case in known.train.cases]
    return [
        {
            "kind": sample.kind,
            "source": sample.source,
            "copy": copy,
            **{metric: round(getattr(near, metric), 5) for metric in METRICS},
            "nearest_scan": names[near.scan],
            "nearest_subject": known.subjects[names[near.scan]],
            "corner": "x".join(str(i) for i in near.start),
        }
        for sample, near, copy in zip(samples, found, copies, strict=True)
    ]


def _facts(
    known: _Run, samples: Sequence[Sample], verdict: Verdict, alpha: float, seed: int
) -> dict[str, Any]:
    held = {known.subjects[case.name] for case in known.held.cases}
    kinds = sorted({sample.kind for sample in samples})
    counts = {
        kind: {
            "samples": sum(s.kind == kind for s in samples),
            "copies": sum(
                c for s, c in zip(samples, verdict.copies, strict=True) if s.kind == kind
            ),
        }
        for kind in kinds
    }
    return {
        "alpha": alpha,
        "copies": sum(verdict.copies),
        "samples": len(samples),
        "kinds": counts,
        "copies_expected_by_chance": verdict.expected,
        "probability_of_as_many_by_chance": verdict.chance,
        "thresholds": {name: asdict(found) for name, found in verdict.thresholds.items()},
        "held_out_rate_by_subject": verdict.held_out_rate,
        "held_out_subjects": len(held),
        "training_scans": len(known.train.cases),
        "training_subjects": len({known.subjects[case.name] for case in known.train.cases}),
        "patch": known.options.patch,
        "seed": seed,
        "weights_sha256": known.model.digest,
        "versions": versions(),
    }


def _pairs(
    rows: Sequence[dict[str, Any]], samples: Sequence[Sample], found: Sequence[Nearest]
) -> list[tuple[str, list[Pair]]]:
    """The nearest pairs of the samples, copies first, and those of the held-out patches."""
    blocks = []
    for title, held in (
        ("Samples, and the training patch nearest to each", False),
        ("Held-out real patches, and theirs", True),
    ):
        mine = [i for i, s in enumerate(samples) if (s.kind == "held-out") == held]
        mine.sort(key=lambda i: (rows[i]["copy"], found[i].correlation), reverse=True)
        pairs = [(_caption(rows[i]), samples[i].image, found[i].patch) for i in mine[:_SHOWN]]
        blocks.append((title, pairs))
    return blocks


def _caption(row: dict[str, Any]) -> str:
    figures = f"correlation {row['correlation']:.3f}, of latents {row['embedding']:.3f}"
    return f"{row['kind']}: {figures}" + (" (copy)" if row["copy"] else "")


def _write(
    folder: Path,
    rows: list[dict[str, Any]],
    facts: dict[str, Any],
    pairs: list[tuple[str, list[Pair]]],
) -> list[Path]:
    with staged(folder) as work:
        write_csv(work / "nearest.csv", rows)
        write_json(work / "memorisation.json", facts)
        write_html(work / "memorisation.html", memorisation_page(pairs, plain(facts)))
    return [folder / name for name in _FILES]
