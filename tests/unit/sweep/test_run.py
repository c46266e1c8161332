from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medddpm.config import load_config
from medddpm.errors import ConfigError, OutputError
from medddpm.model.model import load_model, save_model
from medddpm.sweep.cell import claimed, parse_stages
from medddpm.sweep.grid import cell_name, make_grid, split_values
from medddpm.sweep.run import Cluster, Sweep, sweep
from medddpm.volume import Volume
from medddpm.workflows.training import train

SMALL = {
    "data": {"patch": 16, "holdout": ["sub-2*"]},
    "autoencoder": {
        "encoder_channels": 8,
        "decoder_channels": 8,
        "encoder_blocks": 1,
        "decoder_blocks": 1,
        "steps": 2,
        "batch": 1,
    },
    "diffusion": {
        "channels": [8, 8],
        "num_blocks": 1,
        "embedding_width": 16,
        "steps": 2,
        "batch": 1,
    },
    "fidelity": {
        "channels": [8, 8],
        "num_blocks": 1,
        "embedding_width": 16,
        "steps": 2,
        "batch": 1,
    },
    "train": {
        "warmup": 1,
        "log_every": 1,
        "validate_every": 2,
        "validation_patches": 2,
        "bf16": "off",
        "device": "cpu",
    },
    "restore": {"bf16": "off"},
}


@pytest.fixture
def phantom_shape() -> tuple[int, int, int]:
    return (40, 44, 36)


@pytest.fixture
def data(tmp_path: Path, phantom: Volume, save_nifti: Callable[..., Path]) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, image in (("sub-1", phantom.data), ("sub-2", phantom.data**0.9)):
        save_nifti(folder / f"{name}_T1w.nii.gz", image, phantom.affine)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return str(path)


@pytest.fixture
def before(data: Path, config: str, tmp_path: Path) -> Path:
    """A run folder with a trained autoencoder."""
    train("autoencoder", data=data, out=tmp_path / "run", config=load_config(config))
    return tmp_path / "run"


@pytest.fixture
def small_sweep(data: Path, config: str, before: Path, tmp_path: Path) -> Callable[..., Sweep]:
    def run(*assignments: str, **options: Any) -> Sweep:
        options = {"weights": before, "out": tmp_path / "sweep"} | options
        return sweep(config, assignments, data=data, **options)

    return run


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("linear,cosine", ["linear", "cosine"]),
        ("[8,8],[16, 16]", ["[8,8]", "[16, 16]"]),
        ("{kind: cosine, num_timesteps: 9},linear", ["{kind: cosine, num_timesteps: 9}", "linear"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("1e-3", ["1e-3"]),
    ],
)
def test_commas_in_brackets_and_quotes_do_not_end_a_value(text: str, values: list[str]) -> None:
    assert split_values(text) == values


def test_the_grid_has_every_combination_and_short_names(config: str) -> None:
    cells = make_grid(
        config,
        ["diffusion.schedule=linear,cosine", "diffusion.channels=[8,8],[4,4]", "train.seed=3"],
    )
    assert [cell.name for cell in cells] == [
        "channels-8x8_schedule-linear",
        "channels-4x4_schedule-linear",
        "channels-8x8_schedule-cosine",
        "channels-4x4_schedule-cosine",
    ]
    assert {cell.config.diffusion.schedule.kind for cell in cells} == {"linear", "cosine"}
    assert {cell.config.diffusion.channels for cell in cells} == {(8, 8), (4, 4)}
    assert {cell.config.train.seed for cell in cells} == {3}


def test_names_do_not_depend_on_the_order_and_never_collide() -> None:
    assert cell_name({"b.x": "1", "a.y": "2"}) == cell_name({"a.y": "2", "b.x": "1"})
    assert cell_name({"a.steps": "1", "b.steps": "2"}) != cell_name(
        {"a.steps": "2", "b.steps": "1"}
    )
    odd = {cell_name({"data.holdout": value}) for value in ("['a*']", "['a?']", "['a/']")}
    assert len(odd) == 3
    assert all("/" not in name for name in odd)
    assert len(cell_name({"a.b": "x" * 300})) < 100


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["diffusion.schedule=linear"], "two values"),
        (["diffusion.schedule=linear,linear"], "twice"),
        (["diffusion.schedule=linear,"], "empty"),
        (["diffusion.schedule=linear,nonsense"], "nonsense"),
        (["diffusion.scheduel=linear,cosine"], "did you mean schedule"),
        (["diffusion.steps=1,2", "diffusion.steps=3,4"], "given twice"),
        (["linear,cosine"], "FIELD=VALUE"),
    ],
)
def test_a_grid_that_cannot_be_is_said_before_any_work(
    config: str, assignments: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make_grid(config, assignments)


def test_stages_train_in_their_order() -> None:
    assert parse_stages(["fidelity", "diffusion"]) == ("diffusion", "fidelity")
    with pytest.raises(ConfigError, match="decoder"):
        parse_stages(["decoder"])


def test_a_failed_cell_is_recorded_and_the_rest_goes_on(
    small_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    done = small_sweep("diffusion.prediction=eps,v,x0")
    assert [row["state"] for row in done.rows] == ["failed", "done", "done"]
    assert "zero SNR" in done.rows[0]["error"]
    for row in done.rows[1:]:
        log = row["log"]
        for sigma in ("0.05", "0.09"):
            assert row[f"psnr_{sigma}"] == pytest.approx(log[f"psnr_plain_{sigma}"], abs=0.3)
            assert 0 < row[f"ssim_{sigma}"] < 1
        assert row["train_seconds"] > row["restore_seconds"] > 0
    with (tmp_path / "sweep" / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [line["diffusion.prediction"] for line in table] == ["eps", "v", "x0"]
    assert float(table[1]["psnr"]) == pytest.approx(done.rows[1]["psnr"])
    assert json.loads((tmp_path / "sweep" / "results.json").read_text())["cells"][2]["cell"]
    assert (tmp_path / "sweep" / "sweep.html").read_text().count("<svg ") == 4


def other_weights(run: Path, folder: Path) -> Path:
    model = load_model(run / "model.safetensors")
    model.card["name"] = "other"
    save_model(folder / "other.safetensors", model)
    return folder / "other.safetensors"


def test_a_sweep_goes_on_only_when_asked_and_does_nothing_twice(
    small_sweep: Callable[..., Sweep], before: Path, tmp_path: Path
) -> None:
    first = small_sweep("diffusion.prediction=v,x0")
    with pytest.raises(OutputError, match="--resume"):
        small_sweep("diffusion.prediction=v,x0")
    rows: list[Any] = []
    again = small_sweep(
        "diffusion.prediction=v,x0", resume=True, on_log=lambda *row: rows.append(row)
    )
    assert again.rows == first.rows
    assert rows == []
    with pytest.raises(ConfigError, match="other settings"):
        small_sweep("diffusion.prediction=v,x0", "train.seed=1", resume=True)
    with pytest.raises(ConfigError, match="other weights"):
        small_sweep(
            "diffusion.prediction=v,x0", weights=other_weights(before, tmp_path), resume=True
        )
    more = small_sweep("diffusion.prediction=v,x0", stages=["diffusion", "fidelity"], resume=True)
    assert {row["stages"] for row in more.rows} == {"diffusion+fidelity"}
    cells = tmp_path / "sweep" / "cells"
    assert (cells / "prediction-v" / "fidelity" / "log.jsonl").exists()


def test_a_sweep_that_was_cut_off_ends_like_one_that_was_not(
    small_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    def stop(cell: str, row: dict[str, Any]) -> None:
        if cell == "prediction-x0" and row.get("step") == 1:
            os.kill(os.getpid(), signal.SIGINT)

    small_sweep("diffusion.prediction=v,x0", out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        small_sweep("diffusion.prediction=v,x0", on_log=stop)
    steps: list[int] = []
    done = small_sweep(
        "diffusion.prediction=v,x0",
        resume=True,
        on_log=lambda _, row: steps.append(row.get("step", 0)),
    )
    assert set(steps) == {2}
    assert [row["state"] for row in done.rows] == ["done", "done"]
    for cell in ("prediction-v", "prediction-x0"):
        a, b = (
            (tmp_path / out / "cells" / cell / "diffusion" / "state.safetensors").read_bytes()
            for out in ("whole", "sweep")
        )
        assert a == b


HOLD = """
import sys, time
from pathlib import Path
from medddpm.sweep.cell import claimed
with claimed(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_a_cell_of_another_process_is_left_to_it_until_that_dies(
    small_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    cell = tmp_path / "sweep" / "cells" / "prediction-v"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(cell)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        done = small_sweep("diffusion.prediction=v,x0", resume=True)
        other.kill()
    assert [row["state"] for row in done.rows] == ["running", "done"]
    assert f"process {other.pid}" in done.rows[0]["error"]
    done = small_sweep("diffusion.prediction=v,x0", resume=True)
    assert [row["state"] for row in done.rows] == ["done", "done"]


def test_one_process_cannot_claim_a_folder_twice(tmp_path: Path) -> None:
    with claimed(tmp_path / "cell") as first, claimed(tmp_path / "cell") as second:
        assert first
        assert not second
    with claimed(tmp_path / "cell") as third:
        assert third


def test_the_earlier_stages_are_asked_for(
    small_sweep: Callable[..., Sweep], before: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--from"):
        small_sweep("diffusion.prediction=v,x0", weights=None)
    with pytest.raises(ConfigError, match="no trained diffusion"):
        small_sweep("fidelity.steps=1,2", stages=["fidelity"])
    assert not (tmp_path / "sweep").exists()
    done = small_sweep("autoencoder.latent_channels=8,16", stages=["autoencoder"], weights=None)
    assert done.rows[0]["psnr"] == pytest.approx(done.rows[0]["log"]["psnr"], abs=0.3)


@pytest.mark.slow
def test_cells_run_over_dask(small_sweep: Callable[..., Sweep]) -> None:
    pytest.importorskip("distributed")
    done = small_sweep("diffusion.prediction=eps,v", cluster=Cluster(workers=1))
    assert [row["state"] for row in done.rows] == ["failed", "done"]
    assert done.rows[1]["ssim"] > 0


def test_the_command_says_the_table_and_flags_a_failed_cell(
    cli: Callable[..., Any], data: Path, config: str, before: Path, tmp_path: Path
) -> None:
    fixed = ("--data", data, "--out", tmp_path / "sweep", "--from", before)
    done = cli("sweep", config, *fixed, "--set", "diffusion.prediction=eps,v")
    assert done.exit_code == 6, done.stderr
    assert "prediction-eps" in done.stdout
    assert "failed" in done.stdout
    assert "PSNR" in done.stdout
    both = ("--workers", 1, "--scheduler", "tcp://127.0.0.1:1")
    assert cli("sweep", config, *fixed, "--set", "train.seed=1,2", *both).exit_code == 2
