"""A benchmark on noise as scanners make it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.benchmark import peers
from medddpm.benchmark.degradation import NoiseModel, added_law, degrade, rms_sigma
from medddpm.benchmark.measure import prepare_case, run_method, spoil
from medddpm.benchmark.methods import parse_method
from medddpm.benchmark.options import BenchmarkOptions
from medddpm.benchmark.rows import prepare_run
from medddpm.benchmark.run import benchmark
from medddpm.data.scan_list import ScanList
from medddpm.errors import ConfigError
from medddpm.preprocess.acquisition import Acquisition
from medddpm.preprocess.found_noise import find_noise
from medddpm.preprocess.noise_law import Colour, NoiseLaw
from medddpm.restoration.restorer import Restorer
from medddpm.volume import Geometry, Volume

Head = Callable[..., NDArray[np.float32]]
ROTATED = Acquisition(0.0, rotation=(40.0, 0.0, -40.0))


def test_a_perfect_method_is_compared_with_the_clean_scan_of_the_chain(scan: Volume) -> None:
    """A rotation moves the regions too: they lie on the tissue that they name."""
    options = BenchmarkOptions(acquisition=ROTATED)
    spoilt = spoil(prepare_case(scan, options), 0.05, "acquired", options)
    seen, was = spoilt.case, prepare_case(scan, options)
    assert not np.allclose(seen.volume.data, was.volume.data, atol=1)
    for name, value in (("dark", 350), ("middle", 700), ("bright", 950)):
        turned, stayed = (seen.volume.data[case.regions[name]] for case in (seen, was))
        assert turned.mean() == pytest.approx(value, rel=0.12)
        assert turned.std() < 0.8 * stayed.std()
    row = run_method(spoilt, parse_method("identity"), "none", None).row.cells
    # A spline between the voxels takes noise away, and the row says how much is there.
    assert row["psnr"] == pytest.approx(-20 * np.log10(row["sigma_true"]), abs=0.4)
    assert row["sigma_true"] < 0.05
    assert row["acquisition"]["rotation"] == ROTATED.rotation


def test_all_methods_get_the_same_scan_and_the_same_acquisition(scan: Volume) -> None:
    options = BenchmarkOptions()
    case = prepare_case(scan, options)
    one, two = (spoil(case, 0.05, "acquired", options) for _ in range(2))
    np.testing.assert_array_equal(one.noisy.data, two.noisy.data)
    assert one.acquisition == two.acquisition
    other = BenchmarkOptions(noise=NoiseModel(seed=1))
    assert spoil(case, 0.05, "acquired", other).acquisition != one.acquisition


def test_who_is_told_what(scan: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers are told one number and the colour; a blind one gets what the scan tells."""
    told: list[NoiseLaw] = []

    def spy(y: Any, law: NoiseLaw) -> Any:
        told.append(law)
        return y

    monkeypatch.setitem(peers.PEERS, "tv", spy)
    options = BenchmarkOptions(
        acquisition=Acquisition(0.0, acceleration=2, coils=8, matrix=(0.6, 0.6, 0.9))
    )
    spoilt = spoil(prepare_case(scan, options), 0.05, "acquired", options)
    row = run_method(spoilt, parse_method("tv"), "oracle", None).row.cells
    assert told[0].colour == spoilt.law.colour
    assert told[0].sigma == pytest.approx(row["sigma_true"], rel=1e-4)
    assert row["sigma_told"] == pytest.approx(row["sigma_true"], rel=1e-4)
    assert row["sigma_true"] > 0.05 * np.sqrt(2)
    assert row["sigma_error"] is None
    blind = run_method(spoilt, parse_method("tv"), "blind", None).row
    assert told[1].sigma != told[0].sigma
    assert blind.sigma_error is not None
    assert blind.sigma_error > 0
    edges = zip(told[1].colour.edge, spoilt.law.colour.edge, strict=True)
    assert blind.edge_apart == max(abs(found - true) for found, true in edges)
    assert 0 <= blind.sigma_own < blind.sigma_true


def test_ours_told_the_law_get_all_of_it(scan: Volume, tiny_weights: Path) -> None:
    restorer = Restorer.from_pretrained(tiny_weights, "cpu")
    laws: list[NoiseLaw | None] = []
    inner = restorer.restore

    def spy(volume: Volume, *, law: NoiseLaw | None = None, **changes: Any) -> Any:
        laws.append(law)
        return inner(volume, law=law, **changes)

    restorer.restore = spy  # type: ignore[method-assign]
    own = Acquisition(0.0, "ncchi", 4, matrix=(0.7, 0.7, 1.0), normalised=0.3)
    options = BenchmarkOptions(acquisition=own)
    spoilt = spoil(prepare_case(scan, options), 0.05, "acquired", options)
    for source in ("oracle", "blind"):
        row = run_method(spoilt, parse_method("mean"), source, restorer).row  # type: ignore[arg-type]
        assert (row.law, row.coils) == ("ncchi", 4)
    found = find_noise(spoilt.noisy.data, law=spoilt.law, spacing=spoilt.noisy.spacing)
    apart = max(abs(f - t) for f, t in zip(found.law.colour.edge, own.matrix, strict=True))
    assert row.edge_apart == pytest.approx(apart, abs=0.03)  # an acquired grid has whole voxels
    assert laws == [spoilt.law, None]


def test_the_shrinkage_that_knows_the_colour_beats_the_one_that_takes_it_for_white(
    scan: Volume,
) -> None:
    options = BenchmarkOptions()
    spoilt = spoil(prepare_case(scan, options), 0.08, "ellipse", options)
    y = spoilt.noisy.data / np.float32(spoilt.case.scale)
    x = spoilt.case.volume.data / np.float32(spoilt.case.scale)
    inside = spoilt.case.regions["foreground"]
    errors = [
        np.std((peers.shrinkage(y, NoiseLaw("rician", 1, 0.08, colour)) - x)[inside])
        for colour in (spoilt.law.colour, Colour())
    ]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("correlated", [0.0, 1.5])
def test_the_law_of_added_noise_is_what_is_added(correlated: float) -> None:
    flat = np.full((40, 40, 40), 1000, np.float32)
    volume = Volume(flat, Geometry(flat.shape, np.eye(4)), case_id="flat")
    model = NoiseModel("gaussian", correlated=correlated)
    law = added_law(model, 20.0)
    error = degrade(volume, 20.0, model).data - flat
    measured = np.square(np.abs(np.fft.rfft(error, axis=0))).mean(axis=(1, 2))[1:-1]
    f = 2 * np.fft.rfftfreq(40)[1:-1]
    said = law.colour.power([f, np.zeros(1), np.zeros(1)])[:, 0, 0].astype(float)
    np.testing.assert_allclose(measured / measured.mean(), said / said.mean(), rtol=0.3, atol=0.05)
    gain = np.ones(flat.shape, np.float32)
    gain[:20] = 3
    mask = np.ones(flat.shape, bool)
    assert rms_sigma(added_law(model, 20.0, gain), mask) == pytest.approx(20 * np.sqrt(5))


def test_white_and_acquired_side_by_side(folder: Path, tmp_path: Path, cli: Any) -> None:
    out = tmp_path / "out"
    words = ("benchmark", folder, "--out", out, "--sigma", 0.05, "--method", "identity")
    words += ("--method", "shrinkage", "--noise", "white", "--noise", "acquired")
    done = cli(*words)
    assert done.exit_code == 0, done.stderr
    with (out / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["noise"] for row in rows] == (["white"] * 2 + ["acquired"] * 2) * 2
    sources = {(r["noise"], r["method"]): r["sigma_source"] for r in rows}
    assert sources["white", "shrinkage"] == "blind"
    assert sources["acquired", "shrinkage"] == "oracle"
    assert {bool(r["acquisition"]) for r in rows if r["noise"] == "white"} == {False}
    made = [json.loads(r["acquisition"]) for r in rows if r["noise"] == "acquired"]
    assert made[0] == made[1] != made[2]  # of one scan the same, of the next another
    assert {float(r["sigma_fraction"]) for r in rows} == {0.05}
    assert all(float(r["sigma_true_fraction"]) > 0 for r in rows)
    facts = json.loads((out / "results.json").read_text())
    assert {line["noise"] for line in facts["summary"]} == {"white", "acquired"}
    page = (out / "index.html").read_text()
    assert "side by side" in page
    for found in facts["acquisitions"]:
        assert found["words"] in page
    found = [row for row in rows if row["sigma_error"]]
    assert [(row["noise"], row["sigma_source"]) for row in found] == [("white", "blind")] * 2
    true = [np.hypot(*(float(r[f"sigma_{n}_fraction"]) for n in ("true", "own"))) for r in found]
    off = [float(r["sigma_told_fraction"]) / t - 1 for r, t in zip(found, true, strict=True)]
    assert f"<td>{sum(abs(o) <= 0.1 for o in off)} of 2</td>" in page
    assert page.count("<svg ") == 2 * 4 + 1  # four charts for each noise, and the level
    assert page.count("data:image/png;base64,") > 2 * 4  # pictures of a slice for each noise
    kept = {p: p.stat().st_mtime_ns for p in (out / "rows").iterdir()}
    assert cli(*words, "--noise", "ellipse").exit_code == 0
    after = {p: p.stat().st_mtime_ns for p in (out / "rows").iterdir()}
    assert kept.items() < after.items()
    assert sum(p.suffix == ".json" for p in set(after) - set(kept)) == 4  # the ellipse alone


def test_rows_of_another_seed_name_or_acquisition_are_others(
    folder: Path, tmp_path: Path, save_nifti: Any, scan: Volume
) -> None:
    out = tmp_path / "out"

    def count(**changes: Any) -> int:
        options = BenchmarkOptions(sigmas=(0.05,), methods=("identity",), **changes)
        benchmark(ScanList(folder, "[ac]*"), out, prepare_run(options))
        return len(list((out / "rows").glob("*.json")))

    assert count() == 1
    assert count(noise=NoiseModel(seed=1)) == 2
    assert count(acquisition=ROTATED) == 3
    assert count(acquisition=ROTATED, noises=("acquired", "ellipse")) == 4
    assert count(noises=("ellipse",)) == 4
    (folder / "a.nii.gz").rename(folder / "c.nii.gz")  # the name is in the seed
    assert count(noises=("ellipse",)) == 5


def test_an_acquisition_of_ones_own(folder: Path, tmp_path: Path, cli: Any) -> None:
    own = tmp_path / "mine.json"
    own.write_text('{"matrix": [0.7, 0.7, 1], "kind": "ncchi", "coils": 4}')
    words = ("benchmark", folder, "--out", tmp_path / "out", "--method", "identity")
    words += ("--sigma", 0.05, "--acquisition", own)
    done = cli(*words)
    assert done.exit_code == 0, done.stderr
    facts = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {f["words"] for f in facts["acquisitions"]} == {
        "sum of squares of 4 coils; 70 x 70 x 100 % of the matrix acquired"
    }
    assert facts["options"]["acquisition"]["coils"] == 4
    own.write_text('{"matrix": [0.7, 0.7]}')
    refused = cli(*words)
    assert refused.exit_code == 2
    assert "mine.json: matrix" in refused.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--gfactor",), "--noise white"),
        (("--coils", 8), "--noise white"),
        (("--correlated", 1.5), "--noise white"),
        (("--gmap", "a.nii.gz"), "--noise white"),
        (("--noise", "white", "--noise", "gaussian"), "one law of white noise"),
    ],
)
def test_options_of_white_noise_need_it(
    folder: Path, tmp_path: Path, cli: Any, words: tuple[Any, ...], says: str
) -> None:
    done = cli("benchmark", folder, "--out", tmp_path / "out", "--method", "identity", *words)
    assert done.exit_code == 2
    assert says in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_kind_of_noise(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        BenchmarkOptions(noises=())
