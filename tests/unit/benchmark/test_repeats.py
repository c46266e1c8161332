from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.benchmark import repeats
from medddpm.benchmark.degradation import NoiseModel, simulated_gfactor
from medddpm.benchmark.methods import parse_method
from medddpm.benchmark.options import BenchmarkOptions
from medddpm.benchmark.repeat_case import RepeatCase, prepare_repeats
from medddpm.benchmark.repeats import measure_method
from medddpm.benchmark.repeats_page import cell, scan_lines
from medddpm.errors import ConfigError, GeometryError
from medddpm.preprocess.noise import expected_magnitude
from medddpm.preprocess.noise_law import WHITE, Colour, NoiseLaw
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Geometry, Volume

Image = NDArray[np.float32]
OPTIONS = BenchmarkOptions(noises=("white",))
SHAPE = (40, 44, 36)
COLOURED = Colour((0.6, 0.6, 0.9), (0, 1, 2))
LAWS: dict[str, dict[str, Any]] = {
    "white": {"colour": WHITE},
    "coloured": {"colour": COLOURED},
    "uneven": {"colour": WHITE, "gain": simulated_gfactor(SHAPE)},
    "loud": {"colour": COLOURED, "gain": 3.0},
}


@pytest.fixture
def x(head: Any) -> Image:
    clean: Image = head(SHAPE)
    return clean


def scans(
    x: Image,
    num: int,
    *,
    colour: Colour = WHITE,
    gain: Any = 1.0,
    sigma: float = 40.0,
    seed: int = 0,
) -> list[Volume]:
    law = NoiseLaw(sigma=np.asarray(sigma * gain, np.float32), colour=colour)
    rng = np.random.default_rng(seed)
    geometry = Geometry(x.shape, np.diag([1.0, 1.0, 1.2, 1.0]))
    return [Volume(law.added_to(x, rng), geometry, case_id=f"run-{i + 1}") for i in range(num)]


def measured(case: RepeatCase, name: str, source: Any = "oracle", **changes: Any) -> Any:
    return measure_method(case, parse_method(name), source, replace(OPTIONS, **changes), None)


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> list[Image]:
    """Collects each repeat that a method restores."""
    found: list[Image] = []
    restored = repeats._restored

    def told(*arguments: Any) -> Any:
        answer = restored(*arguments)
        found.append(answer.image)
        return answer

    monkeypatch.setattr(repeats, "_restored", told)
    return found


@pytest.mark.parametrize(
    ("law", "num"),
    [
        ("white", 2),
        ("uneven", 2),
        ("loud", 2),  # and coloured
        pytest.param("coloured", 2, marks=pytest.mark.slow),
        *(pytest.param(law, 3, marks=pytest.mark.slow) for law in LAWS),
    ],
)
def test_the_error_of_a_method_is_known_without_a_clean_scan(
    x: Image, images: list[Image], law: str, num: int
) -> None:
    """Against the clean phantom, over seeded repeats; "loud" noise is half of the dark part."""
    level = np.broadcast_to(np.float32(40.0 * LAWS[law].get("gain", 1.0)), SHAPE)
    rows, known = [], []
    for seed in range(6):
        case = prepare_repeats("head", scans(x, num, seed=seed, **LAWS[law]), OPTIONS)
        images.clear()
        rows.append(measured(case, "shrinkage").row)
        truth = expected_magnitude(x, level, 2)
        off = [expected_magnitude(i, level, 2) - truth for i in images]
        assert len(images) == num
        known.append(float(np.mean([np.mean(e[case.inside] ** 2) for e in off])))
        sigma = float(np.sqrt(np.mean(level[case.inside] ** 2)))
        assert rows[-1]["sigma_repeats"] == pytest.approx(sigma, rel=0.04)
    errors = np.sqrt(known)
    ratios = np.array([row["rmse"] for row in rows]) / errors
    assert ratios.mean() == pytest.approx(1, abs=0.015)
    assert np.abs(ratios - 1).max() < 0.04
    ends = ((row["rmse_low"], row["rmse_high"]) for row in rows)
    assert sum(low <= e <= high for (low, high), e in zip(ends, errors, strict=True)) >= 4
    doing_nothing = np.mean([row["rmse"] * 10 ** (row["gain"] / 20) for row in rows])
    assert doing_nothing == pytest.approx(sigma, rel=0.1)


def test_blind_sigma_is_held_against_that_of_the_repeats(x: Image) -> None:
    case = prepare_repeats("head", scans(x, 3), OPTIONS)
    told, blind = (measured(case, "shrinkage", source).row for source in ("oracle", "blind"))
    assert told["sigma_told"] == pytest.approx(case.level)
    assert blind["sigma_told"] == pytest.approx(40, rel=0.15)
    assert blind["sigma_told"] != told["sigma_told"]
    scan = {"repeats": 3, "scale": 1000.0, "sigma_repeats": 40.0}
    scan |= {"sigma_repeats_low": 39.0, "sigma_repeats_high": 41.0, "remarks": ["moved"]}
    nlm, off = (
        {"method": name, "sigma_source": "blind", "sigma_told": sigma}
        for name, sigma in (("nlm", 30.0), ("mean@shifts=1", 60.0))
    )
    lines = scan_lines(scan, [nlm, off])
    assert lines[1] == "as restore estimates it from one repeat alone 60, 50% too high"
    assert scan_lines(scan, [nlm])[1] == "as estimated from one repeat alone 30, 25% too low"
    assert lines[2] == "moved"


def test_doing_nothing_is_the_noise_of_the_repeats(x: Image) -> None:
    case = prepare_repeats("head", scans(x, 3), OPTIONS)
    row = measured(case, "identity", "none").row
    assert row["rmse"] == pytest.approx(40, rel=0.04)
    assert (row["gain"], row["removed"]) == pytest.approx((0, 0), abs=1e-6)
    assert row["psnr"] == pytest.approx(-20 * np.log10(40 / case.case.scale), abs=0.3)
    assert row["sigma_told"] is None
    assert row["not_noise"] < 0.05


def test_bias_and_share_are_those_of_the_method(x: Image) -> None:
    case = prepare_repeats("head", scans(x, 4, sigma=60), OPTIONS)
    row = measured(case, "shrinkage").row
    assert 0.5 < row["removed"] < 1
    assert all(abs(row[f"bias_{name}"]) < 0.01 for name in ("middle", "bright"))
    assert abs(row["bias_dark"]) < 0.02
    assert 0 < row["systematic"] < row["rmse"]
    low = replace(case, gains=[1.0] * 4)
    shifted = measure_shifted(low, 30.0)
    assert shifted["bias_bright"] == pytest.approx(30 / case.case.scale, abs=0.004)
    assert shifted["systematic"] == pytest.approx(30, rel=0.2)


def measure_shifted(case: RepeatCase, offset: float) -> dict[str, Any]:
    """The scan itself, brighter by an offset: an error that no repeat averages away."""
    from medddpm.benchmark.repeats import _scores

    return _scores(case, [repeat.data + np.float32(offset) for repeat in case.repeats], 2)


def test_a_gain_is_fitted_said_and_taken_off(x: Image) -> None:
    plain = scans(x, 3)
    louder = [plain[0], plain[1].with_data(plain[1].data * np.float32(1.07)), plain[2]]
    case = prepare_repeats("head", louder, OPTIONS)
    assert case.gains == pytest.approx([1, 1.07, 1], rel=2e-3)
    assert any("run-2 +7." in line or "run-2 +6.9" in line for line in case.remarks)
    rows = [
        measured(prepare_repeats("head", some, OPTIONS), "shrinkage").row
        for some in (plain, louder)
    ]
    assert rows[1]["rmse"] == pytest.approx(rows[0]["rmse"], rel=0.03)
    assert rows[1]["not_noise"] < 0.05


def test_what_is_no_repeat_is_named_and_left_out(x: Image) -> None:
    good = scans(x, 5)
    moved = good[1].with_data(np.roll(good[1].data, 3, axis=0))
    copy = replace(good[0], case_id="again")
    empty = replace(good[2], data=np.zeros_like(x), case_id="empty")
    case = prepare_repeats("head", [moved, good[0], copy, empty, *good[3:]], OPTIONS)
    assert [r.case_id for r in case.repeats] == ["run-1", "run-4", "run-5"]
    assert [line.split(":")[0] for line in case.remarks[:3]] == [
        "again is left out",
        "empty is left out",
        "run-2 is left out",
    ]
    assert "a copy of run-1" in case.remarks[0]
    assert "something moved, or the contrast is another" in case.remarks[2]


def test_the_rest_of_a_movement_is_said_with_the_error_that_it_is(x: Image) -> None:
    """The median of the difference is noise, so the repeat stays; half a voxel moved at edges."""
    still = scans(x, 2, sigma=25)
    nudged = scans((x + np.roll(x, 1, axis=1)) / np.float32(2), 1, sigma=25, seed=9)
    case = prepare_repeats("head", [still[0], *nudged], OPTIONS)
    assert len(case.repeats) == 2
    assert case.not_noise > 0.2
    words = next(line for line in case.remarks if "is not noise: it lies at edges" in line)
    row = measured(case, "identity", "none").row
    rest = float(words.split("an RMSE of ")[1].split(",")[0])
    assert rest == pytest.approx(row["rmse"] * case.not_noise**0.5, rel=0.05)
    calm = prepare_repeats("head", still, OPTIONS)
    assert not any("not noise" in line for line in calm.remarks)


@pytest.mark.parametrize(
    "make", [lambda s: s[:1], lambda s: [s[0], s[0]], lambda s: [s[0], replace(s[0])]]
)
def test_fewer_than_two_repeats_are_an_error(x: Image, make: Any) -> None:
    with pytest.raises(ConfigError, match="head: two repeats that are alike are needed"):
        prepare_repeats("head", make(scans(x, 1)), OPTIONS)


def test_other_grids_are_an_error(x: Image) -> None:
    first, second = scans(x, 2)
    moved = replace(second, geometry=Geometry(x.shape, np.diag([1.0, 1.0, 1.3, 1.0])))
    with pytest.raises(GeometryError, match="run-2 lies on another grid"):
        prepare_repeats("head", [first, moved], OPTIONS)


def test_at_most_so_many_and_a_crop(x: Image) -> None:
    options = replace(OPTIONS, crop=(24, 24, 20))
    case = prepare_repeats("head", scans(x, 5), options, 3)
    assert len(case.repeats) == 3
    assert "the first 3 of 5 repeats are used" in case.remarks
    assert case.inside.shape == (24, 24, 20)
    assert case.repeats[0].geometry.matches(case.case.volume.geometry)
    row = measured(case, "shrinkage").row
    assert row["voxels"] == case.inside.sum()


def test_a_masked_scan_is_scored_where_all_repeats_have_a_signal(x: Image) -> None:
    good = scans(x, 3)
    masks = [(x > 0) & (np.arange(SHAPE[0]) > n)[:, None, None] for n in (8, 9, 10)]
    masked = [g.with_data(np.where(m, g.data, 0)) for g, m in zip(good, masks, strict=True)]
    case = prepare_repeats("head", masked, OPTIONS)
    assert not (case.inside & ~masks[2]).any()
    assert case.level == pytest.approx(40, rel=0.05)


@pytest.mark.parametrize(("kind", "coils"), [("gaussian", 1), ("ncchi", 4)])
def test_other_laws(x: Image, kind: Any, coils: int) -> None:
    law = NoiseLaw(kind, coils, sigma=50.0)
    rng = np.random.default_rng(1)
    geometry = Geometry(x.shape, np.eye(4))
    repeats = [Volume(law.added_to(x, rng), geometry, case_id=f"{i}") for i in range(3)]
    options = replace(OPTIONS, noise=NoiseModel(kind, coils))
    case = prepare_repeats("head", repeats, options)
    row = measured(case, "shrinkage", noise=options.noise).row
    assert row["sigma_repeats"] == pytest.approx(50, rel=0.04)
    assert abs(row["bias_dark"]) < 0.015
    wrong = measured(prepare_repeats("head", repeats, OPTIONS), "identity", "none").row
    assert np.isfinite(wrong["rmse"])


def test_samples_of_our_model_differ_between_repeats(x: Image, tiny_weights: Any) -> None:
    restorer = Restorer.from_pretrained(tiny_weights, "cpu")
    case = prepare_repeats("head", scans(x, 2), replace(OPTIONS, crop=(32, 32, 32)))
    rows = [
        measure_method(case, parse_method(name), "blind", OPTIONS, restorer).row
        for name in ("mean", "sample@steps=2")
    ]
    assert rows[0]["rmse"] != rows[1]["rmse"]
    assert all(np.isfinite(row["rmse"]) for row in rows)


def cells(rows: Sequence[dict[str, Any]], name: str) -> list[str]:
    return [cell(row, name) for row in rows]


def test_what_cannot_be_told_is_said() -> None:
    rows: list[dict[str, Any]] = [
        {"gain": 1.5, "gain_low": 1.0, "gain_high": 2.0},
        {"gain": 1.5, "gain_low": 1.0, "gain_high": None},
        {"gain": None, "gain_low": 1.0, "gain_high": None},
        {"gain": None, "gain_low": None, "gain_high": None},
    ]
    assert cells(rows, "gain") == [
        "+1.50 (+1.00 to +2.00)",
        "+1.50 (+1.00 to more)",
        "over +1.00",
        "not known",
    ]
    assert cells([{"gain": -1e-9, "gain_low": -1e-9, "gain_high": 1e-9}], "gain") == [
        "+0.00 (+0.00 to +0.00)"
    ]
    assert cells([{"removed": 0.5, "removed_low": 0.4, "removed_high": 0.6}], "removed") == [
        "50 (40 to 60)"
    ]
