"""Train, draw and measure every method into one table and one page; a second call goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medddpm.comparison.judge import (
    Images,
    Row,
    compared,
    copies,
    drawn,
    figures,
    known_reals,
    lacks_variety,
    peak_memory,
    real_heads,
    round_trip,
)
from medddpm.comparison.methods import Method, method_of, ready
from medddpm.comparison.options import CompareOptions
from medddpm.comparison.page import Facts, comparison_page
from medddpm.comparison.restoring import noisy_heads
from medddpm.comparison.scene import Scene, folder_of, fresh_network
from medddpm.config import Config
from medddpm.data.manifest import bids_subject
from medddpm.errors import CheckpointError, ConfigError, OutputError, SamplingDivergedError
from medddpm.generation.learning import PriorStage
from medddpm.generation.prior_file import find_prior
from medddpm.generation.train import Halves, Known, heads_of, known_heads
from medddpm.io import atomic_path
from medddpm.io.outputs import check_targets, plain, staged, write_csv, write_html, write_json
from medddpm.io.provenance import versions
from medddpm.likeness.compare import LEAST_SCANS
from medddpm.model.model import Model, find_weights, load_model
from medddpm.restoration.restorer import pick_device
from medddpm.training.data import add_subjects
from medddpm.training.loop import OnLog

REAL, AUTOENCODER, READY = "real heads", "autoencoder", "prior"
"""Rows of the table beside those of the methods."""
_FILES = ("comparison.csv", "comparison.json", "comparison.html")
_SETTINGS = "settings.json"
_DECISIVE = ("warmup", "weight_decay", "clip", "ema", "bf16", "seed", "accumulate")
"""Options of the training loop that its steps depend on."""
_ENDLESS = 10**9
_SHOWN = 4
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Comparison:
    """One row a method, after those of real heads and of the autoencoder; and what was written."""

    rows: list[Row] = field(repr=False)
    paths: list[Path]


def compare(
    data: str | Path,
    *,
    out: str | Path,
    config: Config | None = None,
    options: CompareOptions | None = None,
    weights: str | Path = "default",
    on_log: OnLog | None = None,
    on_progress: Report | None = None,
) -> Comparison:
    """Compare generators of whole heads that learn the same heads within the same budget.

    Each trains below `out`/methods, and goes on from there when called again with more minutes.
    Table and page are written after each method.
    The learning rate is constant, so that it does not matter how often a training was stopped.

    Args:
        data: Folder of NIfTI scans; those whose name ends in the contrast are taken.
        out: For methods/, heads/, comparison.csv, comparison.json and comparison.html.
        config: Of the networks, their training and what is held out; the defaults if not given.
        options: Which methods, how long, and how many draws.
        weights: The model whose autoencoder draws and is drawn beside the others.
        on_log: Called with each row that a training logs.
        on_progress: Called with what is being done, how much is done, and of how much.

    Raises:
        ConfigError: A method is unknown, or there are too few scans; nothing was trained.
        OutputError: `out` holds a comparison of other settings, or cannot be written.
        CheckpointError: The weights or a saved state cannot be read.
    """
    out, options, config = Path(out), options or CompareOptions(), config or Config()
    methods = {READY: ready(find_prior(options.prior))} if options.prior else {}
    methods |= {name: method_of(name) for name in options.methods}
    if config.train.devices * config.train.num_nodes > 1:
        raise ConfigError("compare trains in one process: leave train.devices and num_nodes at 1")
    check_targets([out / name for name in _FILES], overwrite=True)
    model = load_model(find_weights(weights))
    halves = heads_of(Path(data), out / "heads", config.prior, config.data.holdout)
    settings = _settings(config, halves, model)
    _claim(out, settings, halves)
    for name in methods:
        add_subjects(folder_of(out, name), ((bids_subject(h.name), h.name) for h in halves.train))
    scene, known = opened(halves, model, config, options)
    gallery = _Gallery(scene, known, options, on_log, on_progress or (lambda *_: None))
    for name, method in methods.items():
        gallery.add(name, method, folder_of(out, name))
        _write(out, gallery, settings, options)  # after each: the next may take hours
    return Comparison(gallery.rows, [out / name for name in _FILES])


def _settings(config: Config, halves: Halves, model: Model) -> dict[str, Any]:
    """What all calls on one folder share."""
    prior = {k: v for k, v in asdict(config.prior).items() if k != "steps"}
    found: dict[str, Any] = plain(
        {
            "prior": prior,
            "train": {name: getattr(config.train, name) for name in _DECISIVE},
            "scans": [h.name for h in halves.train],
            "held_out": [h.name for h in halves.held],
            "autoencoder": model.digest,
        }
    )
    return found


def _claim(out: Path, settings: dict[str, Any], halves: Halves) -> None:
    """Refuse what cannot be compared, and a folder that another comparison was written into."""
    scans = len(halves.train) + len(halves.held)
    if scans < LEAST_SCANS:
        raise ConfigError(
            f"{scans} scans of contrast {settings['prior']['contrast']} are too few to compare "
            f"with; {LEAST_SCANS} are needed"
        )
    path = out / _SETTINGS
    if not path.exists():
        with atomic_path(path) as partial:
            write_json(partial, settings)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"cannot read {path}: {error}; take another --out") from error
    other = [key for key, value in settings.items() if before.get(key) != value]
    if other:
        raise OutputError(
            f"{out} holds a comparison with other {', '.join(other)}; take another --out, or give "
            f"what {path.name} says"
        )


def opened(
    halves: Halves, model: Model, config: Config, options: CompareOptions
) -> tuple[Scene, Known]:
    """The scene, with the mean head, and what tells copies."""
    steps = _ENDLESS if options.steps is None else options.steps
    minutes = options.minutes if options.steps is None else 0.0
    prior = replace(config.prior, steps=steps)
    train = replace(config.train, schedule="constant", minutes=minutes)
    network = fresh_network(prior, train.seed).to(pick_device(train.device))
    stage = PriorStage(network, halves.train, halves.held, prior)
    stage.start()
    known = known_heads(halves, prior)
    scene = Scene(halves, model, prior, train, network.cpu(), options.draw_steps)
    return scene, known


class _Gallery:
    """The rows so far, and pictures of what was drawn."""

    def __init__(
        self,
        scene: Scene,
        known: Known,
        options: CompareOptions,
        on_log: OnLog | None,
        report: Report,
    ) -> None:
        self.scene, self.known, self.options = scene, known, options
        self.on_log, self.report = on_log, report
        reals, names = real_heads(scene)
        self.reals, self.noisy = known_reals(reals, names), noisy_heads(scene)
        chosen = np.random.default_rng(options.seed).permutation(len(reals))
        floor = compared(round_trip(reals[chosen[: options.count]], scene), self.reals)
        self.rows: list[Row] = [
            {"method": REAL, "state": "done", **figures(floor, "reals")},
            {"method": AUTOENCODER, "state": "done", **figures(floor, "draws")},
        ]
        self.rows[1]["restored_psnr"] = self.noisy.psnr(lambda x: scene.decoded(scene.encoded(x)))
        held = reals[len(scene.halves.train) :]
        self.pictures: list[tuple[str, Images]] = [("held-out real heads", held[:_SHOWN])]

    def add(self, name: str, method: Method, folder: Path) -> None:
        """Train a method, draw with it, and measure what it draws."""
        row: Row = {"method": name, "state": "done"}
        seeds = [self.options.seed + number for number in range(self.options.count)]
        with peak_memory(pick_device(self.scene.train.device)) as memory:
            try:
                trained = method(self.scene, folder, self._logged(name))
                draws = drawn(
                    trained,
                    self.scene,
                    self.known,
                    seeds,
                    lambda done: self.report(f"{name}: draws", done, len(seeds)),
                )
            except SamplingDivergedError as error:
                self.rows.append(row | {"state": "diverged", "error": str(error)})
                return
        likeness = compared(draws.images, self.reals)
        self.rows.append(
            row
            | {
                "steps": trained.steps,
                "train_minutes": trained.minutes,
                "seconds_a_draw": draws.seconds,
                "calls_a_draw": trained.calls,
                "memory_gb": memory(),
                "weights": trained.weights,
                **figures(likeness, "draws"),
                **copies(draws.similarity, self.known),
                "about": trained.about,
            }
        )
        if trained.restore is not None:
            self.rows[-1]["restored_psnr"] = self.noisy.psnr(trained.restore)
        self.rows[-1]["lacks_variety"] = lacks_variety(self.rows[-1], self.rows[0])
        self.pictures.append((name, draws.images[:_SHOWN]))

    def _logged(self, name: str) -> OnLog | None:
        listen = self.on_log
        if listen is None:
            return None
        unknown = {"steps"} if self.options.steps is None else set()  # as many as there is time for

        def tell(row: dict[str, Any]) -> None:
            listen({k: v for k, v in row.items() if k not in unknown} | {"stage": name})

        return tell


def _write(out: Path, gallery: _Gallery, settings: dict[str, Any], options: CompareOptions) -> None:
    """Write the table so far as CSV and JSON, and the page, all at once."""
    facts = {
        "settings": settings,
        "options": asdict(options),
        "copy_threshold": gallery.known.threshold,
        "versions": versions(),
        "rows": gallery.rows,
    }
    page = comparison_page(
        gallery.rows,
        gallery.pictures,
        Facts(
            contrast=gallery.scene.prior.contrast,
            budget=(
                f"{options.minutes:g} minutes"
                if options.steps is None
                else f"{options.steps} steps"
            ),
            learned=len(settings["scans"]),
            held=len(settings["held_out"]),
            count=options.count,
            threshold=gallery.known.threshold,
            made=facts,
        ),
    )
    with staged(out) as folder:
        write_csv(folder / _FILES[0], gallery.rows)
        write_json(folder / _FILES[1], facts)
        write_html(folder / _FILES[2], page)
