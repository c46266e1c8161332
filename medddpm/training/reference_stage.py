"""How the reference network learns, step by step, and how it is validated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from medddpm.preprocess.acquisition import smooth_field
from medddpm.reference.network import ReferenceNetwork
from medddpm.training.batches import Share
from medddpm.training.options import ReferenceOptions
from medddpm.training.reference_scenes import Scene, read_scene, recoloured
from medddpm.training.validation import psnr_inside, write_preview

Rng = np.random.Generator
Image = NDArray[np.float32]
_PATCH = 32
_EVERY = 2
"""Of so many voxels along each axis one is learned from: neighbours tell the same."""
_NOISE = 0.06
"""Most noise of a reference, on its intensity scale."""
_FAR = 4
"""Voxels that a reference of another place is away at least."""


@dataclass(frozen=True)
class PairBatch:
    """Noisy patches with their restorations and references, each (B, 1, P, P, P).

    Attributes:
        x: Clean.
        y: Noisy.
        mean: Restored.
        reference: Another contrast, or what does not belong to the scan.
        sigma: On the intensity scale.
        spacing: (B, 3) mm.
    """

    x: Tensor
    y: Tensor
    mean: Tensor
    reference: Tensor
    sigma: Tensor
    spacing: Tensor

    @classmethod
    def of(cls, samples: Sequence[tuple[Scene, Image]]) -> PairBatch:
        """Scenes with a reference each."""

        def stacked(pick: Callable[[Scene], NDArray[np.float16]]) -> Tensor:
            images = [np.asarray(pick(scene), np.float32) for scene, _ in samples]
            return torch.from_numpy(np.stack(images)[:, None])

        references = torch.from_numpy(np.stack([r for _, r in samples])[:, None])
        spacing = torch.from_numpy(np.stack([scene.spacing for scene, _ in samples]))
        x, y, mean = stacked(lambda s: s.x), stacked(lambda s: s.y), stacked(lambda s: s.mean)
        return cls(x, y, mean, references, stacked(lambda s: s.sigma), spacing)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> PairBatch:
        """The batch on another device."""
        return self._each(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PairBatch:
        """The batch in memory that a GPU copies from while it computes."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> PairBatch:
        return PairBatch(*(function(getattr(self, f.name)) for f in fields(self)))


class ReferenceStage:
    """Learns what `mean` has wrong, in units of the noise, by its mean square.

    A part of the references belongs to another place or another person, so that one that does
    not fit is not believed; those that belong have another intensity curve, noise, and an offset
    that a person who moved between two scans leaves.

    Args:
        network: To train.
        scenes: Files of `SceneMaker`.
        held: Those of held-out scans.
        options: Of the run.
    """

    name = "reference"
    figure = "gain"

    def __init__(
        self,
        network: ReferenceNetwork,
        scenes: Sequence[Path],
        held: Sequence[Path],
        options: ReferenceOptions,
    ) -> None:
        self.network: nn.Module = network
        self.scenes, self.held, self.options = list(scenes), list(held), options
        self.steps, self.batch = options.steps, options.batch
        self.learning_rate = options.learning_rate

    def draw(self, share: Share) -> PairBatch:
        """Random crops of random scenes, each with a reference that belongs to it or does not."""
        return PairBatch.of([self._sample(rng) for rng in share.rngs()])

    def _sample(self, rng: Rng) -> tuple[Scene, Image]:
        scene = read_scene(self.scenes[int(rng.integers(len(self.scenes)))])
        place = _place(scene.x.shape, rng)
        if rng.random() < self.options.wrong:
            reference = self._wrong(scene, place, rng).astype(np.float32)
        else:
            moved = rng.uniform(-1, 1, 3) * self.options.shift * float(rng.random())
            reference = _shifted(_any_of(scene.references, rng), moved)[place]
        flips = tuple(slice(None, None, int(s)) for s in rng.choice([-1, 1], 3))
        seen = _varied(reference, rng)
        return _cropped(scene, place, flips), np.ascontiguousarray(seen[flips])

    def _wrong(self, scene: Scene, place: tuple[slice, ...], rng: Rng) -> NDArray[np.float16]:
        """A reference of another scene, or of another place of this one."""
        if rng.random() < 0.5:
            scene = read_scene(self.scenes[int(rng.integers(len(self.scenes)))])
        far = rng.integers(_FAR, scene.x.shape[0] // 2, 3) * rng.choice([-1, 1], 3)
        moved: NDArray[np.float16] = np.roll(_any_of(scene.references, rng), far, (0, 1, 2))[place]
        return moved

    def loss(self, batch: PairBatch, share: Share) -> Tensor:
        """Mean square of what is left of the error of `mean`, in units of the noise."""
        unit = batch.sigma.clamp_min(1e-4)
        goal = ((batch.x - batch.mean) / unit)[..., ::_EVERY, ::_EVERY, ::_EVERY]
        seen = (batch.y, batch.mean, batch.reference, batch.sigma, batch.spacing)
        found = self.network(*seen, every=_EVERY)
        lost: Tensor = (found.float() - goal).square().mean()
        return lost

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """Gain over `mean` in dB on held-out scenes: with the reference, and with another's."""
        scenes = [read_scene(path) for path in self.held]
        own = [scene.references[0].astype(np.float32) for scene in scenes]
        wrong = self._corrected(list(zip(scenes, [*own[1:], own[0]], strict=True)), device)
        right = self._corrected(list(zip(scenes, own, strict=True)), device)
        shown = PairBatch.of(list(zip(scenes, own, strict=True)))
        before = [psnr_inside(m, x) for m, x in zip(shown.mean, shown.x, strict=True)]
        gain = [psnr_inside(r, x) for r, x in zip(right, shown.x, strict=True)]
        loss = [psnr_inside(w, x) for w, x in zip(wrong, shown.x, strict=True)]
        names = ("y", "mean", "reference", "x")
        columns = {name: getattr(shown, name) for name in names}
        write_preview(preview, {**columns, "with reference": right})
        return {
            "gain": float(np.mean(gain) - np.mean(before)),
            "gain_wrong": float(np.mean(loss) - np.mean(before)),
        }

    def _corrected(self, samples: list[tuple[Scene, Image]], device: torch.device) -> Tensor:
        parts = []
        for sample in samples:
            b = PairBatch.of([sample]).to(device)
            found = self.network(b.y, b.mean, b.reference, b.sigma, b.spacing)
            parts.append((b.mean + b.sigma * found.float()).cpu())
        return torch.cat(parts)


def _place(shape: Sequence[int], rng: Rng) -> tuple[slice, ...]:
    """A random box of the edge that a step learns from."""
    edges = [min(_PATCH, n) for n in shape]
    starts = [2 * int(rng.integers(0, (n - e) // 2 + 1)) for n, e in zip(shape, edges, strict=True)]
    return tuple(slice(s, s + e) for s, e in zip(starts, edges, strict=True))


def _cropped(scene: Scene, place: tuple[slice, ...], flips: tuple[slice, ...]) -> Scene:
    x, y, mean, sigma = (
        image[place][flips] for image in (scene.x, scene.y, scene.mean, scene.sigma)
    )
    return Scene(x, y, mean, sigma, scene.references, scene.spacing)


def _any_of(references: NDArray[np.float16], rng: Rng) -> NDArray[np.float16]:
    picked: NDArray[np.float16] = references[int(rng.integers(len(references)))]
    return picked


def _shifted(image: NDArray[np.float16], voxels: NDArray[np.float64]) -> Image:
    out: Image = ndimage.shift(np.asarray(image, np.float32), voxels, order=1, mode="nearest")
    return out


def _varied(reference: Image, rng: Rng) -> Image:
    """A reference as it may come: another curve, bias, blur, noise, or a part that is missing."""
    if rng.random() < 0.5:
        reference = recoloured(reference, rng)
    if rng.random() < 0.3:
        reference = reference * smooth_field(reference.shape, 0.25, rng)
    if rng.random() < 0.3:
        reference = ndimage.gaussian_filter(reference, rng.uniform(0, 1.0, 3))
    if rng.random() < 0.5:
        noise = rng.standard_normal(reference.shape, dtype=np.float32)
        reference = np.abs(reference + np.float32(rng.uniform(0, _NOISE)) * noise)
    if rng.random() < 0.1:
        axis, cut = int(rng.integers(3)), int(rng.integers(reference.shape[0]))
        np.moveaxis(reference, axis, 0)[:cut] = 0
    return np.asarray(reference * rng.uniform(0.7, 1.3), np.float32)
