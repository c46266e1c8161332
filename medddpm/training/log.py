"""The log of a stage: JSON lines and CSV always, TensorBoard and MLflow where they are wanted."""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medddpm.errors import ConfigError, MissingExtraError, missing_extra
from medddpm.training.options import TrainOptions

Scalar = Callable[[str, float, int], object]


class RunLog:
    """Writes each row to log.jsonl and log.csv, and its numbers to the trackers.

    Args:
        folder: Of the stage.
        options: Say which trackers.
        step: Rows after this step are dropped: a run that was killed will write them again.
    """

    def __init__(self, folder: Path, options: TrainOptions, step: int) -> None:
        self.folder = folder
        self._trackers: list[Scalar] = []
        if options.tensorboard:
            self._trackers.append(_tensorboard(folder))
        if options.mlflow:
            self._trackers.append(_mlflow(folder, options.mlflow))
        kept = [row for row in _rows(folder / "log.jsonl") if row["step"] <= step]
        for name in ("log.jsonl", "log.csv"):
            _write(folder / f"{name}.partial", name, kept, "w")
            os.replace(folder / f"{name}.partial", folder / name)

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; the CSV keeps the columns step, key, value."""
        for name in ("log.jsonl", "log.csv"):
            _write(self.folder / name, name, [row], "a")
        numbers = {k: v for k, v in row.items() if k != "step" and not isinstance(v, str)}
        for tracker in tuple(self._trackers):
            try:
                for key, value in numbers.items():
                    tracker(key, value, row["step"])
            except Exception as error:  # whatever it is, it must not end a training of days
                warnings.warn(f"a tracker is left out from here on: {error}", stacklevel=2)
                self._trackers.remove(tracker)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; a last line that was cut short is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _write(path: Path, name: str, rows: list[dict[str, Any]], mode: str) -> None:
    with path.open(mode, newline="") as file:
        if name.endswith("jsonl"):
            file.writelines(json.dumps(row) + "\n" for row in rows)
            return
        writer = csv.writer(file)
        if mode == "w":
            writer.writerow(["step", "key", "value"])
        for row in rows:
            writer.writerows([row["step"], k, v] for k, v in row.items() if k != "step")


def _tensorboard(folder: Path) -> Scalar:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        what = "train.tensorboard is on, but tensorboard"
        raise MissingExtraError(missing_extra(what, "train")) from error
    scalar: Scalar = SummaryWriter(str(folder)).add_scalar
    return scalar


def _mlflow(folder: Path, store: str) -> Scalar:
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        what = "train.mlflow is set, but mlflow"
        raise MissingExtraError(missing_extra(what, "mlflow")) from error
    if "://" not in store:  # a folder; MLflow keeps up only its database stores
        Path(store).mkdir(parents=True, exist_ok=True)
        store = f"sqlite:///{Path(store).absolute() / 'mlflow.db'}"
    try:
        client = MlflowClient(tracking_uri=store)
        experiment = client.get_experiment_by_name("medddpm")
        number = experiment.experiment_id if experiment else client.create_experiment("medddpm")
        name = f"{folder.parent.name}/{folder.name}"
        run = client.create_run(number, run_name=name).info.run_id
    except (MlflowException, ImportError) as error:
        raise ConfigError(f"cannot log to train.mlflow={store}: {error}") from error
    return lambda key, value, step: client.log_metric(run, key, value, step=step)
