"""One row of a benchmark: what was restored how, and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from medddpm.benchmark.figures import label_of


class Row(BaseModel):
    """A scan with one noise, restored with one method.

    Attributes:
        case: Name of the scan.
        noise: Its kind: "acquired", "ellipse" or "white".
        law: "gaussian", "rician" or "ncchi".
        coils: Of "ncchi".
        acquisition: What was simulated, as JSON; None for white noise.
        sigma: As asked for, a fraction of the intensity scale.
        method: With its settings.
        sigma_source: "oracle", "blind" or "none".
        sigma_true: Root mean square over the foreground, a fraction of the scale.
        sigma_own: Noise that the clean scan has of its own, as found in it, likewise.
        sigma_told: What the method was told or found, likewise; None if it takes none.
        sigma_error: Relative error of what was found that holds the truth in 9 of 10 scans, as the
            method says itself; None if it was told.
        edge_apart: Largest distance over the axes between where k-space ends and where the method
            found its end, as a fraction of Nyquist; None if it was told.
        seconds: It took, with the estimate of the noise.
        peak_gb: What the process grew by, in GB.
        psnr: In the foreground, dB.
        ssim: In the foreground.
        frames: Scores of each frame of a scan of several; those of the row are of all of them.

    The other scores of `metrics.regions.region_scores` are extra, by their names.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, float | None] = Field(init=False)

    case: str
    noise: str
    law: str
    coils: int
    acquisition: dict[str, Any] | None
    sigma: float
    method: str
    sigma_source: str
    sigma_true: float
    sigma_own: float
    sigma_told: float | None
    sigma_error: float | None
    edge_apart: float | None
    seconds: float
    peak_gb: float
    psnr: float | None
    ssim: float | None
    frames: tuple[Mapping[str, float | None], ...] = ()

    @property
    def label(self) -> str:
        """The method with where its sigma came from, if it takes one."""
        return label_of(self.method, self.sigma_source)

    @property
    def cells(self) -> dict[str, Any]:
        """All by the names of the columns; JSON-able."""
        return self.model_dump()
