"""`medddpm compare`: generators of whole heads beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.options import Overrides, Weights, given
from medddpm.cli.run import EXIT_FLAGGED, reports_errors
from medddpm.cli.training import log_line
from medddpm.errors import ConfigError

_COLUMNS = (
    ("steps", "steps", "d"),
    ("train_minutes", "train min", ".1f"),
    ("seconds_a_draw", "s a draw", ".2f"),
    ("memory_gb", "GB", ".2f"),
    ("frechet", "Frechet", ".2f"),
    ("kernel", "kernel", ".3f"),
    ("ms_ssim", "MS-SSIM", ".3f"),
    ("restored_psnr", "restored dB", ".2f"),
    ("copies", "copies", ".0%"),
)
_WIDE = 13


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("compare", rich_help_panel=groups.GENERATE)(compare)


@reports_errors
def compare(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Folder of NIfTI scans, searched through.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the trainings, the table and the page.")],
    method: Annotated[
        list[str] | None, typer.Option(help="A method, all if none is named; repeatable.")
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(help="A prior that was trained before, beside them: T1w, or a file."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Of training for each method, 10 if not given; more in a second call."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Training steps for each method, in place of minutes.")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Heads that each method draws.")] = None,
    draw_steps: Annotated[
        int | None, typer.Option(help="Network evaluations a draw, of diffusion and flow.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first draw.")] = None,
    contrast: Annotated[
        str | None, typer.Option(help="End of the names of the scans to learn, such as T1w.")
    ] = None,
    config: Annotated[str, typer.Option(help="A shipped name or a YAML file.")] = "default",
    weights: Weights = "default",
    overrides: Overrides = None,
) -> None:
    """Train GAN, diffusion, flow and VAE on the same heads for as long, and compare their draws.

    Some scans are held out: --set data.holdout=[PATTERN]. A second call goes on where the first
    stopped.

    Exit codes: 0 ok; 6 the table is written, but the training of a method diverged; 2 usage or
    config; 3 unreadable scans, weights or state; 5 output.
    """
    if minutes is not None and steps is not None:
        raise ConfigError("--minutes and --steps are two ways to say how long; give one of them")
    settings = list(overrides or [])
    if contrast is not None:
        settings.append(f"prior.contrast={contrast}")
    with progress("compare: reads the heads") as step:
        from medddpm.comparison.options import CompareOptions
        from medddpm.comparison.run import compare as run
        from medddpm.config import load_config

        asked = given(
            methods=method,
            prior=prior,
            minutes=minutes,
            steps=steps,
            count=count,
            draw_steps=draw_steps,
            seed=seed,
        )
        done = run(
            data,
            out=out,
            config=load_config(config, settings),
            options=CompareOptions(**asked),
            weights=weights,
            on_log=lambda row: say(log_line(row)),
            on_progress=step,
        )
    typer.echo(_table(done.rows))
    for path in done.paths:
        say(f"wrote {path}")
    if any(row["state"] != "done" for row in done.rows):
        raise typer.Exit(EXIT_FLAGGED)


def _table(rows: list[dict[str, Any]]) -> str:
    """One line a method, after those of real heads and of the autoencoder."""
    wide = max(len(row["method"]) for row in rows)
    lines = [f"{'':<{wide}}" + "".join(f"{label:>{_WIDE}}" for _, label, _ in _COLUMNS)]
    for row in rows:
        cells = [
            f"{row[key]:>{_WIDE}{form}}" if key in row else " " * _WIDE for key, _, form in _COLUMNS
        ]
        said = "".join(cells) if row["state"] == "done" else f"  {row['state']}"
        lines.append(f"{row['method']:<{wide}}{said}".rstrip())
    return "\n".join(lines)
