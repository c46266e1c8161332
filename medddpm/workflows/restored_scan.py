"""What a restoration wrote, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medddpm.display import mime_bundle
from medddpm.io import read_volume
from medddpm.io.frame_facts import FrameFacts
from medddpm.io.sidecar import Sidecar
from medddpm.workflows.number_type import rounding_text


@dataclass(frozen=True)
class RestoredScan:
    """What was written for one scan.

    Attributes:
        image: NIfTI file or folder of DICOM files.
        sidecar: JSON report.
        maps: Name ("std", "lower", "upper") to NIfTI file or DICOM Parametric Map, for an ensemble.
        facts: The content of the report.
        flags: Alarms: what a person should look at; empty if the guard passed.
        notices: What the scan is, and how far from what the model knows.
        page: DICOM report page, if one was asked for.
        html: HTML report, if one was asked for.
    """

    image: Path
    sidecar: Path
    maps: dict[str, Path]
    facts: Sidecar = field(repr=False)
    flags: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    page: Path | None = None
    html: Path | None = None

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """What Jupyter shows: the summary, flags and the scan."""
        ras = read_volume(self.image, force=True, trust=self.facts.run.trust).to_ras()
        words = ". ".join([self.summary, *(f"Flagged: {flag}" for flag in self.flags)])
        return mime_bundle({self.image.name: ras.frame(self.facts.shown_frame)}, ras.affine, words)

    @property
    def frame(self) -> FrameFacts:
        """The facts of the first frame that is not blank."""
        return self.facts.shown

    @property
    def phase_words(self) -> str:
        """What the phase of the scan was taken for, in words; "" where it has none."""
        given = self.facts.input.phase
        if given is None:
            return ""
        taken = {"phase": f"its phase ({given.units})", "imaginary": "its imaginary part"}
        return f"restored with {taken.get(given.given_as, 'its phase, from complex numbers')}"

    @property
    def rounding(self) -> str:
        """What the number type of the output cost, in words; "" for float32."""
        return rounding_text(self.facts)

    @property
    def summary(self) -> str:
        """One line: noise level and fidelity limit of the (first) frame, seconds, device."""
        frames, blank = self.facts.frames, self.facts.blank_frames
        sigma = self.frame.sigma
        passed = f"; blank and passed through: frame {', '.join(map(str, blank))}" if blank else ""
        series = self.facts.series
        together = "" if series is None else f"; of the frames {series.words(len(frames))}"
        took = f"{self.facts.seconds:.1f} s on {self.facts.device}{passed}{together}"
        if sigma.method == "none":
            return f"no noise to be seen; the output is the input; {took}"
        more = f" (frame {self.facts.shown_frame} of {len(frames)})" if len(frames) > 1 else ""
        return (
            f"sigma {sigma.sigma:.4g} in scan units, {sigma.fraction:.4f} of the intensity "
            f"scale, from {sigma.method}{more}; "
            f"fidelity limit of the model {self.frame.vae_ceiling_db:.1f} dB; {took}"
        )
