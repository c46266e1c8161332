"""Everything that a training can be told; the defaults live here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from annotated_types import Ge, Gt, Interval

from medddpm.errors import ConfigError
from medddpm.io.yaml_text import YAML_SWITCH
from medddpm.model.spec import AutoencoderSpec, DiffusionSpec, FidelitySpec
from medddpm.reference.network import ReferenceSpec

_FORBID: dict[str, str] = {"extra": "forbid"}
_Fraction = Annotated[float, Interval(ge=0, le=1)]
_Positive = Annotated[float, Gt(0)]
_Count = Annotated[int, Ge(1)]
Spec = TypeVar("Spec", AutoencoderSpec, DiffusionSpec, FidelitySpec, ReferenceSpec)


@dataclass(frozen=True)
class DataOptions:
    """Which scans and patches; `holdout` holds fnmatch patterns on file stems.

    `references` are clean scans among noisy ones, to validate with and nothing else.

    Attributes:
        thicken: Share of the patches whose slices are averaged to thick ones.
        coarsen: Share of the patches whose k-space is cropped to a coarser grid.
        acquired: Share of the patches with a simulated acquisition; the others get white noise.
        lesions: Share of the patches with small spots, brighter or darker than what is there.
        labels: Folder of label maps; each draw gives one other intensities. Empty for none.
        label_share: Share of the patches that come from them.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    patch: Annotated[int, Ge(16)] = 64
    holdout: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    thicken: _Fraction = 0.15
    coarsen: _Fraction = 0.5
    acquired: _Fraction = 0.7
    lesions: _Fraction = 0.2
    labels: str = ""
    label_share: _Fraction = 0.25
    sigma_min: _Positive = 0.004
    sigma_max: _Positive = 0.2
    rician: _Fraction = 0.8
    masked_background: _Fraction = 0.5
    gain_map: _Fraction = 0.25


@dataclass(frozen=True)
class AutoencoderOptions(AutoencoderSpec):
    """The autoencoder and its training.

    Attributes:
        weights: File of `medddpm import`, for `kind` "imported".

    Raises:
        ConfigError: One of `kind` and `weights` is set for an imported autoencoder, not both.
    """

    weights: str = ""
    steps: _Count = 4000
    batch: _Count = 4
    learning_rate: _Positive = 2e-4
    kl_weight: Annotated[float, Ge(0)] = 1e-6

    def __post_init__(self) -> None:
        if (self.kind == "imported") != bool(self.weights):
            raise ConfigError(
                "autoencoder.kind=imported and autoencoder.weights=FILE go together: set both, or "
                "use --codec FILE"
            )


@dataclass(frozen=True)
class DiffusionOptions(DiffusionSpec):
    """The conditional U-Net and its training."""

    steps: _Count = 4000
    batch: _Count = 4
    learning_rate: _Positive = 2e-4
    terminal_fraction: _Fraction = 0.5
    cond_dropout: _Fraction = 0.05
    snr_gamma: _Positive = 5.0


@dataclass(frozen=True)
class FidelityOptions(FidelitySpec):
    """The fidelity decoder and its training.

    `objective` says what the scans are: clean ones that get noise ("supervised"), noisy ones with
    repeats ("pairs"), or noisy ones ("single").
    """

    steps: _Count = 4000
    batch: _Count = 4
    learning_rate: _Positive = 2e-4
    terminal_fraction: _Fraction = 0.6
    objective: Literal["supervised", "pairs", "single"] = "supervised"


@dataclass(frozen=True)
class JointOptions:
    """The training of U-Net and fidelity decoder at once; the networks are those of both."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    steps: _Count = 100_000
    batch: _Count = 1
    learning_rate: _Positive = 4e-3
    terminal_fraction: _Fraction = 0.55
    cond_dropout: _Fraction = 0.1
    snr_gamma: _Positive = 5.0


@dataclass(frozen=True)
class DistilOptions:
    """The distillation of a trained diffusion network to few steps.

    Attributes:
        intervals: Steps of the teacher from the start of a path to its end.
        start: `restore.start` that is taught; a prior is taught from pure noise on.
        terminal_fraction: Share of the batch at the terminal level, where the student answers as
            its teacher does, so that `mean` stays what it was; a prior has no `mean`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    steps: _Count = 1000
    batch: _Count = 4
    learning_rate: _Positive = 1e-4
    intervals: Annotated[int, Ge(2)] = 8
    start: _Positive = 2.0
    terminal_fraction: _Fraction = 0.25


@dataclass(frozen=True)
class ReferenceOptions(ReferenceSpec):
    """The reference network and its training.

    Attributes:
        pairs: CSV of scans and their references, see `PairedScans`. Empty for none.
        scenes: Patches that are restored once, to learn from.
        held_scenes: Patches of held-out scans, to validate with.
        sigma_min: Least noise, on the intensity scale.
        sigma_max: Most noise.
        wrong: Share of the samples whose reference does not belong to the scan.
        shift: Of a reference that belongs to it, at most, in voxels along each axis.
    """

    pairs: str = ""
    scenes: _Count = 240
    held_scenes: _Count = 12
    sigma_min: _Positive = 0.02
    sigma_max: _Positive = 0.2
    wrong: _Fraction = 0.3
    shift: Annotated[float, Ge(0)] = 1.0
    steps: _Count = 2000
    batch: _Count = 4
    learning_rate: _Positive = 2e-3


@dataclass(frozen=True)
class TrainOptions:
    """The loop that all three stages share.

    `compile` compiles the elementwise part of the fidelity decoder, for which PyTorch needs a C++
    compiler: a step of the shipped recipe takes a fifth less time.

    One step sees batch x `accumulate` x devices x nodes samples. Under torchrun the devices and
    nodes are those of the launch; under Slurm they must be those that were asked for.

    Attributes:
        schedule: "constant" may run for as long as there is time, and "decay" ends such a run:
            linearly to zero over the last `decay_steps` (warmup, stable, decay; Hu et al. 2024).
        bf16: Mixed precision; "auto" takes bfloat16 where the processor has it.
        minutes: Stop after so many minutes of steps, all resumed parts together; 0 for no limit.
        patience: Stop after so many validations without a gain of the stage's main figure, and
            keep the weights of the best; 0 trains to the last step.
        mlflow: Folder for MLflow's database, or the address of a tracking server; empty for none.
        device: "auto", "cpu", "cuda" or, for one process, "cuda:1".
        devices: Processes on each node, with one GPU each unless `device` is "cpu".
        strategy: "auto" makes a process group where there are several processes, "ddp" always.
        workers: Threads that draw batches ahead; by default none on a CPU and 8 beside a GPU.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    schedule: Literal["cosine", "constant", "decay"] = "cosine"
    decay_steps: _Count = 2000
    warmup: Annotated[int, Ge(0)] = 200
    weight_decay: Annotated[float, Ge(0)] = 0.0
    clip: _Positive = 2.0
    ema: _Fraction = 0.998
    bf16: Annotated[Literal["auto", "on", "off"], YAML_SWITCH] = "auto"
    compile: bool = False
    seed: int = 0
    log_every: _Count = 25
    validate_every: _Count = 500
    save_minutes: _Positive = 3.0
    validation_patches: _Count = 8
    minutes: Annotated[float, Ge(0)] = 0.0
    patience: Annotated[int, Ge(0)] = 0
    tensorboard: bool = False
    mlflow: str = ""
    accumulate: _Count = 1
    device: str = "auto"
    devices: _Count = 1
    num_nodes: _Count = 1
    strategy: Literal["auto", "ddp"] = "auto"
    workers: Annotated[int, Ge(0)] | None = None


@dataclass(frozen=True)
class FinetuneOptions:
    """How trained weights are changed by `train --from`; the networks are those of the weights.

    Attributes:
        freeze: Patterns (fnmatch) of the parameters of the stage's network that stay as they are.
        rank: Of low-rank adapters, which alone are trained; 0 trains the weights themselves.
        replay: Share of the samples that are drawn from the scans of `--replay`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    freeze: tuple[str, ...] = ()
    rank: Annotated[int, Ge(0)] = 0
    replay: _Fraction = 0.25


@dataclass(frozen=True)
class Options:
    """All sections together, as a config file has them."""

    data: DataOptions = field(default_factory=DataOptions)
    autoencoder: AutoencoderOptions = field(default_factory=AutoencoderOptions)
    diffusion: DiffusionOptions = field(default_factory=DiffusionOptions)
    fidelity: FidelityOptions = field(default_factory=FidelityOptions)
    joint: JointOptions = field(default_factory=JointOptions)
    distil: DistilOptions = field(default_factory=DistilOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    finetune: FinetuneOptions = field(default_factory=FinetuneOptions)


def spec_of(options: Any, kind: type[Spec]) -> Spec:
    """The part of the options that rebuilds the network."""
    return kind(**{f.name: getattr(options, f.name) for f in fields(kind)})
