"""`medddpm-bids`: the command line that BIDS Apps share (Gorgolewski et al., 2017)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medddpm.cli.cohort import exit_code
from medddpm.cli.console import progress, say
from medddpm.cli.options import parse_device, parse_sigma
from medddpm.cli.run import (
    interrupt_on_sigterm,
    print_names_as_they_are,
    reports_errors,
    use_plain_warnings,
)
from medddpm.errors import ConfigError, missing_extra
from medddpm.version import __version__

if TYPE_CHECKING:
    from medddpm.cohort.bids.app import BidsRun
    from medddpm.cohort.records import Outcome


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `medddpm-bids` command."""
    interrupt_on_sigterm()
    use_plain_warnings()
    print_names_as_they_are()
    given = _parser().parse_args(arguments)
    try:
        _run(given)
    except typer.Exit as end:
        sys.exit(end.exit_code)


@reports_errors
def _run(given: argparse.Namespace) -> None:
    from medddpm.cohort.bids.app import group, participant
    from medddpm.cohort.bids.names import reasons
    from medddpm.cohort.table import summary

    run = _bids_run(given)
    if not given.skip_bids_validator:
        _validate(run.raw)
    with progress(f"{given.analysis_level} level"):
        if given.analysis_level == "group":
            result = group(run)
        else:
            for line in reasons(run.left_out()):
                say(line)
            result = participant(run, num_workers=given.nprocs, on_outcome=_say)
    typer.echo(summary(result.counts, result.outcomes))
    code = exit_code(result.counts, stopped=False)
    if code:
        raise typer.Exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="medddpm-bids",
        description="Denoises the anatomical scans of a BIDS data set. Not a medical device.",
        epilog="Exit codes: 0 ok; 6 some scans flagged; 7 some failed; 2 usage; 5 output.",
    )
    add = parser.add_argument
    add("bids_dir", type=Path, help="root of the raw BIDS data set")
    add("output_dir", type=Path, help="root of the derivative; several runs may share it")
    add("analysis_level", choices=["participant", "group"])
    for name in ("participant", "session"):
        flags = (f"--{name}-label", f"--{name}_label")
        add(*flags, nargs="+", default=[], metavar="LABEL", help="all if not given")
    add("-w", "--work-dir", type=Path, help="records of what is done; shared by all runs")
    add("--nprocs", type=int, default=1, help="processes at once")
    add("--mem", type=float, metavar="GB", help="most memory of all processes together")
    flags = ("--skip-bids-validator", "--skip_bids_validator")
    add(*flags, action="store_true", help="do not check the raw data set first")
    add("--mode", choices=["mean", "sample", "ensemble"], help="ensemble writes uncertainty maps")
    add("--sigma", default="auto", help="noise level in scan units, or auto")
    add("--weights", default="default", help="a shipped name or a weights file")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--trust", choices=["sform", "qform"], help="where those of a scan disagree")
    help_ = "restore anew what was restored in output_dir with other settings"
    add("--overwrite", action="store_true", help=help_)
    add("--set", action="append", default=[], metavar="A.B=C", help="set a config field")
    add("-v", "--version", action="version", version=f"medddpm {__version__}")
    return parser


def _bids_run(given: argparse.Namespace) -> BidsRun:
    from medddpm.cohort.bids.app import BidsRun
    from medddpm.config import load_config

    if given.nprocs < 1:
        raise ConfigError(f"--nprocs is {given.nprocs}; give 1 or more")
    sigma = parse_sigma(given.sigma)
    known = {
        "mode": given.mode,
        "sigma": sigma,
        "memory_gb": given.mem / given.nprocs if given.mem else None,
    }
    flags = [f"restore.{name}={value}" for name, value in known.items() if value is not None]
    return BidsRun(
        raw=given.bids_dir,
        out=given.output_dir,
        work=given.work_dir,
        subjects=[label.removeprefix("sub-") for label in given.participant_label],
        sessions=[label.removeprefix("ses-") for label in given.session_label],
        options=load_config(None, [*given.set, *flags]).restore,
        weights=given.weights,
        device=parse_device(given.device),
        trust=given.trust,
        overwrite=given.overwrite,
    )


def _validate(raw: Path) -> None:
    """Run the BIDS validator where it is installed; its errors end the run."""
    from medddpm.cohort.bids.app import validation_errors

    errors = validation_errors(raw)
    if errors is None:
        say(f"{missing_extra('the BIDS validator', 'peers')}; the data set is not checked")
    elif errors:
        raise ConfigError(
            f"{raw} is no valid BIDS data set: {', '.join(errors)}; mend it, or give "
            "--skip-bids-validator"
        )


def _say(outcome: Outcome, done: int, total: int) -> None:
    reason = f": {outcome.reason}" if outcome.reason else ""
    say(f"scan {done} of {total}, {outcome.scan}: {outcome.state}{reason}")
