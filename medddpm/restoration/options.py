"""What a restoration can be told; the defaults live here and nowhere else."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Interval

from medddpm.diffusion.samplers import sampler_of
from medddpm.errors import ConfigError, OptionWarning
from medddpm.io.yaml_text import YAML_SWITCH
from medddpm.named import path_of
from medddpm.preprocess.noise_law import WHITE, Colour, NoiseKind, NoiseLaw

Mode = Literal["mean", "sample", "ensemble"]
Frames = Literal["each", "mppca"]
Backend = Literal["torch", "compile", "onnx", "openvino"]
_ONLY_IN: dict[str, tuple[Mode, ...]] = {
    "samples": ("ensemble",),
    "steps": ("sample", "ensemble"),
    "sampler": ("sample", "ensemble"),
    "start": ("sample", "ensemble"),
    "texture": ("sample", "ensemble"),
    "shifts": ("mean",),
    "give_back": ("mean",),
}
"""The modes that an option belongs to; those that are not here belong to all."""
_OF_THE_RUN = (
    "mode", "sigma", "noise_map", "colour", "seed", "memory_gb", "tile", "overlap", "bf16",
    "backend",
)  # fmt: skip
"""What belongs to a scan or a machine: a calibration holds whatever these are."""


@dataclass(frozen=True)
class RestoreOptions:
    """Options of one restoration.

    Attributes:
        mode: "mean" (E[z0 | y], one evaluation), "sample" (one plausible scan) or "ensemble".
        samples: Samples of an ensemble.
        steps: Evaluations of a sample.
        sampler: Which sampler takes them: a name, an import path, or a function, which is kept by
            its import path. Distilled weights have their own, "consistency", which takes the place
            of the default.
        sigma: Noise in the scan's own units; None estimates it.
        fidelity: 1 is the fidelity decoder, 0 the plain decoder of the latent.
        texture: Share of what the fidelity decoder leaves open that a sample draws: 1 gives the
            power of a real scan, 0 the most likely image for its latent (not in "mean").
        give_back: What was removed is given back where its local mean stands out of noise, smoothed
            by a Gaussian of so many voxels: small weak lesions stay. 0 is off ("mean" only).
        noise_map: "auto" asks the scan whether its noise varies in space, as with parallel
            imaging, where sigma is estimated; "off" takes one number everywhere.
        colour: "auto" finds the spectrum of the noise in the scan, which scanners that fill
            k-space with zeros or filter it have coloured; "white" takes it for white; a spectrum
            that is known is given by its edge, elliptical and window, see `Colour`.
        noise: Law of the noise.
        coils: Coils of "ncchi".
        seed: With the case id it fixes the noise field.
        memory_gb: Budget for the whole process; None takes what there is.
        tile: Edge of a tile in voxels.
        overlap: Voxels that neighbouring tiles share.
        shifts: Restorations that are averaged, each with the grid of blocks one voxel further
            along another axis, 1 to 4 ("mean" only).
        start: Noise of a truncated start, in units of the scan's own noise in the latent.
        guidance_scale: Weight of the likelihood gradient; 0 is off.
        cfg_weight: Classifier-free guidance; 1 is the conditional network alone.
        bf16: "auto" takes bfloat16 where the processor has it.
        backend: What runs the networks of "mean": PyTorch as it is ("torch"), compiled, ONNX
            Runtime or OpenVINO ("onnx", "openvino"; float32 on the CPU). Each has its own bytes.
        frames: Those of a 4D scan are restored each alone ("each"), or after MPPCA has told what
            they share from their noise ("mppca", in mode "mean"); see `restoration.series`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    mode: Mode = "mean"
    samples: Annotated[int, Ge(2)] = 8
    steps: Annotated[int, Ge(1)] = 4
    sampler: str = "ddim"
    sigma: Annotated[float, Gt(0)] | None = None
    fidelity: Annotated[float, Interval(ge=0, le=1)] = 1.0
    texture: Annotated[float, Interval(ge=0, le=1)] = 1.0
    give_back: Annotated[float, Interval(ge=0, le=8)] = 0.8
    noise_map: Annotated[Literal["auto", "off"], YAML_SWITCH] = "auto"
    colour: Literal["auto", "white"] | Colour = "auto"
    noise: NoiseKind = "rician"
    coils: Annotated[int, Ge(1)] = 1
    seed: int = 0
    memory_gb: Annotated[float, Gt(0)] | None = None
    tile: Annotated[int, Ge(16)] = 144
    overlap: Annotated[int, Ge(0)] = 16
    shifts: Annotated[int, Interval(ge=1, le=4)] = 2
    start: Annotated[float, Gt(0)] = 2.0
    guidance_scale: Annotated[float, Ge(0)] = 0.0
    cfg_weight: Annotated[float, Ge(0)] = 1.0
    bf16: Annotated[Literal["auto", "on", "off"], YAML_SWITCH] = "auto"
    backend: Backend = "torch"
    frames: Frames = "each"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampler", path_of(self.sampler, "sampler"))
        sampler_of(self.sampler)
        if self.sigma is not None and not 0 < self.sigma < float("inf"):
            raise ConfigError(f"sigma is {self.sigma}; give a positive number in the scan's units")
        if self.mode not in ("mean", "sample", "ensemble"):
            raise ConfigError(f"mode is {self.mode!r}; choose mean, sample or ensemble")
        if not 0 <= self.fidelity <= 1:
            raise ConfigError(f"fidelity is {self.fidelity}; it lies between 0 and 1")
        if not 0 <= self.texture <= 1:
            raise ConfigError(f"texture is {self.texture}; it lies between 0 and 1")
        if not 0 <= self.give_back <= 8:
            raise ConfigError(f"give_back is {self.give_back}; it lies between 0 and 8 voxels")
        if self.backend != "torch" and not self.is_one_graph:
            raise ConfigError(
                f"restore.backend {self.backend} runs mode mean with fidelity 1 and without "
                "guidance; use torch for the others"
            )

        if self.frames not in ("each", "mppca"):
            raise ConfigError(f"frames is {self.frames!r}; choose each or mppca")
        if self.frames == "mppca" and self.mode != "mean":
            raise ConfigError(
                f"restore.frames=mppca belongs to mode mean, and mode is {self.mode}, whose "
                "samples would not hold what MPPCA is uncertain of"
            )

    def for_weights(self, own_sampler: str) -> RestoreOptions:
        """These options with the sampler that the weights were distilled for, "" if they were not.

        Raises:
            ConfigError: Another one was asked for.
        """
        if self.mode == "mean" or own_sampler in ("", self.sampler):
            return self
        if self.sampler != RestoreOptions.sampler:
            raise ConfigError(
                f"restore.sampler is {self.sampler}, and these weights were distilled for "
                f"{own_sampler}: leave it out, or take the weights that they were distilled from"
            )
        return replace(self, sampler=own_sampler)

    @property
    def is_one_graph(self) -> bool:
        """True if all networks run as one function of a tile, see `restoration.graph`."""
        plain = self.fidelity == 1 and self.guidance_scale == 0 and self.cfg_weight == 1
        return self.mode == "mean" and plain

    @property
    def method(self) -> dict[str, Any]:
        """The options that change what good restorations look like and how far samples spread."""
        names = [f.name for f in fields(self) if f.name not in _OF_THE_RUN]
        return {n: getattr(self, n) for n in names if self.mode in _ONLY_IN.get(n, (self.mode,))}

    def other_than(self, calibrated: Mapping[str, Any]) -> dict[str, Any]:
        """Options of the method that a calibration was made with otherwise: theirs, by name.

        Args:
            calibrated: Options of the calibration; what it does not name had its default.
        """
        defaults = {f.name: f.default for f in fields(self)}
        theirs = {name: calibrated.get(name, defaults[name]) for name in self.method}
        return {name: theirs[name] for name, value in self.method.items() if theirs[name] != value}

    @property
    def law(self) -> NoiseLaw:
        """The kind of the noise, of a level that is not known."""
        return NoiseLaw(self.noise, self.coils)

    @property
    def known_colour(self) -> Colour | None:
        """The colour of the noise; None where it is found in the scan."""
        if isinstance(self.colour, Colour):
            return self.colour
        return WHITE if self.colour == "white" else None

    def idle(self, given: Collection[str] = ()) -> dict[str, str]:
        """A sentence on each option that was set and does nothing beside the others, by name.

        Args:
            given: Names of options that were set, if to their defaults; others count where they
                differ from those.
        """
        found = {}
        for field in fields(self):
            was_set = field.name in given or getattr(self, field.name) != field.default
            why = self._why_idle(field.name) if was_set else ""
            if why:
                found[field.name] = f"restore.{field.name} does nothing {why}"
        return found

    def _why_idle(self, name: str) -> str:
        if self.mode not in _ONLY_IN.get(name, (self.mode,)):
            return f"in mode {self.mode}; it belongs to {' and '.join(_ONLY_IN[name])}"
        if name == "coils" and self.noise != "ncchi":
            return f"with noise {self.noise}; it belongs to ncchi"
        if name == "texture" and self.fidelity == 0:
            return "with fidelity 0; it is drawn by the fidelity decoder"
        if name == "noise_map" and self.sigma is not None:
            return "where sigma is given; it belongs to an estimated one"
        return ""


def warn_of_idle(found: Mapping[str, str]) -> None:
    """Warn of options that do nothing, see `RestoreOptions.idle`, to whom the caller answers."""
    for text in found.values():
        warnings.warn(text, OptionWarning, stacklevel=3)
