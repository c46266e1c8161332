"""`compare`: one table and one page, a second call goes on, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unit.comparison.conftest import ONE_HEAD, SETTINGS, one_head

from medddpm.comparison.judge import lacks_variety
from medddpm.comparison.methods import Trained
from medddpm.comparison.options import CompareOptions
from medddpm.comparison.run import AUTOENCODER, READY, REAL, Comparison, compare
from medddpm.comparison.scene import Scene
from medddpm.config import load_config
from medddpm.errors import ConfigError, OutputError, SamplingDivergedError
from medddpm.generation.cascade import Cascade
from medddpm.generation.copies import Memory
from medddpm.generation.options import PriorSpec
from medddpm.generation.prior_file import PriorCard, TrainedPrior, save_prior

CONFIG = load_config(None, SETTINGS)


def run(data: Path, weights: Path, out: Path, steps: int, **changes: Any) -> Comparison:
    options: dict[str, Any] = {"methods": ("gan", ONE_HEAD), "count": 8, "draw_steps": 2}
    options |= {"steps": steps} | changes
    made = CompareOptions(**options)
    return compare(data, out=out, config=CONFIG, options=made, weights=weights)


@pytest.fixture(scope="module", autouse=True)
def few_pairs() -> Iterator[None]:
    """MS-SSIM of 5 pairs in place of 60: a quarter of a second each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medddpm.likeness.compare._PAIRS", 5)
        yield


@pytest.fixture(scope="module")
def done(
    many_heads: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Comparison]:
    out = tmp_path_factory.mktemp("comparison")
    return out, run(many_heads, tiny_weights, out, 2)


def test_one_row_a_method_after_those_of_real_heads(done: tuple[Path, Comparison]) -> None:
    out, comparison = done
    rows = {row["method"]: row for row in comparison.rows}
    assert list(rows) == [REAL, AUTOENCODER, "gan", ONE_HEAD]
    gan = rows["gan"]
    assert gan["steps"] == 2
    assert gan["train_minutes"] > 0
    assert gan["seconds_a_draw"] > 0
    assert gan["memory_gb"] >= 0
    assert 1000 < gan["weights"] < 100_000
    for name in ("frechet", "kernel", "nearest", "ms_ssim"):
        for row in rows.values():
            assert row[f"{name}_low"] <= row[f"{name}_high"]
    assert rows[REAL]["frechet"] < gan["frechet"]  # a fresh network is further than half and half
    assert [p.name for p in comparison.paths] == [
        "comparison.csv",
        "comparison.json",
        "comparison.html",
    ]
    with (out / "comparison.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [line["method"] for line in table] == list(rows)
    assert float(table[2]["frechet"]) == pytest.approx(gan["frechet"])
    facts = json.loads((out / "comparison.json").read_text())
    assert facts["rows"][2]["steps"] == 2
    seen = json.loads((out / "methods" / "gan" / "run.json").read_text())["subjects"]
    assert list(seen) == [f"sub-{n:02d}" for n in range(1, 15)]  # for a withdrawal
    assert facts["settings"]["held_out"] == ["sub-15_T1w", "sub-16_T1w"]


def test_mode_collapse_and_copies_are_seen(done: tuple[Path, Comparison]) -> None:
    out, comparison = done
    real, collapsed = comparison.rows[0], comparison.rows[-1]
    assert collapsed["ms_ssim_low"] > 0.99
    assert real["ms_ssim"] < 0.99
    assert collapsed["copies"] == 1.0
    assert "100% of its draws are copies" in (out / "comparison.html").read_text()


@pytest.mark.parametrize(("low", "lacks"), [(0.91, True), (0.89, False)])
def test_variety_lacks_where_intervals_part(low: float, lacks: bool) -> None:
    assert lacks_variety({"ms_ssim_low": low}, {"ms_ssim_high": 0.9}) is lacks


def test_a_second_call_goes_on(
    done: tuple[Path, Comparison], many_heads: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    shutil.copytree(done[0], out)
    state = out / "methods" / "gan" / "gan" / "state.safetensors"
    before = state.stat().st_mtime_ns
    (row,) = [r for r in run(many_heads, tiny_weights, out, 3).rows if r["method"] == "gan"]
    assert row["steps"] == 3
    assert state.stat().st_mtime_ns > before
    log = (out / "methods" / "gan" / "gan" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log if "loss" in json.loads(line)] == [2, 3]


def test_a_method_that_diverges_has_a_row_that_says_so(
    many_heads: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    name = f"{__name__}:diverges"
    found = run(many_heads, tiny_weights, tmp_path, 2, methods=(name,))
    row = found.rows[-1]
    assert (row["method"], row["state"]) == (name, "diverged")
    assert "it went up" in (tmp_path / "comparison.html").read_text()


def test_draws_that_are_no_numbers_fail_alone(
    many_heads: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    name = f"{__name__}:draws_nothing"
    found = run(many_heads, tiny_weights, tmp_path, 2, methods=(name, ONE_HEAD))
    assert [row["state"] for row in found.rows[2:]] == ["diverged", "done"]
    assert "holds NaN" in found.rows[2]["error"]


def draws_nothing(scene: Scene, folder: Path, on_log: Any) -> Trained:
    made = one_head(scene, folder, on_log)
    return replace(made, draw=lambda seed: made.draw(seed) * float("nan"))


def diverges(*_: Any) -> Any:
    raise SamplingDivergedError("it went up")


def test_a_call_that_is_stopped_leaves_the_table_so_far(
    many_heads: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    methods = (ONE_HEAD, f"{__name__}:is_stopped")
    with pytest.raises(KeyboardInterrupt):
        run(many_heads, tiny_weights, tmp_path, 2, methods=methods)
    rows = json.loads((tmp_path / "comparison.json").read_text())["rows"]
    assert [row["method"] for row in rows] == [REAL, AUTOENCODER, ONE_HEAD]


def is_stopped(*_: Any) -> Any:
    raise KeyboardInterrupt


def test_other_settings_need_another_folder(
    done: tuple[Path, Comparison], many_heads: Path, tiny_weights: Path
) -> None:
    config = load_config(None, [*SETTINGS, "prior.channels=[8,16]"])
    options = CompareOptions(methods=("vae",), steps=1, count=8)
    with pytest.raises(OutputError, match="a comparison with other prior; take another --out"):
        compare(many_heads, out=done[0], config=config, options=options, weights=tiny_weights)


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["--method", "vqgan"], "method 'vqgan' is unknown", 2),
        (["--minutes", "0"], "minutes is 0", 2),
        (["--minutes", "1", "--steps", "2"], "give one of them", 2),
        (["--steps", "0"], "at least one step", 2),
        (["--count", "3"], "at least 8 draws", 2),
        (["--method", "gan", "--method", "gan"], "name each method once", 2),
        (["--contrast", "T2w"], "no scan in", 2),
        (["--set", "data.holdout=[]"], "0 held out", 2),
        (["--weights", "no.safetensors"], "no.safetensors", 3),
    ],
)
def test_what_cannot_be_compared(
    many_heads: Path,
    tiny_weights: Path,
    tmp_path: Path,
    cli: Callable[..., Any],
    words: list[str],
    said: str,
    code: int,
) -> None:
    settings = [part for text in SETTINGS for part in ("--set", text)]
    weights = [] if "--weights" in words else ["--weights", tiny_weights]
    found = cli("compare", many_heads, "--out", tmp_path / "out", *settings, *weights, *words)
    assert found.exit_code == code
    assert said in found.stderr
    assert not (tmp_path / "out" / "methods").exists()


@pytest.mark.parametrize("scans", [1, 3])
def test_few_scans_are_refused(
    many_heads: Path, tiny_weights: Path, tmp_path: Path, scans: int
) -> None:
    data = tmp_path / "few"
    data.mkdir()
    for number in range(16, 16 - scans, -1):
        shutil.copy(many_heads / f"sub-{number}_T1w.nii.gz", data)
    with pytest.raises(ConfigError, match=r"0 scans to train on|too few to compare"):
        run(data, tiny_weights, tmp_path / "out", 1)


def test_real_heads_are_in_poses_of_their_own(scene: Callable[[int], Any]) -> None:
    from medddpm.comparison.judge import real_heads

    images, names = real_heads(scene(1))
    assert images.shape == (16, 32, 32, 32)
    assert names[-2:] == ["sub-15_T1w", "sub-16_T1w"]
    assert np.array_equal(images, real_heads(scene(1))[0])


def test_a_prior_that_was_trained_before_is_a_row(
    many_heads: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    spec = PriorSpec((32, 32, 32), 6.0, (8, 8), (8, 8), embedding_width=16)
    card = PriorCard(
        contrast="T1w",
        scans=("sub-01_T1w",),
        held=("sub-15_T1w",),
        consent={},
        steps={"prior": 3, "detail": 4, "finer": 5},
        hours=0.5,
        explained={},
        threshold=0.5,
        recognised=1.0,
    )
    trained = TrainedPrior(Cascade(spec), Memory(torch.zeros(1, 8), torch.zeros(8)), card)
    path = tmp_path / "mine.safetensors"
    save_prior(path, trained)
    rows = run(many_heads, tiny_weights, tmp_path, 1, methods=("vae",), prior=str(path)).rows
    assert [row["method"] for row in rows] == [REAL, AUTOENCODER, READY, "vae"]
    row = rows[2]
    assert (row["steps"], row["train_minutes"], row["calls_a_draw"]) == (7, 30, 4)
    assert row["frechet"] > rows[0]["frechet"]
    for changed, said in (
        (replace(trained, card=card.model_copy(update={"scans": ("sub-15_T1w",)})), "held out"),
        (replace(trained, prior=Cascade(replace(spec, spacing=5.0))), r"prior\.shape"),
    ):
        save_prior(path, changed)
        with pytest.raises(ConfigError, match=said):
            run(many_heads, tiny_weights, tmp_path, 1, methods=("vae",), prior=str(path))
