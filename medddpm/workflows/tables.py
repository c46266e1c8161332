"""Numbers as tables that a person can read."""

from __future__ import annotations

from rich.table import Table

from medddpm.io.sidecar import Sidecar
from medddpm.metrics import scores
from medddpm.workflows.measure import Evaluation

_METRICS = {
    "psnr": ("PSNR, dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.4f}"),
    "nrmse": ("NRMSE", "{:.4f}"),
    "hfen": ("HFEN", "{:.4f}"),
}


def evaluation_table(evaluation: Evaluation) -> str:
    """Metrics in the foreground and over the whole volume, with what they mean below."""
    columns = {"restored": evaluation.restored}
    if evaluation.noisy is not None:
        columns = {"noisy": evaluation.noisy, **columns}
    lines = [f"{'':<26}" + "".join(f"{name:>12}" for name in columns)]
    for suffix, where in (("", "foreground"), ("_whole", "whole volume")):
        for key, (label, form) in _METRICS.items():
            cells = "".join(f"{form.format(c[key + suffix]):>12}" for c in columns.values())
            lines.append(f"{label + ', ' + where:<26}{cells}")
    lines += [
        f"Data range {evaluation.data_range:.6g}: the 99.5th percentile of the reference's "
        f"foreground ({evaluation.restored['num_inside']:.0f} voxels).",
        f"SSIM: 3D Gaussian window of sigma {scores.SSIM_SIGMA} voxels, K1 {scores.SSIM_K1}, "
        f"K2 {scores.SSIM_K2}. HFEN: Laplacian of Gaussian of sigma {scores.HFEN_SIGMA} voxels.",
    ]
    return "\n".join(lines)


def quickstart_table(evaluation: Evaluation, facts: Sidecar) -> Table:
    """Noisy against restored, in the foreground, with what the report says."""
    noisy = evaluation.noisy or {}
    table = Table(title="The example scan, against its clean reference (foreground only)")
    for name in ("", "noisy", "restored"):
        table.add_column(name, justify="left" if not name else "right")
    for key, (label, form) in _METRICS.items():
        table.add_row(label, form.format(noisy[key]), form.format(evaluation.restored[key]))
    table.add_section()
    frame = facts.frames[0]
    sigma = frame.sigma
    table.add_row(f"sigma, from the {sigma.method}", f"{sigma.sigma:.4g}", "")
    table.add_row("sigma, of the scale", f"{sigma.fraction:.4f}", "")
    table.add_row("fidelity limit of the model, dB", "", f"{frame.vae_ceiling_db:.1f}")
    table.add_row("seconds", "", f"{facts.seconds:.1f}")
    table.add_row("guard", "", "passed" if frame.guard.passed else "flagged")
    return table
