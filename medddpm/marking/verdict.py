"""What is known of where a file comes from: the mark of a key, its header, sidecar, texture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medddpm.io import read_volume
from medddpm.io.outputs import file_stem
from medddpm.io.provenance import checksum, source_files, voxel_checksum
from medddpm.io.synthetic_label import LABEL, synthetic_label
from medddpm.marking import signature
from medddpm.marking.detect import THRESHOLD, Found, OnProgress, detect
from medddpm.marking.key import Key
from medddpm.marking.texture import Texture, texture_of
from medddpm.volume import Geometry, Volume

Voxels = Literal["as told", "other", "not told"]
_LARGEST = 10_000_000
"""Bytes of a sidecar."""


@dataclass(frozen=True)
class Provenance:
    """What a file and the sidecar beside it say.

    Attributes:
        label: The field of the header that says SYNTHETIC; "" if none does.
        sidecar: The JSON file beside it, if it is one of a synthetic scan or is signed.
        synthetic: Whether the sidecar says so.
        signature: Of the sidecar, see `signature.verify`.
        signer: Fingerprint of the public key that it was signed with.
        voxels: Whether the scan has the hash that the sidecar names, of its voxels or its files.
    """

    label: str = ""
    sidecar: Path | None = None
    synthetic: bool = False
    signature: signature.Verdict = "none"
    signer: str = ""
    voxels: Voxels = "not told"

    @property
    def is_sound(self) -> bool:
        """No signature that does not fit, and no other voxels than told."""
        return self.signature != "bad" and self.voxels != "other"


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        file: What was looked at.
        mark: Of the key; None if none was given.
        provenance: What the header and the sidecar say.
        texture: What the texture hints at, which decides nothing.
    """

    file: Path
    mark: Found | None
    provenance: Provenance
    texture: Texture

    @property
    def is_synthetic(self) -> bool:
        """Whether the mark, the header or the sidecar says so."""
        told = self.provenance
        return bool(self.mark and self.mark.marked) or bool(told.label) or told.synthetic

    @property
    def sentences(self) -> list[str]:
        """The verdict in words."""
        found = [_mark_in_words(self.mark), *_provenance_in_words(self.provenance)]
        found.append(self.texture.sentence)
        if not self.is_synthetic:
            found.append("That nothing was found does not show that the scan is real.")
        return found

    @property
    def facts(self) -> dict[str, Any]:
        """The same for a program."""
        mark, told = self.mark, self.provenance
        return {
            "file": str(self.file),
            "synthetic": self.is_synthetic,
            "mark": mark
            and {
                "found": mark.marked,
                "z": round(mark.z, 3),
                "threshold": round(THRESHOLD, 3),
                "false_alarm": mark.false_alarm,
                "where": mark.way or None,
                "degrees": list(mark.degrees),
                "scale": mark.scale,
            },
            "provenance": {
                "header": told.label or None,
                "sidecar": told.sidecar and str(told.sidecar),
                "says_synthetic": told.synthetic,
                "signature": told.signature,
                "signer": told.signer or None,
                "voxels": told.voxels,
            },
            "texture": self.texture.facts,
        }


def inspect_file(
    path: str | Path,
    key: Key | None = None,
    *,
    public_key: bytes | None = None,
    spacing: tuple[float, float, float] | None = None,
    on_progress: OnProgress | None = None,
) -> Verdict:
    """Look for the mark and for what a file says of its origin.

    Args:
        path: A NIfTI, MGH or DICOM file, or a folder with one DICOM series.
        key: Whose mark is looked for.
        public_key: Of who should have signed the sidecar.
        spacing: Voxel size in mm where the header is lost.
        on_progress: Called with what is done.

    Raises:
        VolumeReadError: There is no image, or it holds NaN or infinity.
    """
    path = Path(path)
    volume = read_volume(path, force=True)
    told = _provenance(path, volume, public_key)
    placed = volume if spacing is None else _with_spacing(volume, spacing)
    mark = None if key is None else detect(placed, key, on_progress=on_progress)
    return Verdict(path, mark, told, texture_of(placed))


def _with_spacing(volume: Volume, spacing: tuple[float, float, float]) -> Volume:
    return Volume(volume.data, Geometry(volume.geometry.shape, np.diag([*spacing, 1.0])))


def _provenance(path: Path, volume: Volume, public_key: bytes | None) -> Provenance:
    label = synthetic_label(volume)
    stem = file_stem(path) if path.is_file() else path.resolve().name
    sidecar = path.resolve().parent / f"{stem}.json"
    content = _content(sidecar)
    synthetic = content.get("label") == LABEL
    verdict, signer = signature.verify(content, public_key)
    if not synthetic and verdict == "none":
        return Provenance(label)
    return Provenance(label, sidecar, synthetic, verdict, signer, _voxels(content, volume))


def _voxels(content: dict[str, Any], volume: Volume) -> Voxels:
    """Whether a scan is what a sidecar is about, by the hash of its voxels or that of its files."""
    if "voxels_sha256" in content:
        return "as told" if content["voxels_sha256"] == voxel_checksum(volume) else "other"
    files = source_files(volume)
    if "sha256" in content and files:
        return "as told" if content["sha256"] == checksum(files) else "other"
    return "not told"


def _content(sidecar: Path) -> dict[str, Any]:
    """What a JSON file says; nothing where there is none."""
    try:
        if sidecar.stat().st_size > _LARGEST:
            return {}
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _mark_in_words(mark: Found | None) -> str:
    if mark is None:
        return "No mark was looked for: that needs --key."
    if not mark.marked:
        return (
            f"No mark of this key: the highest score is {mark.z:.1f}, and {THRESHOLD:.1f} is "
            "needed; one in a million scans without the mark would reach that."
        )
    chance = f"below {max(mark.false_alarm, exp(-100)):.0e}"
    where = {
        "in place": "where the header says",
        "moved": "moved, or cropped without its header",
        "mirrored": "mirrored, or with axes swapped",
        "turned": "turned by {:g}, {:g} and {:g} degrees, at {:g} of its size".format(
            *mark.degrees, mark.scale
        ),
        "": "",
    }[mark.way]
    return (
        f"Marked by this key: score {mark.z:.1f}, {where}. The probability of so much in a scan "
        f"without the mark is {chance}."
    )


_SIGNATURES: dict[signature.Verdict, str] = {
    "none": "it is not signed",
    "good": "it is signed by the given key",
    "of another key": "it is signed by a key that was not given, fingerprint {}",
    "bad": "its signature does not fit what it says",
}
_VOXELS: dict[Voxels, str] = {
    "as told": "it is about these voxels",
    "other": "it is about other voxels than this scan has now",
    "not told": "it does not say which voxels it is about",
}


def _provenance_in_words(told: Provenance) -> list[str]:
    found = [f"The header says SYNTHETIC ({told.label})."] if told.label else []
    if told.sidecar is None:
        return found or ["No provenance: neither the header nor a sidecar says where it is from."]
    says = "says that the scan is synthetic" if told.synthetic else "does not say synthetic"
    signed = _SIGNATURES[told.signature].format(told.signer)
    return [*found, f"{told.sidecar.name} {says}; {signed}; {_VOXELS[told.voxels]}."]
