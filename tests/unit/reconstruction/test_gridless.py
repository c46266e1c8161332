from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from medddpm.errors import ConfigError, ShapeError
from medddpm.io.raw_scan import RawScan, Trajectory
from medddpm.operators.nufft import nufft
from medddpm.operators.solve import largest_eigenvalue
from medddpm.preprocess.acquisition import simulated_coils
from medddpm.reconstruction.gridless import make_gridless_problem
from medddpm.reconstruction.held_out import hold_out
from medddpm.reconstruction.methods import solve
from medddpm.reconstruction.noise_map import g_factor_map
from medddpm.reconstruction.options import METHODS, Method, ReconstructOptions
from medddpm.reconstruction.plug_and_play import PlugOptions
from medddpm.reconstruction.problem import Problem
from medddpm.reconstruction.scan import frame_problem, on_recon_grid, reconstruct_scan
from medddpm.reconstruction.simulated_raw import simulate_raw
from medddpm.reconstruction.trajectories import TrajectoryKind, simulated_trajectory
from medddpm.volume import Geometry, Volume

pytest.importorskip("finufft", reason="needs the extra nufft")
SHAPE = (48, 40, 2)
KINDS: tuple[TrajectoryKind, ...] = ("radial", "spiral")


def clean() -> Volume:
    """Ellipses in air."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    radius = np.sqrt((x / 0.7) ** 2 + (y / 0.75) ** 2)
    spots = np.hypot(x - 0.25, y + 0.2 * z) < 0.12
    data = np.select([spots, radius < 0.45, radius < 0.75, radius < 1], [300, 950, 700, 350], 0)
    affine = np.diag([-1.0, 1.2, 4, 1])
    affine[:3, 3] = [10, -20, 30]
    return Volume(data.astype(np.float32), Geometry(SHAPE, affine), case_id="phantom")


@cache
def full(kind: TrajectoryKind | None, sigma: float = 0.02) -> RawScan:
    return simulate_raw(clean(), sigma, coils=5, seed=1, trajectory=kind)


@cache
def fast(kind: TrajectoryKind) -> RawScan:
    scan = full(kind)
    return scan.undersampled((np.arange(scan.kspace.shape[4]) % 3 == 0)[:, None])


@cache
def problem(kind: TrajectoryKind) -> Problem:
    return frame_problem(fast(kind))


def error(image: Tensor, of: Problem, scan: RawScan) -> float:
    """Root mean square in the head over the intensity scale of 950."""
    assert scan.noise is not None
    unit = float(np.std(scan.noise.real)) / of.sample_noise
    found = np.abs(on_recon_grid(image * of.scale, scan)) * unit
    inside = clean().data > 0
    return float(np.sqrt(np.mean((found - clean().data)[inside] ** 2)) / 950)


def box(image: Tensor, sigma: float, learned: bool) -> Tensor:
    """A denoiser without networks: the mean with the four neighbours in the plane."""
    total = image.clone()
    for axis in (-3, -2):
        total += torch.roll(image, 1, axis) + torch.roll(image, -1, axis)
    return total / 5


@pytest.mark.parametrize("kind", KINDS)
def test_gridding_of_all_readouts_is_the_image_in_its_place(kind: TrajectoryKind) -> None:
    scan = full(kind, 0.001)
    done = reconstruct_scan(scan, ReconstructOptions("zero-filled"))
    np.testing.assert_allclose(done.magnitude.affine, clean().affine, atol=1e-6)
    image, inside = done.magnitude.data, clean().data > 0
    assert np.corrcoef(image[inside], clean().data[inside])[0, 1] > 0.98
    assert image[~inside].mean() < 0.1 * image[inside].mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [m for m in METHODS if m != "zero-filled"])
def test_every_method_is_better_than_gridding(kind: TrajectoryKind, method: Method) -> None:
    plain = error(
        solve(problem(kind), ReconstructOptions("zero-filled")), problem(kind), fast(kind)
    )
    options = ReconstructOptions(method, plug=PlugOptions(steps=2, trust=0.1))
    found = error(solve(problem(kind), options, box), problem(kind), fast(kind))
    assert found < {"tv": 0.5, "l1-wavelet": 0.8}.get(method, 0.9) * plain
    assert found < 0.06


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_of_a_fully_measured_image_is_one(kind: TrajectoryKind) -> None:
    """As on a grid, where gridding has the share 1 / R of its variance."""
    scan = full(kind)
    assert scan.noise is not None
    sigma = float(np.std(scan.noise.real))
    rng = np.random.default_rng(9)
    noise = rng.standard_normal((2, *scan.kspace.shape)) * sigma
    other = replace(scan, kspace=scan.kspace + (noise[0] + 1j * noise[1]).astype(np.complex64))
    options = ReconstructOptions("zero-filled")
    one, two = (reconstruct_scan(s, options).magnitude.data for s in (scan, other))
    bright = clean().data > 600
    expected = frame_problem(scan).acceleration ** -0.5
    assert float(np.std((two - one)[bright])) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_bounds_the_operator(kind: TrajectoryKind) -> None:
    found = problem(kind)
    like = torch.zeros(2, *SHAPE[:2], 1, dtype=torch.complex64)
    assert largest_eigenvalue(found.sense.normal, like, 40) <= found.norm < 2


def test_the_acceleration_is_that_of_the_spokes() -> None:
    """A full set measures the disc in the square of k-space; half of the spokes less of it."""
    whole = frame_problem(full("radial"))
    assert whole.acceleration == pytest.approx(4 / np.pi, rel=0.1)
    assert 1.3 < problem("radial").acceleration / whole.acceleration < 2


def test_readouts_that_are_held_out_are_predicted_within_their_noise() -> None:
    """By the best image of all data; a worse one predicts them worse."""
    fewer, held = hold_out(frame_problem(full("radial")), 0.1, seed=0)
    assert 0.07 < held.share < 0.13
    image = solve(fewer, ReconstructOptions("tv"))
    assert 0.95 < held.error(image) < 1.15
    assert held.error(0.9 * image) > 1.1 * held.error(image)
    whole = held.whole.sense.mask > 0
    assert torch.equal((fewer.sense.mask > 0) ^ (held.mask > 0), whole)


def test_noise_without_a_noise_scan_is_that_of_the_outer_samples() -> None:
    bare = frame_problem(replace(full("radial", 0.1), noise=None))
    assert bare.scale == pytest.approx(frame_problem(full("radial", 0.1)).scale, rel=0.15)


def test_slices_with_trajectories_of_their_own() -> None:
    """The second slice turned by half a step: the same image as with its own places alone."""
    scan = full("radial", 0.001)
    assert scan.trajectory is not None
    rotated = scan.trajectory.places @ np.array(
        [[0, 40 / 48, 0], [-48 / 40, 0, 0], [0, 0, 1]], np.float32
    )
    both = np.concatenate([scan.trajectory.places, rotated], axis=1)
    mixed = replace(
        scan,
        kspace=np.concatenate([scan.kspace[:, :1], scan.kspace[:, :1]], axis=1),
        trajectory=Trajectory(both, scan.trajectory.matrix, "radial"),
    )
    done = solve(frame_problem(mixed), ReconstructOptions("cg-sense", iterations=10)).abs()
    alone = replace(
        mixed,
        kspace=mixed.kspace[:, 1:],
        mask=mixed.mask[:, 1:],
        trajectory=Trajectory(both[:, 1:], scan.trajectory.matrix, "radial"),
    )
    single = solve(frame_problem(alone), ReconstructOptions("cg-sense", iterations=10)).abs()
    assert np.corrcoef(done[1].flatten(), single[0].flatten())[0, 1] > 0.999
    assert np.corrcoef(done[1].flatten(), done[0].flatten())[0, 1] < 0.95


def test_the_g_factor_is_about_one_where_all_was_measured() -> None:
    whole = frame_problem(full("radial"))
    g = g_factor_map(whole, replicas=12, iterations=15)[0]
    seen = torch.from_numpy(clean().data[..., :1] > 600)
    assert 0.7 < float(g[seen].mean()) < 1.2
    assert float(g_factor_map(problem("radial"), replicas=12)[0][seen].mean()) > float(
        g[seen].mean()
    )


def test_a_stack_of_stars_is_a_volume() -> None:
    """3D samples, with maps and noise that are known: the head that they were made of."""
    size = (20, 18, 12)
    x, y, z = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    head = ((x / 0.7) ** 2 + (y / 0.8) ** 2 + (z / 0.7) ** 2 < 1).float() + (x**2 + z**2 < 0.1)
    stars = torch.from_numpy(simulated_trajectory("radial", size[:2], 24).places[0, 0, :, :, 0])
    kz = (torch.arange(12) - 6).repeat_interleave(24).expand(40, -1)
    places = torch.cat([stars.repeat(1, 12, 1)[..., :2], kz[..., None]], dim=-1)[None, :, :, None]
    maps = torch.from_numpy(simulated_coils(size, 4, np.random.default_rng(0)))
    samples = nufft(maps * head, places.reshape(-1, 3)).reshape(1, 4, 40, 288, 1)
    generator = torch.Generator().manual_seed(0)
    noise, white = (
        0.01 * torch.randn(shape, dtype=torch.complex64, generator=generator)
        for shape in (samples.shape, (4, 4000))
    )
    found = make_gridless_problem(
        samples + noise,
        torch.ones(1, 40, 288, 1),
        places.float(),
        size,
        (1, 1, 1),
        noise=white,
        maps=maps[None],
    )
    assert min(found.centre.shape[2:]) >= 11
    image = solve(found, ReconstructOptions("tv"))[0].abs()
    unit = found.scale * 0.01 / 2**0.5 / found.sample_noise
    inside = head > 0
    gap = (image * unit - head)[inside]
    error = float(gap.square().mean().sqrt())
    assert error < 0.1, error


def test_too_few_readouts_calibrate_nothing() -> None:
    scan = full("radial")
    few = scan.undersampled((np.arange(scan.kspace.shape[4]) % 12 == 0)[:, None])
    with pytest.raises(ShapeError, match="calibration"):
        frame_problem(few)


def test_lines_and_planes_are_of_grids() -> None:
    with pytest.raises(ShapeError, match="no grid"):
        problem("radial").undersampled(torch.ones(40, 1, dtype=torch.bool))
    with pytest.raises(ShapeError, match="planes"):
        problem("radial").planes(0, 4)


def test_spokes_and_spirals_reach_the_edge_of_k_space() -> None:
    for kind in KINDS:
        places = simulated_trajectory(kind, (48, 40)).places
        assert np.abs(places[..., 0]).max() == pytest.approx(24, abs=0.6)
        assert np.abs(places[..., 1]).max() == pytest.approx(20, abs=0.6)
        assert simulated_trajectory(kind, (48, 40), 3).places.shape[3] == 3
    with pytest.raises(ConfigError, match="unknown"):
        simulated_trajectory("rosette", (48, 40))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="0 readouts"):
        simulated_trajectory("radial", (48, 40), 0)
