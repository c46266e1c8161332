"""Describe weights or a scan, without patient data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medddpm.errors import ConfigError, VolumeReadError
from medddpm.io import OnError, check_magnitude, read_volumes, without_padding
from medddpm.io.acquired import read_acquired
from medddpm.io.provenance import describe_input
from medddpm.preprocess.intensity import intensity_scale
from medddpm.preprocess.values import look, measure_noise
from medddpm.restoration.blank import first_frame
from medddpm.volume import Volume


def info(subject: str | Path, *, on_error: OnError | None = None) -> dict[str, Any]:
    """What is known of a shipped model, a weights file, or a scan; JSON-able.

    Args:
        subject: A shipped name such as "default", a .safetensors file, or a scan.
        on_error: Called with the error of each bad series of a folder, and the others are
            described; without it the first error is raised.
    """
    path = Path(subject)
    is_name = path.suffix == "" and path.name == str(subject) and not path.exists()
    if is_name or path.suffix == ".safetensors":
        return _describe_weights(subject)
    volumes = read_volumes(path, force=True, on_error=on_error)
    return {"scans": [_describe_scan(volume) for volume in volumes]}


def _describe_weights(subject: str | Path) -> dict[str, Any]:
    from medddpm.model.imported_file import is_imported
    from medddpm.model.model import find_weights, load_model

    path = find_weights(subject)
    if is_imported(path):
        return _describe_imported(path)
    model = load_model(path)
    networks = {"codec": model.codec, "unet": model.unet, "fidelity": model.fidelity}
    parameters = {
        name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()
    }
    return {
        "weights": path.stem,
        "sha256": model.digest,
        "parameters": parameters,
        "spec": asdict(model.spec),
        "card": model.card,
    }


def _describe_imported(path: Path) -> dict[str, Any]:
    from medddpm.model.imported_file import read_imported

    imported = read_imported(path)
    return {
        "network": imported.part,
        "spec": asdict(imported.spec),
        "card": imported.card.model_dump(mode="json"),
    }


def _describe_scan(volume: Volume) -> dict[str, Any]:
    header = read_acquired(volume)
    try:
        check_magnitude(volume)
        image = without_padding(volume)
        seen = look(image.frame(first_frame(image)), "rician")
        noise = measure_noise(seen, spacing=volume.spacing, hint=header.edge)
        facts: dict[str, Any] = {
            "intensity_scale": intensity_scale(seen.image),
            "noise": asdict(noise.estimate),
            "values": seen.summary,
        }
    except (ConfigError, VolumeReadError) as error:
        facts = {"noise": None, "note": str(error)}
    return {
        **describe_input(volume).model_dump(exclude_unset=True),
        "modality": volume.modality,
        "affine": volume.affine.tolist(),
        "num_frames": volume.num_frames,
        "header": {**asdict(header), "words": header.words},
        **facts,
    }


def info_text(found: Mapping[str, Any]) -> str:
    """What `info` found, in a few lines for a person."""
    if "weights" in found:
        return _weights_text(found)
    if "network" in found:
        return _imported_text(found)
    return "\n".join(_scan_text(scan) for scan in found["scans"])


def _weights_text(found: Mapping[str, Any]) -> str:
    card = found["card"]
    number = sum(found["parameters"].values()) / 1e6
    lines = [
        f"{found['weights']}: {number:.3g} million weights, SHA-256 {found['sha256'][:16]}",
        *(_printable(card[name]) for name in ("description", "limits") if card.get(name)),
        f"Intended use: {_printable(card.get('intended_use') or 'the card does not say')}",
        f"Trained stages: {', '.join(map(_printable, card.get('stages', ()))) or 'none'}",
        f"Intervals: {_intervals(card.get('calibration'))}",
        f"Guard: {', '.join(card.get('guard') or ()) or 'not calibrated, wide ranges hold'}",
        "All of it: --json",
    ]
    return "\n".join(lines)


def _imported_text(found: Mapping[str, Any]) -> str:
    card, spec = found["card"], found["spec"]
    use = (
        f"a codec of {spec['latent_channels']} latent channels: train diffusion --codec"
        if found["network"] == "autoencoder"
        else "a diffusion network of others; it restores nothing by itself"
    )
    lines = [
        f"imported {found['network']} ({card['kind']}), {use}",
        f"Licence: {_printable(card['licence'])}",
        f"Source: {_printable(card['source'])}",
        "All of it: --json",
    ]
    return "\n".join(lines)


def _intervals(calibration: Mapping[str, Any] | None) -> str:
    if calibration is None:
        return "not calibrated"
    sigmas = calibration["sigmas"]
    return f"calibrated for sigma {sigmas[0]:g} to {sigmas[-1]:g} of the intensity scale"


def _scan_text(scan: Mapping[str, Any]) -> str:
    shape, spacing = (" x ".join(f"{n:.4g}" for n in scan[k]) for k in ("shape", "spacing_mm"))
    noise = scan["noise"]
    lines = [
        f"{scan['case_id']}: {shape} voxels of {spacing} mm, {scan['orientation']}, "
        f"{scan['format']}{', ' + scan['modality'] if scan['modality'] else ''}",
        scan.get("note", ""),
    ]
    if noise:
        level = (
            f"sigma {noise['sigma']:.5g} in scan units, {noise['fraction']:.4f} of the intensity "
            f"scale, +- {100 * noise['error']:.1f} %, from the {noise['method']}"
        )
        lines += [
            f"  intensity scale {scan['intensity_scale']:.5g} (99.5th percentile, foreground)",
            f"  {'no noise to be seen' if noise['method'] == 'none' else level}",
        ]
    if scan["header"]["words"]:
        lines.append(f"  the header says: {scan['header']['words']}")
    return "\n".join(line for line in lines if line)


def _printable(text: Any) -> str:
    """One line without control characters, which a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
