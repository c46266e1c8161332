"""`medddpm train autoencoder|diffusion|fidelity|joint|distil|prior|reference`."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medddpm.cli import groups
from medddpm.cli.console import duration, progress, say
from medddpm.cli.options import Overrides
from medddpm.cli.run import reports_errors

StageName = Literal["autoencoder", "diffusion", "fidelity", "joint", "distil", "prior", "reference"]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("train", rich_help_panel=groups.TRAIN)(train)


@reports_errors
def train(
    stage: Annotated[
        StageName,
        typer.Argument(
            help="Train the first three in this order; distil makes `sample` need one step, prior "
            "is for `medddpm generate`, reference for `medddpm restore --reference`."
        ),
    ],
    data: Annotated[Path, typer.Option(help="A prepared folder, or one of NIfTI scans.")],
    out: Annotated[Path, typer.Option(help="Run folder; all three stages share it.")],
    config: Annotated[str, typer.Option(help="A shipped name or a YAML file.")] = "default",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Fine-tune these weights: a shipped name or a file."),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Scans that share a fine-tuning, against forgetting.")
    ] = None,
    codec: Annotated[
        Path | None,
        typer.Option(help="Autoencoder of `medddpm import`, in place of one that is trained here."),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option(help="Of distil: this prior in place of the diffusion network."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Train one stage on a folder of scans; Ctrl-C or SIGTERM saves, --resume goes on."""
    with ExitStack() as before:
        before.enter_context(progress(f"train {stage}: reads, and takes the first steps"))
        from medddpm.config import load_config
        from medddpm.workflows.training import train as run

        run(
            stage,
            data=data,
            out=out,
            config=load_config(config, [*_imported(codec), *(overrides or [])]),
            resume=resume,
            start=start,
            replay=replay,
            prior=prior,
            on_log=_Log(before),
        )


def _imported(codec: Path | None) -> list[str]:
    """What a config says of an imported autoencoder."""
    if codec is None:
        return []
    return ["autoencoder.kind=imported", f"autoencoder.weights={json.dumps(str(codec))}"]


class _Log:
    """Says each row that is logged, with the time left once two are known."""

    def __init__(self, before: ExitStack) -> None:
        self.before = before
        self.first: tuple[float, int] | None = None

    def __call__(self, row: dict[str, Any]) -> None:
        self.before.close()
        say(log_line(row) + self._left(row))

    def _left(self, row: dict[str, Any]) -> str:
        step, steps = row.get("step"), row.get("steps")
        if step is None or steps is None:
            return ""
        now = time.monotonic()
        if self.first is None:
            self.first = now, step
        began, done = self.first
        if step <= done or step >= steps:
            return ""
        return f", about {duration((now - began) / (step - done) * (steps - step))} left"


def log_line(row: dict[str, Any]) -> str:
    """A logged row as one line, on a terminal and in a file alike."""
    head = f"{row.get('stage', '')} {row.get('step', 0)}/{row.get('steps', '?')}"
    facts = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
        if name not in ("stage", "step", "steps")
    ]
    return f"{head}: {', '.join(facts)}"
