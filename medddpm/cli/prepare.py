"""`medddpm prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.options import Trust
from medddpm.cli.run import EXIT_FLAGGED, reports_errors
from medddpm.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("prepare", rich_help_panel=groups.DATA)(prepare)


@reports_errors
def prepare(
    source: Annotated[
        Path, typer.Argument(help="BIDS, a tree of DICOM, or NIfTI files with --table.")
    ],
    out: Annotated[
        Path | None, typer.Argument(help="Folder to prepare; with --withdraw it stands alone.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="CSV of NIfTI files: file, subject, contrast, sex ...")
    ] = None,
    consent: Annotated[
        Path | None, typer.Option(help="CSV: subject, state, scope, date; others are left out.")
    ] = None,
    split: Annotated[str, typer.Option(help="Shares of train, val and test.")] = "0.8,0.1,0.1",
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 0,
    key: Annotated[
        Path | None, typer.Option(help="Key of the pseudonyms, to share one between sites.")
    ] = None,
    deidentify: Annotated[
        str, typer.Option(metavar="check|FOLDER", help="Check DICOM headers; write clean copies.")
    ] = "",
    deface: Annotated[
        str, typer.Option(metavar='"CMD {in} {out}"', help="An installed tool, for whole heads.")
    ] = "",
    trust: Trust = None,
    withdraw: Annotated[
        str | None, typer.Option(metavar="SUBJECT", help="Purge a subject from OUT, for good.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="With --withdraw: list checkpoints here that saw them.")
    ] = None,
) -> None:
    """Make training data of a hospital's folder: manifest, ledger, splits and packed cache."""
    if withdraw is not None:
        _withdraw(out or source, withdraw, runs)
        return
    if out is None:
        raise ConfigError("give the folder to prepare too: medddpm prepare SOURCE OUT")
    with progress("prepare") as report:
        from medddpm.data.prepare import PrepareOptions
        from medddpm.data.prepare import prepare as run
        from medddpm.data.splits import parse_fractions

        options = PrepareOptions(
            table, consent, key, deidentify, deface, parse_fractions(split), seed, trust
        )
        summary = run(source, out, options, on_progress=report, on_note=say)
    _say_summary(summary, out)
    if not summary["scans"]:
        say("no scan is left to train on: see the ledger")
        raise typer.Exit(EXIT_FLAGGED)


def _say_summary(summary: dict[str, Any], out: Path) -> None:
    typer.echo(f"{summary['scans']} scans of {summary['subjects']} subjects: {out}")
    for name in ("splits", "contrasts", "left_out", "flags"):
        counts = ", ".join(f"{key} {count}" for key, count in summary[name].items())
        typer.echo(f"{name.replace('_', ' ')}: {counts or 'none'}")
    typer.echo(f"consent: {summary['consent']}")
    headers = summary["deidentified"]
    if headers:
        typer.echo(
            f"DICOM headers: {headers['identifying']} of {headers['series']} series identify a "
            f"person or a place, {headers['copies']} de-identified copies"
        )
    typer.echo(f"look at {out / 'quality'}; keep {out / 'private'} to yourself")


def _withdraw(out: Path, subject: str, runs: Path | None) -> None:
    from medddpm.data.withdraw import withdraw

    done = withdraw(out, subject, runs)
    typer.echo(f"{len(done.scans)} scans of {len(done.subjects)} subject(s) are gone from {out}")
    if runs is None:
        say("give --runs FOLDER to list the checkpoints that saw them")
        return
    typer.echo(f"{len(done.checkpoints)} checkpoints under {runs} saw them")
    for path in done.checkpoints:
        typer.echo(f"  {path}")
