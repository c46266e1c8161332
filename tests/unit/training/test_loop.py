"""The loop on a stage of a few weights: what goes wrong, and what is the same however it is run."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from medddpm.errors import (
    CheckpointError,
    ConfigError,
    MissingExtraError,
    OutputError,
    SamplingDivergedError,
)
from medddpm.training import log, state
from medddpm.training.batches import Share, prefetched
from medddpm.training.fabric import launch, on_first_process
from medddpm.training.guard import LossWatch
from medddpm.training.log import RunLog
from medddpm.training.loop import run_stage
from medddpm.training.options import TrainOptions

OPTIONS = TrainOptions(warmup=0, log_every=1, validate_every=10, bf16="off", device="cpu")
EVERY_STEP = 1e-9
Spoil = Callable[[Tensor, Share], Tensor]


class Line:
    """Fits y = 2 x; `spoil` may change its loss."""

    name, figure, learning_rate = "line", "score", 0.1

    def __init__(self, steps: int = 20, batch: int = 4, spoil: Spoil | None = None) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = nn.Linear(3, 1)
        self.steps, self.batch, self.spoil = steps, batch, spoil
        self.scores: list[float] = []

    def draw(self, share: Share) -> Tensor:
        return torch.stack([torch.from_numpy(r.normal(size=3)).float() for r in share.rngs()])

    def loss(self, x: Tensor, share: Share) -> Tensor:
        noise = 0.1 * share.normal((1,), x.device)
        error: Tensor = (self.network(x) - 2 * x[:, :1] - noise).square().mean()
        return self.spoil(error, share) if self.spoil else error

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        if not self.scores:
            return {"score": float(self.network.state_dict()["weight"].sum())}
        return {"score": self.scores.pop(0) if preview.parent.name == "previews" else 0.0}


def run(stage: Line, out: Path, *, resume: bool = False, **changes: Any) -> int:
    options = replace(OPTIONS, **changes)
    return run_stage(stage, out, options, launch(options), resume=resume)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def facts(out: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(out / "state.safetensors", framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["facts"])
    return found


def test_one_bad_loss_goes_back_and_on_with_other_data(tmp_path: Path) -> None:
    calls = []

    def once(loss: Tensor, share: Share) -> Tensor:
        calls.append(share.seed)
        return loss * float("nan") if len(calls) == 8 else loss

    assert run(Line(spoil=once), tmp_path, save_minutes=EVERY_STEP) == 20
    notes = [row["note"] for row in rows(tmp_path) if "note" in row]
    assert notes == ["diverged at step 7; back to step 7, learning rate x 0.5"]
    assert calls[7] != calls[8]
    rates = {row["step"]: row["lr"] for row in rows(tmp_path) if "lr" in row}
    assert rates[8] / rates[7] < 0.51
    assert facts(tmp_path)["rollbacks"] == 1
    values = load_file(tmp_path / "state.safetensors").values()
    assert all(torch.isfinite(value).all() for value in values)


def test_a_loss_that_stays_bad_ends_the_run_with_a_good_state(tmp_path: Path) -> None:
    seen = []

    def always(loss: Tensor, share: Share) -> Tensor:
        seen.append(share.seed)
        return loss * float("inf") if len(seen) > 7 else loss

    with pytest.raises(SamplingDivergedError, match=r"step 7 .*line\.learning_rate"):
        run(Line(spoil=always), tmp_path, save_minutes=EVERY_STEP)
    assert sum("note" in row for row in rows(tmp_path)) == 3
    assert facts(tmp_path)["step"] == 7
    values = load_file(tmp_path / "state.safetensors").values()
    assert all(torch.isfinite(value).all() for value in values)


def test_a_run_that_climbs_goes_back_to_before_it_climbed(tmp_path: Path) -> None:
    seen = []

    def climbs(loss: Tensor, share: Share) -> Tensor:
        seen.append(share.seed)
        return 1000 * loss + 100 if 70 < len(seen) <= 95 else loss

    run(Line(steps=100, spoil=climbs), tmp_path, save_minutes=EVERY_STEP)
    (note,) = [row["note"] for row in rows(tmp_path) if "note" in row]
    assert note == "diverged at step 94; back to step 70, learning rate x 0.5"


def test_the_watch_forgives_single_steps() -> None:
    watch = LossWatch()
    for step in range(198):
        assert not watch.diverges(50.0 if step % 10 == 9 else 1.0, useful=step % 10 != 8)
    assert not any(watch.diverges(50.0, useful=True) for _ in range(24))
    assert watch.doubtful
    assert watch.diverges(50.0, useful=True)


def test_accumulation_equals_a_larger_batch(tmp_path: Path) -> None:
    whole, parts = Line(batch=8), Line(batch=2)
    run(whole, tmp_path / "whole")
    run(parts, tmp_path / "parts", accumulate=4)
    losses = [[r["loss"] for r in rows(tmp_path / n) if "loss" in r] for n in ("whole", "parts")]
    assert len(losses[0]) == 20
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch.testing.assert_close(
        whole.network.state_dict(), parts.network.state_dict(), rtol=1e-4, atol=1e-6
    )


def test_threads_draw_the_same_batches(tmp_path: Path) -> None:
    stages = Line(), Line()
    for stage, workers in zip(stages, (0, 3), strict=True):
        run(stage, tmp_path / str(workers), workers=workers)
    torch.testing.assert_close(
        stages[0].network.state_dict(), stages[1].network.state_dict(), rtol=0, atol=0
    )


def test_what_is_drawn_ahead_comes_in_order_and_its_errors_come_out() -> None:
    ahead = prefetched(lambda i: 1 // (9 - i), 5, threads=3)
    assert [next(ahead) for _ in range(4)] == [0, 0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(ahead)


def test_training_stops_without_gain_and_keeps_the_best(tmp_path: Path) -> None:
    stage = Line(steps=100)
    stage.scores = [1.0, 2.0, 1.5, 1.9, 1.8, 9.0]
    assert run(stage, tmp_path, patience=3) == 50
    best = load_file(tmp_path / "best.safetensors")
    torch.testing.assert_close(dict(stage.network.state_dict()), best, rtol=0, atol=0)
    last = load_file(tmp_path / "state.safetensors")
    assert not torch.equal(best["weight"], last["ema.weight"])
    assert rows(tmp_path)[-1]["note"].startswith("stopped early")
    assert run(Line(steps=100), tmp_path, resume=True, patience=3) == 50


def test_another_batch_on_resuming_is_said(tmp_path: Path) -> None:
    run(Line(steps=3), tmp_path, schedule="constant")
    run(Line(steps=6, batch=2), tmp_path, resume=True, accumulate=4, schedule="constant")
    (note,) = [row["note"] for row in rows(tmp_path) if "note" in row]
    assert "samples a step: 8, before 4" in note


def test_a_full_disk_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Line(steps=3), tmp_path, schedule="constant")
    before = (tmp_path / "state.safetensors").read_bytes()

    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OutputError, match="No space left"):
        patched.setattr(state, "save_tensors", full)
        run(Line(steps=6), tmp_path, resume=True, schedule="constant")
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))
    assert run(Line(steps=6), tmp_path, resume=True, schedule="constant") == 6


def test_the_log_goes_on_where_the_state_does(tmp_path: Path) -> None:
    first = RunLog(tmp_path, OPTIONS, 0)
    for step in (1, 2, 3):
        first.write({"step": step, "loss": 0.5, "note": "said"})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    RunLog(tmp_path, OPTIONS, 2).write({"step": 3, "loss": 0.25})
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [(1, 0.5), (2, 0.5), (3, 0.25)]
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "step,key,value"
    assert lines[-2:] == ["2,note,said", "3,loss,0.25"]


def test_each_logged_row_says_speed_memory_and_time_left(tmp_path: Path) -> None:
    run(Line(steps=4), tmp_path)
    row = next(row for row in rows(tmp_path) if row["step"] == 2 and "loss" in row)
    assert row["samples_a_second"] > 0
    assert 0.05 < row["memory_gb"] < 100
    assert row["minutes_left"] == pytest.approx(2 * row["seconds_a_step"] / 60)


@pytest.mark.parametrize(
    ("module", "changes"),
    [("torch.utils.tensorboard", {"tensorboard": True}), ("mlflow", {"mlflow": "runs"})],
)
def test_a_tracker_that_is_not_installed_is_said(
    module: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match="pip install"):
        run(Line(), tmp_path, **changes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra train")
    run(Line(steps=2), tmp_path, tensorboard=True)
    assert list(tmp_path.glob("events.out*"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_mlflow_gets_the_numbers(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    store = tmp_path / "store"
    run(Line(steps=2), tmp_path / "run" / "line", mlflow=str(store))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    number = client.get_experiment_by_name("medddpm").experiment_id
    (found,) = client.search_runs([number])
    assert [m.step for m in client.get_metric_history(found.info.run_id, "loss")] == [1, 2]
    with pytest.raises(ConfigError, match=r"train\.mlflow"):
        run(Line(steps=2), tmp_path / "other", mlflow="nonsense://store")


def test_a_tracker_that_fails_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def unreachable(key: str, value: float, step: int) -> None:
        calls.append(key)
        raise ConnectionError("no route to host")

    monkeypatch.setattr(log, "_tensorboard", lambda folder: unreachable)
    with pytest.warns(UserWarning, match="no route"):
        assert run(Line(steps=3), tmp_path, tensorboard=True) == 3
    assert len(calls) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match=r"train\.device"):
        launch(replace(OPTIONS, device="cuda"))


def test_a_launch_with_another_number_of_processes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLURM_NTASKS": "4",
        "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_JOB_NAME": "train",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
        "SLURM_JOB_ID": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"train\.devices"):
        launch(replace(OPTIONS, devices=2))


def test_an_error_of_the_first_process_is_raised() -> None:
    def fail() -> None:
        raise OutputError("no room")

    with pytest.raises(OutputError, match="no room"):
        on_first_process(launch(OPTIONS), fail)


def test_validation_is_of_the_averaged_weights_and_of_those_as_they_are(tmp_path: Path) -> None:
    stage = Line()
    run(stage, tmp_path, ema=0.9)
    ends = [row for row in rows(tmp_path) if "score" in row]
    saved = load_file(tmp_path / "state.safetensors")
    raw, averaged = saved["net.weight"], saved["ema.weight"]
    assert ends[-1]["raw_score"] == pytest.approx(float(raw.sum()))
    assert ends[-1]["score"] == pytest.approx(float(averaged.sum()))
    assert ends[-1]["score"] != pytest.approx(ends[-1]["raw_score"], abs=1e-6)


def test_minutes_of_steps_end_a_run_and_are_kept(tmp_path: Path) -> None:
    """All resumed parts count together; that time is up is no failure to report."""
    assert run(Line(), tmp_path, minutes=1e-9) == 1
    assert run(Line(), tmp_path, minutes=1e-9, resume=True) == 1
    first = state.saved_progress(tmp_path / "state.safetensors")
    assert 0 < first.seconds < 60
    assert run(Line(), tmp_path, minutes=10.0, resume=True) == 20
    assert state.saved_progress(tmp_path / "state.safetensors").seconds > first.seconds
    assert not any("note" in row for row in rows(tmp_path))
    assert all(row["minutes_left"] < 10 for row in rows(tmp_path) if "minutes_left" in row)
    (tmp_path / "state.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="delete it to begin again"):
        state.saved_progress(tmp_path / "state.safetensors")


def test_a_stage_may_have_momenta_of_its_own(tmp_path: Path) -> None:
    """Adam without momentum takes a first step of the learning rate, whatever came before."""

    class Other(Line):
        betas = (0.0, 0.0)

    stage = Other(steps=2)
    before = stage.network.weight.detach().clone()
    run(stage, tmp_path, ema=0.0, schedule="constant")
    moved = (stage.network.weight.detach() - before).abs().max()
    assert float(moved) <= 0.2 + 1e-5  # with betas of 0 each step is the rate, 0.1
    values = load_file(tmp_path / "state.safetensors")
    grads = {k: v for k, v in values.items() if k.startswith("exp_avg.")}
    squares = {k: v for k, v in values.items() if k.startswith("exp_avg_sq.")}
    for (_, mean), (_, square) in zip(grads.items(), squares.items(), strict=True):
        assert torch.allclose(mean.square(), square)
