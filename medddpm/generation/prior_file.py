"""The file of a prior: network, mean head, and what tells copies; safetensors, no code in it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from medddpm.errors import CheckpointError, ConfigError
from medddpm.generation.cascade import Cascade
from medddpm.generation.copies import Memory
from medddpm.generation.options import PriorSpec
from medddpm.generation.prior import STATISTICS
from medddpm.io import atomic_path
from medddpm.io.tensors import save_tensors
from medddpm.model.weights_file import read_network

PRIOR_VERSION = 1
SHIPPED = "T1w"
_KEY = "medddpm_prior"
_EXACT = (*STATISTICS, "filter")


class DistilledCard(BaseModel):
    """What a prior was distilled from, and how near it came.

    Attributes:
        teacher: SHA-256 of the file of its teacher.
        sampler: That it is for.
        steps: Of the distillation, by scale.
        hours: Of its steps.
        closed: By scale, see `generation.distil.PriorDistilStage`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: str
    sampler: Literal["consistency"] = "consistency"
    steps: dict[str, int]
    hours: float
    closed: dict[str, float]


class PriorCard(BaseModel):
    """What a prior is, and what was measured of it.

    Attributes:
        version: Of this layout.
        contrast: Of the scans that it learned.
        scans: Training scans, by name.
        held: Held-out scans, by name.
        consent: Training scans by what their subjects said to synthetic scans.
        steps: Of the training, by scale.
        hours: Of its steps, all parts of a resumed training together.
        explained: Share of the variance among held-out heads that each scale finds again, see
            `PriorStage`.
        threshold: Similarity above which a draw is a copy.
        recognised: Share of training scans in other poses that lie above the threshold.
        distilled: How it was taught to draw in few steps; None if it was not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = PRIOR_VERSION
    contrast: str
    scans: tuple[str, ...]
    held: tuple[str, ...]
    consent: dict[str, int]
    steps: dict[str, int]
    hours: float
    explained: dict[str, dict[str, float]]
    threshold: float
    recognised: float
    distilled: DistilledCard | None = None


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid")

    spec: PriorSpec
    card: PriorCard


@dataclass(frozen=True)
class TrainedPrior:
    """A prior that can be drawn from.

    Attributes:
        prior: In float32 on the CPU, for inference.
        memory: Of the training scans and their mirror images.
        card: What it is.
    """

    prior: Cascade
    memory: Memory
    card: PriorCard


def save_prior(path: Path, trained: TrainedPrior) -> None:
    """Write the file by atomic rename: bfloat16 but for what was measured of the heads."""
    tensors = {
        name: (value if name.rpartition(".")[2] in _EXACT else value.bfloat16()).contiguous().cpu()
        for name, value in trained.prior.state_dict().items()
    }
    tensors |= {f"memory.{k}": v.contiguous().cpu() for k, v in vars(trained.memory).items()}
    header = _Header(spec=trained.prior.spec, card=trained.card).model_dump_json()
    with atomic_path(path) as partial:
        save_tensors(partial, tensors, {_KEY: header})


def find_prior(name: str | Path) -> Path:
    """The file of a shipped prior by its contrast, such as "T1w", or the path itself.

    Raises:
        ConfigError: None of that name is shipped.
    """
    path = Path(name)
    if path.suffix or path.exists():
        return path
    shipped = Path(str(files("medddpm") / "weights" / "prior" / f"{name}.safetensors"))
    if not shipped.is_file():
        known = sorted(p.stem for p in shipped.parent.glob("*.safetensors"))
        raise ConfigError(
            f"no prior is called {str(name)!r}; shipped: {known}, or give a file of "
            "`medddpm train prior`"
        )
    return shipped


def load_prior(path: Path) -> TrainedPrior:
    """The prior of a file, for inference.

    Raises:
        CheckpointError: It is missing, damaged, no prior, or does not fit its own header.
    """
    text, tensors = read_network(path, _KEY, "prior")
    try:
        header = _Header.model_validate_json(text)
        prior = Cascade(header.spec)
        memory = Memory(tensors.pop("memory.rows"), tensors.pop("memory.centre"))
        prior.load_state_dict(tensors)
    except (ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"prior {path} does not fit its own header ({type(error).__name__}); train it again "
            "or fetch it again"
        ) from error
    return TrainedPrior(prior.eval().requires_grad_(False), memory, header.card)
