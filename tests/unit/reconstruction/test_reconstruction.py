from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from medddpm.errors import ConfigError, ShapeError
from medddpm.io.raw_scan import RawScan
from medddpm.operators.fourier import fft
from medddpm.operators.gfactor import sense_g_factor
from medddpm.operators.phase import smooth_phase
from medddpm.operators.solve import inner
from medddpm.preprocess.acquisition import simulated_coils
from medddpm.reconstruction.classical import (
    _divergence,
    _gradient,
    cg_sense,
    l1_wavelet,
    total_variation,
)
from medddpm.reconstruction.masks import MaskKind, sampling_lines
from medddpm.reconstruction.methods import solve
from medddpm.reconstruction.noise_map import g_factor_map
from medddpm.reconstruction.options import METHODS, Method, ReconstructOptions
from medddpm.reconstruction.plug_and_play import (
    PlugOptions,
    denoised,
    levels,
    plug_and_play,
)
from medddpm.reconstruction.problem import Problem, centre_shape, make_problem
from medddpm.reconstruction.scan import frame_problem, reconstruct_scan
from medddpm.reconstruction.simulated_raw import simulate_raw
from medddpm.reconstruction.wavelet import Wavelet
from medddpm.volume import Geometry, Volume

SHAPE = (24, 32, 28)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def clean() -> Volume:
    """Nested ellipsoids in air, 1 mm."""
    axes = [np.linspace(-1, 1, n) for n in SHAPE]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((x / 0.7) ** 2 + (y / 0.75) ** 2 + (z / 0.7) ** 2)
    data = np.select([radius < 0.45, radius < 0.75, radius < 1.0], [950.0, 700.0, 350.0], 0.0)
    affine = np.diag([-1.0, 1.2, 1.5, 1])
    affine[:3, 3] = [10, -20, 30]
    return Volume(data.astype(np.float32), Geometry(SHAPE, affine), case_id="phantom")


@pytest.fixture(scope="module")
def full(clean: Volume) -> RawScan:
    return simulate_raw(clean, 0.06, coils=3, seed=1)


@pytest.fixture(scope="module")
def fast(full: RawScan) -> RawScan:
    return full.undersampled(sampling_lines("vd2d", SHAPE[1:], 3, acs=12, seed=2))


@pytest.fixture(scope="module")
def problem(fast: RawScan) -> Problem:
    return frame_problem(fast)


def error(image: Tensor, clean: Volume, problem: Problem, scan: RawScan) -> float:
    """Root mean square in the head, over the intensity scale of 950."""
    assert scan.noise is not None
    sigma = float(np.std(scan.noise.real))
    found = image[0].abs().numpy() * problem.scale * sigma
    inside = clean.data > 0
    return float(np.sqrt(np.mean((found - clean.data)[inside] ** 2)) / 950)


def box(image: Tensor, sigma: float, learned: bool) -> Tensor:
    """A denoiser without networks: the mean with the six neighbours."""
    total = image.clone()
    for axis in (-3, -2, -1):
        total += torch.roll(image, 1, axis) + torch.roll(image, -1, axis)
    return total / 7


def test_full_kspace_comes_back_as_the_image(clean: Volume) -> None:
    scan = simulate_raw(clean, 0.001, coils=3)
    done = reconstruct_scan(scan, ReconstructOptions("zero-filled"))
    assert scan.noise is not None
    sigma = float(np.std(scan.noise.real))
    inside = clean.data > 0
    np.testing.assert_allclose(
        done.magnitude.data[inside] * sigma, clean.data[inside], rtol=0.02, atol=8
    )
    np.testing.assert_allclose(done.magnitude.affine, clean.affine, atol=1e-6)


def test_the_noise_of_the_image_is_one(clean: Volume) -> None:
    """In units of the noise: the difference of two images that differ in noise alone."""
    scans = [simulate_raw(clean, 0.02, coils=3)]
    again = np.random.default_rng(9).standard_normal((2, *scans[0].kspace.shape))
    assert scans[0].noise is not None
    sigma = float(np.std(scans[0].noise.real))
    noise = (again[0] + 1j * again[1]).astype(np.complex64) * sigma
    scans.append(replace(scans[0], kspace=scans[0].kspace + noise))
    options = ReconstructOptions("zero-filled")
    one, two = (reconstruct_scan(s, options).magnitude.data for s in scans)
    bright = clean.data > 600
    assert float(np.std((two - one)[bright])) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "zero-filled"])
def test_every_method_unfolds_what_was_left_out(method: Method, clean: Volume) -> None:
    """With the true maps: the phantom is too small for those that are found in its centre."""
    maps = torch.from_numpy(simulated_coils(SHAPE, 6, np.random.default_rng(3)))
    kspace = fft(maps * torch.from_numpy(clean.data))[None] + 5 * randn(1, 6, *SHAPE)
    mask = torch.from_numpy(sampling_lines("uniform", SHAPE[1:], 2, acs=8))
    mask = mask.expand(1, *SHAPE)
    white = 500 * torch.linalg.qr(randn(9999, 6)).Q.T  # leaves the coils as they are
    problem = make_problem(kspace * mask[:, None], mask, (1, 1, 1), noise=white, maps=maps[None])

    def wrong(options: ReconstructOptions) -> float:
        image = solve(problem, options, box)[0].abs() * problem.scale * 5 / 2**0.5
        return float((image - torch.from_numpy(clean.data)).square().mean().sqrt())

    options = ReconstructOptions(
        method, iterations=15, plug=PlugOptions(steps=2, last=1, trust=0.1)
    )
    assert wrong(options) < 0.5 * wrong(ReconstructOptions("zero-filled"))


def test_sparse_methods_are_better_than_cg_sense_alone(
    problem: Problem, clean: Volume, fast: RawScan
) -> None:
    start = cg_sense(problem, 0.02, 12)
    plain = error(start, clean, problem, fast)
    for run in (l1_wavelet, total_variation):
        assert error(run(problem, problem.sigma, 15, start), clean, problem, fast) < plain


def test_cg_sense_solves_its_equation(problem: Problem) -> None:
    x = cg_sense(problem, 0.1, 60)
    residual = problem.sense.normal(x) + 0.1 * x - problem.start
    assert float(residual.abs().max()) < 1e-3 * float(problem.start.abs().max())


def test_ours_needs_a_prior_and_other_names_are_unknown(problem: Problem) -> None:
    with pytest.raises(ConfigError, match="give weights"):
        solve(problem, ReconstructOptions("ours"))
    with pytest.raises(ConfigError, match="unknown"):
        ReconstructOptions("grappa")  # type: ignore[arg-type]


def test_wavelets_are_orthonormal() -> None:
    image = randn(2, 16, 24, 10)
    wavelet = Wavelet((16, 24, 10))
    coefficients = wavelet.forward(image)
    torch.testing.assert_close(wavelet.inverse(coefficients), image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        torch.linalg.vector_norm(coefficients), torch.linalg.vector_norm(image)
    )
    y = randn(2, 16, 24, 10, seed=1)
    there, back = inner(coefficients, y), inner(image, wavelet.inverse(y))
    torch.testing.assert_close(there, back, atol=1e-2, rtol=1e-4)


def test_wavelets_leave_a_linear_ramp_to_the_smooth_part() -> None:
    """Two vanishing moments: all details but those at the seam are zero."""
    ramp = torch.arange(32.0).reshape(32, 1, 1) + 0j
    wavelet = Wavelet((32, 1, 1))
    details = wavelet.forward(ramp)[16:, 0, 0]
    assert float(details[:-1].abs().max()) < 1e-4
    assert wavelet.shrunk(wavelet.forward(ramp), 1e6)[:2].abs().min() > 0


def test_divergence_is_the_negative_adjoint_of_the_gradient() -> None:
    axes = [-3, -1]
    x, p = randn(2, 5, 6, 7), randn(2, 2, 5, 6, 7, seed=1)
    left = (_gradient(x, axes).conj() * p).sum()
    right = -(x.conj() * _divergence(p, axes)).sum()
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


def test_a_perfect_denoiser_gives_the_truth(problem: Problem) -> None:
    truth = cg_sense(problem, 0.05, 5)
    sense = problem.sense
    exact = replace(problem, data=sense.forward(truth))
    turn = smooth_phase(cg_sense(exact, 0.02, 12))
    seen = truth * turn.conj()

    def oracle(image: Tensor, sigma: float, learned: bool) -> Tensor:
        return seen.real if learned else seen.imag

    found = plug_and_play(exact, oracle, PlugOptions(steps=1))
    torch.testing.assert_close(found, truth, atol=2e-3, rtol=0)


def test_levels_fall_to_the_noise() -> None:
    found = levels(PlugOptions(steps=3, first=4, last=1), 0.02)
    assert found == pytest.approx([0.08, 0.04, 0.02])
    assert levels(PlugOptions(steps=1, last=1), 0.02) == [0.02]


def test_the_phase_is_taken_off_and_given_back() -> None:
    axis = torch.linspace(-1, 1, 32)
    phase = torch.exp(1j * (0.7 + axis[:, None, None] * 2 + axis[None, :, None]))
    image = (1 + 0.2 * axis[:, None, None] ** 2) * phase.expand(32, 32, 4)[None]
    seen = []

    def keep(part: Tensor, sigma: float, learned: bool) -> Tensor:
        seen.append(part)
        return part

    again = denoised(image, 0.1, keep)
    torch.testing.assert_close(again, image, atol=1e-5, rtol=1e-5)
    middle = (slice(None), slice(8, 24), slice(8, 24))
    assert float(seen[1][middle].abs().max()) < 0.2 * float(seen[0][middle].abs().min())


@pytest.mark.parametrize("kind", ["vd2d", "vd1d", "poisson"])
def test_random_masks_have_their_acceleration_and_their_middle(kind: MaskKind) -> None:
    lines = sampling_lines(kind, (64, 48), 4, acs=12, seed=3)
    assert lines.shape == (64, 48)
    assert lines.size / lines.sum() == pytest.approx(4, rel=0.05)
    middle = lines[26:38] if kind == "vd1d" else lines[26:38, 18:30]
    assert middle.all()
    np.testing.assert_array_equal(lines, sampling_lines(kind, (64, 48), 4, acs=12, seed=3))
    assert (lines != sampling_lines(kind, (64, 48), 4, acs=12, seed=4)).any()
    near = lines[16:48].sum()  # denser in the middle
    assert near > 1.2 * (lines.sum() - near)


def test_uniform_masks_take_every_rth_line() -> None:
    lines = sampling_lines("uniform", (32, 1), 4, acs=0)
    assert list(np.flatnonzero(lines)) == list(range(0, 32, 4))
    with_middle = sampling_lines("uniform", (32, 1), 4, acs=6)
    assert with_middle[13:19].all()


def test_points_of_a_poisson_disc_keep_their_distance() -> None:
    lines = sampling_lines("poisson", (48, 48), 6, acs=0, seed=0)
    points = np.argwhere(lines).astype(float)
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(apart, 9)
    assert apart.min() >= np.sqrt(2)


@pytest.mark.parametrize(
    ("kind", "shape", "r", "acs", "words"),
    [
        ("vd2d", (32, 1), 4, 8, "two encoded axes"),
        ("vd1d", (32, 1), 8, 24, "more than R 8 leaves"),
        ("spiral", (32, 32), 4, 8, "unknown"),
        ("vd1d", (32, 1), 0.5, 8, "1 or more"),
    ],
)
def test_masks_that_cannot_be_are_refused(
    kind: MaskKind, shape: tuple[int, int], r: float, acs: int, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        sampling_lines(kind, shape, r, acs=acs)


def test_missing_calibration_lines_are_named(full: RawScan) -> None:
    bare = full.undersampled(sampling_lines("uniform", SHAPE[1:], 2, acs=0))
    with pytest.raises(ShapeError, match="phantom: the centre of k-space is not fully measured"):
        reconstruct_scan(bare, ReconstructOptions("cg-sense"))
    whole = replace(bare, calibration=(full.kspace, full.mask))
    done = reconstruct_scan(whole, ReconstructOptions("cg-sense"))
    assert done.facts["frames"][0]["calibration"] == [24, 24, 24]


def test_the_centre_is_the_largest_box_without_a_gap() -> None:
    mask = torch.zeros(1, 16, 40, 40, dtype=torch.bool)
    mask[:, :, 12:28, 10:30] = True
    mask[:, :, ::2, ::2] = True
    assert centre_shape(mask) == (16, 16, 20)
    lines = torch.from_numpy(sampling_lines("vd2d", (44, 36), 2, acs=12))
    x, y, z = centre_shape(lines.expand(1, 40, 44, 36))
    assert x == 24
    assert y * z >= 144


def test_noise_of_other_coils_is_refused(full: RawScan) -> None:
    with pytest.raises(ShapeError, match="of 2 coils"):
        reconstruct_scan(
            full, ReconstructOptions("zero-filled"), noise=np.ones((2, 99), np.complex64)
        )


def test_one_coil_needs_no_calibration(clean: Volume) -> None:
    scan = simulate_raw(clean, 0.01, coils=1)
    bare = scan.undersampled(sampling_lines("uniform", SHAPE[1:], 2, acs=0))
    done = reconstruct_scan(bare, ReconstructOptions("zero-filled"))
    assert done.facts["frames"][0]["coils"] == 1


def test_coils_can_be_compressed(full: RawScan) -> None:
    done = reconstruct_scan(full, ReconstructOptions("zero-filled", coils=2))
    assert done.facts["frames"][0]["coils"] == 2


def test_slices_frames_and_oversampling(rng: np.random.Generator) -> None:
    """Two frames of three slices, the readout twice oversampled, on a finer matrix."""
    place = np.abs(np.linspace(-1, 1, 48))
    image = np.zeros((3, 48, 32), np.complex64)
    image[:, 16:32, 8:24] = (2 - place[16:32, None]) * np.arange(1, 4)[:, None, None]
    maps = simulated_coils((48, 32, 1), 3, rng)
    coils = torch.from_numpy(image[:, None, :, :, None] * maps[None])
    kspace = np.stack([fft(coils).numpy()] * 2)
    noise = rng.normal(size=(3, 500)) + 1j * rng.normal(size=(3, 500))
    scan = RawScan(
        kspace,
        np.ones((2, 3, 48, 32, 1), bool),
        (96.0, 64.0, 5.0),
        (48, 32, 1),
        (48.0, 64.0, 5.0),
        np.diag([1.0, 2.0, 6.0, 1.0]),
        noise=(1e-3 * noise).astype(np.complex64),
        frames=("", "contrast 1"),
    )
    done = reconstruct_scan(scan, ReconstructOptions("zero-filled"))
    assert done.magnitude.data.shape == (48, 32, 3, 2)
    middle = done.magnitude.data[24, 16, :, 0]
    np.testing.assert_allclose(middle / middle[0], [1, 2, 3], rtol=0.02)
    assert float(done.magnitude.data[2:6, :, 0].max()) < 0.2 * middle[0]


def test_planes_across_the_readout_stand_alone(problem: Problem) -> None:
    whole = cg_sense(problem, 0.05, 40)
    part = cg_sense(problem.planes(8, 12), 0.05, 40)
    torch.testing.assert_close(part, whole[:, 8:12], atol=2e-3, rtol=0)
    tied = replace(problem, sense=replace(problem.sense, axes=(-3, -2, -1)))
    with pytest.raises(ShapeError, match="hang together"):
        tied.planes(0, 2)


def test_simulated_raw_data_is_seeded(clean: Volume) -> None:
    one, two = (simulate_raw(clean, 0.02, coils=2, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.kspace, two.kspace)
    with pytest.raises(ConfigError, match="fraction"):
        simulate_raw(clean, -1)


@pytest.mark.parametrize("kind", ["vd2d", "vd1d"])
def test_leaving_lines_out_afterwards_is_the_same(kind: MaskKind, full: RawScan) -> None:
    lines = sampling_lines(kind, SHAPE[1:], 2, acs=12, seed=2)
    late = frame_problem(full).undersampled(torch.from_numpy(lines))
    maps = late.sense.maps
    soon = frame_problem(full.undersampled(lines))
    assert soon.sense.axes == late.sense.axes
    same = replace(soon, sense=replace(soon.sense, maps=maps))
    torch.testing.assert_close(
        late.start * late.scale, same.start * same.scale, rtol=1e-3, atol=1e-2
    )
    assert late.acceleration == pytest.approx(soon.acceleration)


def test_g_of_any_mask_is_that_of_the_formula(full: RawScan) -> None:
    even = full.undersampled(sampling_lines("uniform", SHAPE[1:], 2, acs=0))
    even = replace(even, calibration=(full.kspace, full.mask))
    problem = frame_problem(even).planes(11, 13)
    found = g_factor_map(problem, replicas=60)[0]
    exact = sense_g_factor(problem.sense.maps[0], (1, 2, 1))
    seen = (exact > 0) & (exact < 3)  # beyond, the little regularisation there is matters
    assert float((found[seen] / exact[seen]).median()) == pytest.approx(1, abs=0.05)


def test_a_g_map_lies_on_the_grid_of_the_image(clean: Volume) -> None:
    scan = simulate_raw(clean, 0.01, coils=1)
    done = reconstruct_scan(scan, ReconstructOptions("zero-filled"), replicas=30)
    assert done.g_factor is not None
    assert done.g_factor.data.shape == SHAPE
    assert float(np.median(done.g_factor.data)) == pytest.approx(1, abs=0.05)
