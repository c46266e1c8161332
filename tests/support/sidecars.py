"""Sidecars made by hand: what every one of them says, and what a test adds."""

from __future__ import annotations

from typing import Any

from medddpm.io.sidecar import Sidecar


def content_of(sigma: float = 50.0, **more: Any) -> dict[str, Any]:
    """The JSON that says the least; `more` replaces or adds parts."""
    frame = {
        "sigma": {"sigma": sigma, "fraction": 0.05, "method": "air"},
        "vae_ceiling_db": 40.0,
        "guard": {
            "passed": True,
            "messages": [],
            "checks": [
                {"name": "residual_ratio", "value": 0.9},
                {"name": "noise_ratio", "value": 1.0},
            ],
        },
    }
    return {
        "statement": "For research.",
        "input": {
            "case_id": "a", "format": "nifti", "sha256": "0" * 64, "num_files": 1,
            "shape": [40, 44, 36], "spacing_mm": [1, 1, 1], "orientation": "RAS",
        },
        "options": {"mode": "mean", "seed": 0},
        "weights": {"name": "tiny", "sha256": "abc123"},
        "device": "cpu",
        "seconds": 1.0,
        "frames": [frame],
        "versions": {"medddpm": "0.1.0"},
        **more,
    }  # fmt: skip


def sidecar_of(sigma: float = 50.0, **more: Any) -> Sidecar:
    """The same, read."""
    return Sidecar.model_validate(content_of(sigma, **more))
