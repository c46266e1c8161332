"""The command line: thin, and it imports torch only when a command needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from medddpm import __version__
from medddpm.cli import (
    benchmark,
    calibrate,
    calibrate_guard,
    cohort,
    data_report,
    lesions,
    memorisation,
    prepare,
    report,
    scans,
    serve_dicom,
    shipped,
    sweep,
    training,
)
from medddpm.cli.run import (
    interrupt_on_sigterm,
    print_names_as_they_are,
    set_debug,
    use_plain_warnings,
)

app = typer.Typer(
    name="medddpm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Restores noisy MRI scans with latent diffusion. For research; not a medical device.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medddpm {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    set_debug(debug)
    use_plain_warnings()
    print_names_as_they_are()


scans.register(app)
prepare.register(app)
report.register(app)
training.register(app)
sweep.register(app)
memorisation.register(app)
benchmark.register(app)
lesions.register(app)
data_report.register(app)
calibrate.register(app)
calibrate_guard.register(app)
cohort.register(app)
serve_dicom.register(app)
shipped.register(app)


def main() -> None:
    """Entry point of the `medddpm` command."""
    interrupt_on_sigterm()
    app()
