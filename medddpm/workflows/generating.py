"""Draw synthetic heads from a prior: labelled as such, and tested for copies of training scans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medddpm.errors import ConfigError
from medddpm.generation.drawing import Artist, Draw, DrawOptions
from medddpm.generation.heads import Head
from medddpm.generation.prior_file import SHIPPED, TrainedPrior, find_prior, load_prior
from medddpm.io import read_volume, write_volume
from medddpm.io.nifti import nifti_header
from medddpm.io.outputs import Target, check_targets, staged, write_json
from medddpm.io.provenance import checksum, versions, voxel_checksum
from medddpm.io.synthetic_label import LABEL
from medddpm.marking.embed import mark
from medddpm.marking.key import Key, read_key
from medddpm.marking.signature import read_signing_key, sign
from medddpm.restoration.restorer import Restorer

STATEMENT = (
    "Drawn by a machine-learning model: no person was scanned. For research; not a medical device."
)


@dataclass(frozen=True)
class Seal:
    """What says that a scan is synthetic, beside the words in its header.

    Attributes:
        key: File of `medddpm key new`: every scan carries its invisible mark.
        signing_key: File of `medddpm key new --kind signature`: signs the sidecars.
    """

    key: str | Path
    signing_key: str | Path | None = None


@dataclass(frozen=True)
class Wanted:
    """What is drawn.

    Attributes:
        count: How many heads.
        contrast: Refuse a prior of another one; the prior's own if not given.
        like: A scan to make variants of, on a grid around its head.
        allow_copies: Write copies of training scans too; their sidecars say so.
    """

    count: int = 1
    contrast: str | None = None
    like: str | Path | None = None
    allow_copies: bool = False


@dataclass(frozen=True)
class Tools:
    """What draws.

    Attributes:
        prior: A shipped one by its contrast, or a file of `medddpm train prior`.
        weights: The networks that draw a finer grid than the prior's.
        device: "auto", "cpu", "cuda" or "cuda:1".
    """

    prior: str | Path = SHIPPED
    weights: str | Path = "default"
    device: str = "auto"


@dataclass(frozen=True)
class Generated:
    """What was written, and what was not.

    Attributes:
        image: The scan.
        draw: Of it.
        written: False if it is a copy, which is not written.
        recognised: Share of training scans in other poses that would be called copies.
    """

    image: Path
    draw: Draw
    written: bool
    recognised: float


@dataclass(frozen=True)
class _Keys:
    mark: Key
    signer: Any


def generate(
    out: str | Path,
    tools: Tools,
    seal: Seal,
    wanted: Wanted | None = None,
    *,
    options: DrawOptions | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Generated]:
    """Write synthetic heads into a folder, each with a mark, a label and a sidecar.

    Every draw is compared with the training scans first; one that is more like one of them than
    another person's scan is a copy, and is not written.

    Args:
        out: Folder; made if missing.
        tools: What draws.
        seal: Keys of the mark and of the signature.
        wanted: What; one head if not given.
        options: How; the defaults if not given.
        overwrite: Replace outputs that exist.
        on_progress: Called with how many are done, and of how many.

    Raises:
        ConfigError: The count is below 1, a key is none, or no prior was trained for this contrast
            or spacing.
        CheckpointError: The prior or the weights cannot be read.
        OutputError: An output exists, or cannot be written.
    """
    wanted, options = wanted or Wanted(), options or DrawOptions()
    if wanted.count < 1:
        raise ConfigError(f"count is {wanted.count}; at least one head is drawn")
    signer = None if seal.signing_key is None else read_signing_key(seal.signing_key)
    keys = _Keys(read_key(seal.key), signer)
    path = find_prior(tools.prior)
    trained = load_prior(path)
    _check_contrast(trained, path, wanted.contrast)
    artist = Artist(trained, Restorer.from_pretrained(tools.weights, tools.device), options)
    targets = [_target(Path(out), trained, options.seed + n) for n in range(wanted.count)]
    like = wanted.like
    check_targets(
        [path for t in targets for path in (t.image, t.sidecar)],
        overwrite=overwrite,
        inputs=[] if like is None else [Path(like)],
    )
    head = None
    if like is not None:
        head = artist.straight(read_volume(like))
    facts = _facts(trained, path, artist, options, head)
    done = []
    for number, target in enumerate(targets):
        draw = artist.draw(number, target.stem, head)
        written = wanted.allow_copies or head is not None or not draw.resemblance.is_copy
        if written:
            _write(target, draw, facts, keys)
        done.append(Generated(target.image, draw, written, trained.card.recognised))
        if on_progress:
            on_progress(number + 1, wanted.count)
    return done


def _check_contrast(trained: TrainedPrior, path: Path, contrast: str | None) -> None:
    own = trained.card.contrast
    if contrast is not None and contrast.casefold() != own.casefold():
        raise ConfigError(
            f"prior {path.name} was trained on {own}, not on {contrast}; give another --prior"
        )


def _target(out: Path, trained: TrainedPrior, seed: int) -> Target:
    return Target(out, f"synthetic-{seed:04d}_{trained.card.contrast}", ".nii.gz")


def _write(target: Target, draw: Draw, facts: dict[str, Any], keys: _Keys) -> None:
    marked = mark(draw.volume, keys.mark)
    header = nifti_header(marked)
    header["intent_name"] = LABEL.encode()
    volume = replace(marked, native=header)
    resemblance = asdict(draw.resemblance) | {"is_copy": draw.resemblance.is_copy}
    own = {
        "seed": draw.seed,
        "nearest_training_scan": resemblance,
        "voxels_sha256": voxel_checksum(volume),
    }
    told = facts | own
    with staged(target.folder) as folder:
        write_volume(volume, folder / target.image.name)
        signed = told if keys.signer is None else sign(told, keys.signer)
        write_json(folder / target.sidecar.name, signed)


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
        "bfloat16": artist.bf16,
        "weights_sha256": artist.weights_digest,
        "variant_of": None if head is None else head.name,
        "versions": versions(),
    }
