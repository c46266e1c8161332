"""The same schedules and samples as diffusers and monai, where theirs are well defined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medddpm.diffusion.prediction import to_x0
from medddpm.diffusion.samplers import ddim, ddpm, dpm_solver_pp_2m, euler
from medddpm.diffusion.schedule import (
    CLEAN,
    NoiseLevel,
    Schedule,
    alphas_cumprod,
)
from medddpm.export import export_weights
from medddpm.model.model import load_model
from medddpm.restoration.graph import TileMean, example_inputs

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.0015,
        "beta_end": 0.0195,
    },
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
every_kind = pytest.mark.parametrize("kind", list(BETAS))


def _z() -> Tensor:
    return torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))


def _v(z: Tensor, level: NoiseLevel) -> Tensor:
    """A stand-in for a network that predicts v; smooth in z and in the level."""
    return torch.tanh(z) * math.cos(level.angle) + 0.3 * z * math.sin(level.angle)


def _denoise(z: Tensor, level: NoiseLevel) -> Tensor:
    return to_x0(_v(z, level), z, level.alpha, level.sigma, "v")


def _theirs(
    scheduler: Any,
    schedule: Schedule,
    n: int,
    timesteps: Sequence[int] | None = None,
    **step: Any,
) -> Tensor:
    """The loop of the other library over the same v network."""
    scheduler.set_timesteps(n)
    z = _z()
    for t in scheduler.timesteps if timesteps is None else timesteps:
        z = scheduler.step(_v(z, schedule.level(int(t))), t, z, **step)[0]
    return z


@pytest.mark.parametrize("zero", [False, True])
@every_kind
def test_schedules_of_diffusers(kind: str, zero: bool) -> None:
    diffusers = pytest.importorskip("diffusers")
    peer = diffusers.DDIMScheduler(**BETAS[kind], rescale_betas_zero_snr=zero)
    expected = peer.alphas_cumprod.double()
    found = alphas_cumprod(kind, 1000, zero)
    torch.testing.assert_close(found.sqrt(), expected.sqrt(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("zero", [False, True])
@every_kind
def test_ddim_of_diffusers(kind: str, zero: bool) -> None:
    diffusers = pytest.importorskip("diffusers")
    schedule = Schedule(kind, zero_terminal_snr=zero)
    peer = diffusers.DDIMScheduler(
        **BETAS[kind],
        rescale_betas_zero_snr=zero,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    expected = _theirs(peer, schedule, 10)
    torch.testing.assert_close(
        ddim(_denoise, _z(), schedule.steps(10)), expected, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("zero", [False, True])
def test_ddpm_of_diffusers(zero: bool) -> None:
    diffusers = pytest.importorskip("diffusers")
    schedule = Schedule("linear", zero_terminal_snr=zero)
    peer = diffusers.DDPMScheduler(
        **BETAS["linear"],
        rescale_betas_zero_snr=zero,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    expected = _theirs(peer, schedule, 10, generator=torch.Generator().manual_seed(1))
    found = ddpm(_denoise, _z(), schedule.steps(10), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@every_kind
def test_dpm_solver_of_diffusers(kind: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    schedule = Schedule(kind, zero_terminal_snr=False)
    peer = diffusers.DPMSolverMultistepScheduler(
        **BETAS[kind],
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    expected = _theirs(peer, schedule, 10)
    found = dpm_solver_pp_2m(_denoise, _z(), schedule.steps(10))
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


def test_euler_of_diffusers_flow_matching() -> None:
    diffusers = pytest.importorskip("diffusers")
    schedule = Schedule("rectified_flow")
    levels = schedule.steps(10)
    peer = diffusers.FlowMatchEulerDiscreteScheduler()
    peer.set_timesteps(sigmas=[level.sigma for level in levels[:-1]])
    expected = _z()
    for level, t in zip(levels, peer.timesteps, strict=False):
        expected = peer.step(torch.tanh(expected) * level.alpha, t, expected)[0]

    def denoise(z: Tensor, level: NoiseLevel) -> Tensor:
        return to_x0(torch.tanh(z) * level.alpha, z, level.alpha, level.sigma, "flow")

    torch.testing.assert_close(euler(denoise, _z(), levels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("linear", {"schedule": "linear_beta"}),
        (
            "scaled_linear",
            {"schedule": "scaled_linear_beta", "beta_start": 0.0015, "beta_end": 0.0195},
        ),
        ("cosine", {"schedule": "cosine"}),
    ],
)
def test_schedule_and_ddim_of_monai(kind: str, options: dict[str, Any]) -> None:
    schedulers = pytest.importorskip("monai.networks.schedulers")
    schedule = Schedule(kind, zero_terminal_snr=False)
    peer = schedulers.DDIMScheduler(
        1000, prediction_type="v_prediction", clip_sample=False, **options
    )
    torch.testing.assert_close(
        alphas_cumprod(kind, 1000, zero_terminal_snr=False).sqrt(),
        peer.alphas_cumprod.double().sqrt(),
        rtol=1e-4,
        atol=1e-4,
    )
    # its own timesteps are 999, 888, ... 0, but its step always goes 1000 // 10 down
    timesteps = range(900, -1, -100)
    expected = _theirs(peer, schedule, 10, timesteps)
    found = ddim(_denoise, _z(), [*map(schedule.level, timesteps), CLEAN])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_pipeline_folder_of_diffusers(tiny_weights: Path, tmp_path: Path) -> None:
    """Loaded offline by diffusers itself, one evaluation is `mean`; more are a draw."""
    diffusers = pytest.importorskip("diffusers")
    out = export_weights(tiny_weights, "diffusers", tmp_path / "pipe")
    pipe = diffusers.DiffusionPipeline.from_pretrained(
        out, trust_remote_code=True, local_files_only=True, low_cpu_mem_usage=False
    )
    model = load_model(tiny_weights)
    y, sigma, *known, _ = example_inputs(model, (32, 32, 32))
    draw = torch.Generator().manual_seed(3)
    channels, factor = model.spec.autoencoder.latent_channels, model.spec.autoencoder.factor
    noise = torch.randn(1, channels, *[32 // factor] * 3, generator=draw)
    found = pipe(y, 0.05, generator=torch.Generator().manual_seed(3)).images
    with torch.inference_mode():
        expected = TileMean(model, 1)(y, sigma, *known, noise)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    sample = pipe(y, 0.05, num_inference_steps=4, generator=torch.Generator().manual_seed(3)).images
    assert sample.isfinite().all()
    assert not torch.equal(sample, found)


def test_a_network_and_a_scheduler_of_diffusers_in_our_samplers() -> None:
    """The same samples as their own loop, with their U-Net, for DDIM at their timesteps."""
    diffusers = pytest.importorskip("diffusers")
    from medddpm.export.diffusers_pipeline import denoiser_of

    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    ).eval()
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        clip_sample=False,
        timestep_spacing="trailing",
    )
    schedule = Schedule("cosine")
    z = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = ddim(denoiser_of(unet, scheduler), z, schedule.steps(5))
    scheduler.set_timesteps(5)
    theirs = z
    with torch.no_grad():
        for t in scheduler.timesteps:
            theirs = scheduler.step(unet(theirs, t).sample, t, theirs)[0]
    torch.testing.assert_close(ours.detach(), theirs, atol=2e-3, rtol=0)
