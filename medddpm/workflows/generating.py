"""Draw synthetic heads from a prior: labelled as such, and never a copy of a training scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medddpm.errors import ConfigError
from medddpm.generation.drawing import Artist, Draw, DrawOptions
from medddpm.generation.heads import Head, head_of
from medddpm.generation.prior_file import TrainedPrior, find_prior, load_prior
from medddpm.io import read_volume, write_volume
from medddpm.io.nifti import nifti_header
from medddpm.io.outputs import Target, check_targets, staged, write_json
from medddpm.io.provenance import checksum, versions
from medddpm.restoration.restorer import Restorer

LABEL = "SYNTHETIC"
STATEMENT = (
    "Drawn by a machine-learning model: no person was scanned. For research; not a medical device."
)


@dataclass(frozen=True)
class Generated:
    """What was written, and what was not.

    Attributes:
        image: The scan.
        draw: Of it.
        written: False if it is a copy, which is not written.
    """

    image: Path
    draw: Draw
    written: bool


def generate(
    out: str | Path,
    *,
    count: int = 1,
    prior: str | Path = "t1w",
    weights: str | Path = "default",
    contrast: str | None = None,
    like: str | Path | None = None,
    options: DrawOptions | None = None,
    allow_copies: bool = False,
    device: str = "auto",
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Generated]:
    """Write `count` synthetic heads into a folder, each with a sidecar.

    Every draw is compared with the training scans first; one that is more like one of them than
    another person's scan is a copy, and is not written.

    Args:
        out: Folder; made if missing.
        count: How many are drawn.
        prior: A shipped name or a file of `medddpm train prior`.
        weights: The model with the prior's autoencoder.
        contrast: What is expected; the prior's own if not given.
        like: A scan to make variants of, on a grid around its head.
        options: How; the defaults if not given.
        allow_copies: Write copies too; their sidecars say so.
        device: "auto", "cpu", "cuda" or "cuda:1".
        overwrite: Replace outputs that exist.
        on_progress: Called with how many are done, and of how many.

    Raises:
        ConfigError: The count is below 1, or no prior was trained for this contrast or spacing.
        CheckpointError: The prior or the weights cannot be read.
        OutputError: An output exists, or cannot be written.
    """
    if count < 1:
        raise ConfigError(f"count is {count}; at least one head is drawn")
    options = options or DrawOptions()
    path = find_prior(prior)
    trained = load_prior(path)
    if contrast is not None and contrast.casefold() != trained.card.contrast.casefold():
        raise ConfigError(
            f"prior {path.name} was trained on {trained.card.contrast}, not on {contrast}; give "
            "another --prior"
        )
    artist = Artist(trained, Restorer.from_pretrained(weights, device), options)
    targets = [_target(Path(out), trained, options.seed + number) for number in range(count)]
    check_targets(
        [path for t in targets for path in (t.image, t.sidecar)],
        overwrite=overwrite,
        inputs=[Path(like)] if like is not None else [],
    )
    head = None if like is None else head_of(read_volume(like), trained.prior.spec.spacing)
    facts = _facts(trained, path, artist, options, head)
    done = []
    for number, target in enumerate(targets):
        draw = artist.draw(number, target.stem, head)
        written = allow_copies or head is not None or not draw.likeness.is_copy
        if written:
            _write(target, draw, facts)
        done.append(Generated(target.image, draw, written))
        if on_progress:
            on_progress(number + 1, count)
    return done


def _target(out: Path, trained: TrainedPrior, seed: int) -> Target:
    return Target(out, f"synthetic-{seed:04d}_{trained.card.contrast}", ".nii.gz")


def _write(target: Target, draw: Draw, facts: dict[str, Any]) -> None:
    header = nifti_header(draw.volume)
    header["intent_name"] = LABEL.encode()
    volume = replace(draw.volume, native=header)
    likeness = asdict(draw.likeness) | {"is_copy": draw.likeness.is_copy}
    with staged(target.folder) as folder:
        image = write_volume(volume, folder / target.image.name)
        own = {"seed": draw.seed, "nearest_training_scan": likeness, "sha256": checksum([image])}
        write_json(folder / target.sidecar.name, facts | own)


def _facts(
    trained: TrainedPrior, path: Path, artist: Artist, options: DrawOptions, head: Head | None
) -> dict[str, Any]:
    """What is the same for all heads of one call."""
    return {
        "label": LABEL,
        "statement": STATEMENT,
        "options": asdict(options) | {"spacing": artist.spacing},
        "prior": {"sha256": checksum([path]), **trained.card.model_dump(exclude={"scans", "held"})},
        "training_scans": len(trained.card.scans),
        "weights_sha256": artist.model.digest,
        "variant_of": None if head is None else head.name,
        "versions": versions(),
    }
