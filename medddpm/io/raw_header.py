"""The XML header of ISMRMRD (Inati et al., Magn Reson Med 77:411, 2017), as far as it is needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from medddpm.errors import VolumeReadError
from medddpm.io.raw_identity import identity_of

Matrix = tuple[int, int, int]
Extent = tuple[float, float, float]


@dataclass(frozen=True)
class Encoding:
    """One encoding of a measurement.

    Attributes:
        matrix: Samples along kx, ky and kz.
        fov_mm: Extent that they cover; zeros if unknown.
        recon_matrix: Voxels of the image.
        recon_fov_mm: Its extent.
        trajectory: "cartesian", "epi", "radial", ...
        centres: Numbers of the middle lines along ky and kz; None where they are not told.
        facts: Acceleration factors and such, JSON-able.
        identity: Patient, study and system by keyword of DICOM, see `identity_of`.
    """

    matrix: Matrix
    fov_mm: Extent
    recon_matrix: Matrix
    recon_fov_mm: Extent
    trajectory: str = "cartesian"
    centres: tuple[int | None, int | None] = (None, None)
    facts: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, str] = field(default_factory=dict, repr=False)


def parse_header(text: str | bytes, name: str) -> Encoding:
    """The first encoding of a header.

    Args:
        text: XML.
        name: Of the file, for messages.

    Raises:
        VolumeReadError: It is no XML, or has no encoding with a matrix.
    """
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise VolumeReadError(f"{name}: its ISMRMRD header is no XML: {error}") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    encoding = root.find("encoding")
    encoded = None if encoding is None else encoding.find("encodedSpace")
    if encoding is None or encoded is None:
        raise VolumeReadError(f"{name}: its ISMRMRD header has no encoding/encodedSpace")
    matrix, fov = _space(encoded, name)
    recon = encoding.find("reconSpace")
    recon_matrix, recon_fov = (matrix, fov) if recon is None else _space(recon, name)
    limits = "encodingLimits/kspace_encoding_step_"
    facts = {
        "acceleration": [
            _number(encoding, f"parallelImaging/accelerationFactor/kspace_encoding_step_{n}")
            for n in (1, 2)
        ],
        "field_T": _number(root, "acquisitionSystemInformation/systemFieldStrength_T"),
        "te_ms": _number(root, "sequenceParameters/TE"),
        "tr_ms": _number(root, "sequenceParameters/TR"),
    }
    return Encoding(
        matrix,
        fov,
        recon_matrix,
        recon_fov,
        (encoding.findtext("trajectory") or "cartesian").strip().lower(),
        (_whole(encoding, f"{limits}1/center"), _whole(encoding, f"{limits}2/center")),
        {key: value for key, value in facts.items() if value not in (None, [None, None])},
        identity_of(root),
    )


def header_text(encoding: Encoding, coils: int) -> str:
    """The XML of an encoding that `parse_header` and ISMRMRD's own readers take."""

    def space(tag: str, matrix: Matrix, fov: Extent) -> str:
        sizes = "".join(f"<{a}>{n}</{a}>" for a, n in zip("xyz", matrix, strict=True))
        extent = "".join(f"<{a}>{v:.9g}</{a}>" for a, v in zip("xyz", fov, strict=True))
        return (
            f"<{tag}><matrixSize>{sizes}</matrixSize>"
            f"<fieldOfView_mm>{extent}</fieldOfView_mm></{tag}>"
        )

    limits = "".join(
        f"<kspace_encoding_step_{n}><minimum>0</minimum><maximum>{length - 1}</maximum>"
        f"<center>{length // 2}</center></kspace_encoding_step_{n}>"
        for n, length in enumerate(encoding.matrix)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        "<acquisitionSystemInformation>"
        f"<receiverChannels>{coils}</receiverChannels></acquisitionSystemInformation>"
        "<experimentalConditions><H1resonanceFrequency_Hz>123000000</H1resonanceFrequency_Hz>"
        "</experimentalConditions><encoding>"
        + space("encodedSpace", encoding.matrix, encoding.fov_mm)
        + space("reconSpace", encoding.recon_matrix, encoding.recon_fov_mm)
        + f"<encodingLimits>{limits}</encodingLimits>"
        f"<trajectory>{escape(encoding.trajectory)}</trajectory></encoding></ismrmrdHeader>"
    )


def _space(element: Any, name: str) -> tuple[Matrix, Extent]:
    sizes = [_whole(element, f"matrixSize/{axis}") for axis in "xyz"]
    fov = [_number(element, f"fieldOfView_mm/{axis}") or 0.0 for axis in "xyz"]
    if any(n is None or n < 1 for n in sizes):
        raise VolumeReadError(f"{name}: its header has no matrix of one or more samples: {sizes}")
    return (sizes[0] or 1, sizes[1] or 1, sizes[2] or 1), (fov[0], fov[1], fov[2])


def _number(element: Any, path: str) -> float | None:
    try:
        return float(element.findtext(path))
    except (TypeError, ValueError):
        return None


def _whole(element: Any, path: str) -> int | None:
    value = _number(element, path)
    return None if value is None else int(value)
