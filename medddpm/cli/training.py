"""`medddpm train autoencoder|diffusion|fidelity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medddpm.cli.console import say
from medddpm.cli.options import Overrides
from medddpm.cli.run import reports_errors

StageName = Literal["autoencoder", "diffusion", "fidelity", "joint"]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("train")(train)


@reports_errors
def train(
    stage: Annotated[StageName, typer.Argument(help="Train them in this order.")],
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
    overrides: Overrides = None,
) -> None:
    """Train one stage on a folder of scans; Ctrl-C or SIGTERM saves, --resume goes on."""
    from medddpm.config import load_config
    from medddpm.workflows.training import train as run

    resolved = load_config(config, overrides or [])
    run(
        stage,
        data=data,
        out=out,
        config=resolved,
        resume=resume,
        start=start,
        replay=replay,
        on_log=lambda row: say(log_line(row)),
    )


def log_line(row: dict[str, Any]) -> str:
    """A logged row as one line, on a terminal and in a file alike."""
    head = f"{row.get('stage', '')} {row.get('step', 0)}/{row.get('steps', '?')}"
    facts = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
        if name not in ("stage", "step", "steps")
    ]
    return f"{head}: {', '.join(facts)}"
