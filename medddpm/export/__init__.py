"""Weights in the formats of others: ONNX, OpenVINO, `torch.export`, a MONAI bundle, diffusers."""

from __future__ import annotations

from medddpm.export.write import KINDS, Kind, export_weights

__all__ = ["KINDS", "Kind", "export_weights"]
