"""What comes out of a restoration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from medddpm.display import mime_bundle
from medddpm.io.sidecar import Facts
from medddpm.volume import Volume


@dataclass(frozen=True)
class Restored:
    """A restored scan, its uncertainty where there is an ensemble, and the facts.

    Attributes:
        volume: The scan, in the input's units and place.
        std: Voxelwise standard deviation over the samples, smoothed over a voxel, or None.
        lower: Lower end of the 90 % interval, by the calibration of the weights, or None.
        upper: Its upper end, or None.
        facts: Sigma, VAE ceiling and guard of each frame, options, seconds, device.
        phase: Of a scan that came with its phase: that of the restored scan in radians.
    """

    volume: Volume
    std: Volume | None
    lower: Volume | None
    upper: Volume | None
    facts: Facts = field(repr=False)
    phase: Volume | None = None

    @property
    def passed(self) -> bool:
        """True if the guard found nothing wrong in any frame."""
        return all(frame.guard.passed for frame in self.facts.frames)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """What Jupyter shows: sigma and the guard's verdict, the scan, its uncertainty."""
        index, first = self.facts.shown_frame, self.facts.shown
        flags = "; ".join(first.guard.messages)
        verdict = f"flagged: {flags}" if flags else "no check raised a flag"
        words = f"{self.volume.case_id} restored, sigma {first.sigma.sigma:.4g}; {verdict}"
        ras = self.volume.to_ras()
        scans = {"restored": ras.frame(index)}
        if self.std is not None:
            scans["uncertainty (std)"] = self.std.to_ras().frame(index)
        return mime_bundle(scans, ras.affine, words)
